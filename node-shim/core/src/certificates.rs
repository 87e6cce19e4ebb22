//! Chooses the certificate of a function by the server name that a client sends. A certificate counts only for hosts of the
//! routes that name it.

use std::collections::HashMap;
use std::sync::Arc;

/// Certificates by the namespace of their functions and the hosts of the routes that name them.
#[derive(Debug)]
pub struct CertificateIndex<C> {
    namespaces: HashMap<Arc<str>, Hosts<C>>,
}

#[derive(Debug)]
struct Hosts<C> {
    exact: HashMap<Box<str>, Vec<C>>,
    /// By the suffix after `*`, including the dot; empty for the host `*`.
    wildcard: HashMap<Box<str>, Vec<C>>,
}

impl<C> Default for CertificateIndex<C> {
    fn default() -> Self {
        Self {
            namespaces: HashMap::new(),
        }
    }
}

impl<C> Default for Hosts<C> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        }
    }
}

impl<C> CertificateIndex<C> {
    /// Adds a certificate for the host of a route in a namespace. Of two certificates for a host, the one that was added
    /// first has precedence.
    pub fn add(&mut self, namespace: &Arc<str>, host: &str, certificate: C) {
        let hosts = self.namespaces.entry(namespace.clone()).or_default();
        let certificates = match host.strip_prefix('*') {
            Some(suffix) => hosts.wildcard.entry(suffix.into()).or_default(),
            None => hosts.exact.entry(host.into()).or_default(),
        };
        certificates.push(certificate);
    }

    /// Returns the certificate for `name`, in lower case, among those of a namespace: that of the exact host, else that of the
    /// longest wildcard. `covers` tells which certificates are valid for the name; the others are passed over.
    ///
    /// The caller names the namespace to which the host `name` belongs, so no namespace presents a certificate for a host of
    /// another one.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use node_shim_core::certificates::CertificateIndex;
    ///
    /// let shop: Arc<str> = "shop".into();
    /// let mut index = CertificateIndex::default();
    /// index.add(&shop, "*.shop.example", "wildcard");
    /// index.add(&shop, "pay.shop.example", "exact");
    /// assert_eq!(index.find("shop", "pay.shop.example", |_| true), Some(&"exact"));
    /// assert_eq!(index.find("shop", "www.shop.example", |_| true), Some(&"wildcard"));
    /// assert_eq!(index.find("blog", "www.shop.example", |_| true), None);
    /// ```
    pub fn find(&self, namespace: &str, name: &str, covers: impl Fn(&C) -> bool) -> Option<&C> {
        let hosts = self.namespaces.get(namespace)?;
        let dots = name.char_indices().filter(|(_, c)| *c == '.');
        let suffixes = dots.filter_map(|(at, _)| name.get(at..)).chain([""]);
        let wildcards = suffixes.filter_map(|suffix| hosts.wildcard.get(suffix));
        let mut matching = hosts.exact.get(name).into_iter().chain(wildcards).flatten();
        matching.find(|certificate| covers(certificate))
    }

    /// Returns all certificates, each once for every host.
    pub fn iter(&self) -> impl Iterator<Item = &C> {
        let hosts = self.namespaces.values();
        hosts.flat_map(|hosts| {
            let exact = hosts.exact.values().flatten();
            exact.chain(hosts.wildcard.values().flatten())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(&str, &str, &'static str)]) -> CertificateIndex<&'static str> {
        let mut index = CertificateIndex::default();
        for (namespace, host, certificate) in entries {
            index.add(&Arc::from(*namespace), host, *certificate);
        }
        index
    }

    #[test]
    fn the_most_specific_host_whose_certificate_covers_the_name_wins() {
        let index = index(&[
            ("a", "*", "all"),
            ("a", "*.shop.example", "wide"),
            ("a", "*.eu.shop.example", "narrow"),
            ("a", "pay.shop.example", "exact"),
            ("a", "pay.shop.example", "second"),
        ]);
        for (name, expected) in [
            ("pay.shop.example", "exact"),
            ("x.eu.shop.example", "narrow"),
            ("eu.shop.example", "wide"),
            ("shop.example", "all"),
            ("other", "all"),
        ] {
            assert_eq!(index.find("a", name, |_| true), Some(&expected), "{name}");
        }
        let not = |refused: &'static [&'static str]| {
            index.find("a", "pay.shop.example", move |one| !refused.contains(one))
        };
        assert_eq!(not(&["exact"]), Some(&"second"));
        assert_eq!(not(&["exact", "second"]), Some(&"wide"));
        assert_eq!(not(&["exact", "second", "wide", "all"]), None);
        assert_eq!(index.iter().count(), 5);
    }

    #[test]
    fn a_namespace_never_finds_the_certificate_of_another_one() {
        let index = index(&[("a", "shop.example", "a"), ("a", "*", "all of a")]);
        assert_eq!(index.find("b", "shop.example", |_| true), None);
        assert_eq!(index.find("", "shop.example", |_| true), None);
    }
}
