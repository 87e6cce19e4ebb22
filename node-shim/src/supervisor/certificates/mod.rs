//! Certificates that functions bring: taken from their records, kept in memory, and in use for the hosts of their routes.
//!
//! A certificate in use stays until another one can take its place: when the operator has no usable one of the Secret, when
//! the new one is not valid yet, and when the routes name another Secret of which the node has none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use node_api::certificate::Certificate;
use node_api::v1::{CertificatePair, FunctionRecord};
use node_shim_core::table::FunctionKey;
use sha2::{Digest, Sha256};

use crate::tls::{CertificateSlot, FunctionCertificate, FunctionCertificates};

/// Certificates of all functions of the node.
#[derive(Default)]
pub(crate) struct CertificateStore {
    functions: BTreeMap<FunctionKey, FunctionEntry>,
    /// What follows from `functions`; `None` after a change.
    published: Option<Arc<FunctionCertificates>>,
}

/// Certificates of one function.
#[derive(Default)]
struct FunctionEntry {
    uid: String,
    /// Creation time: of two functions of a namespace with a host, the older one has precedence.
    created: u64,
    /// Hosts of the routes that name a Secret, with its name, in the order of the routes.
    hosts: Vec<(String, String)>,
    /// By the name of the Secret. Some may be named by no route any longer.
    secrets: BTreeMap<String, SecretEntry>,
}

#[derive(Default)]
struct SecretEntry {
    /// Hash of the pair that was received last.
    received: Option<[u8; 32]>,
    slot: CertificateSlot,
}

impl CertificateStore {
    /// Takes the certificates of a record. `now` is in seconds of Unix time.
    pub(crate) fn set(&mut self, key: &FunctionKey, record: &FunctionRecord, now: i64) {
        if record.certificates.is_empty() {
            self.remove(key);
            return;
        }
        let entry = self.functions.entry(key.clone()).or_default();
        if entry.uid != record.uid {
            *entry = FunctionEntry {
                uid: record.uid.clone(),
                ..FunctionEntry::default()
            };
        }
        let mut changed = false;
        for certificate in &record.certificates {
            let secret = &certificate.secret;
            let known = entry.secrets.entry(secret.clone()).or_default();
            if let Some(pair) = &certificate.pair {
                changed |= known.take(key, secret, pair, now);
            }
        }
        let routes = record.routes.iter();
        let named = routes.filter(|route| !route.certificate.is_empty());
        let hosts = named.flat_map(|route| {
            let hosts = route.hosts.iter();
            hosts.map(|host| (host.clone(), route.certificate.clone()))
        });
        let hosts: Vec<_> = hosts.collect();
        changed |= entry.hosts != hosts || entry.created != record.created;
        (entry.hosts, entry.created) = (hosts, record.created);
        let certificates = record.certificates.iter();
        let named = certificates.map(|one| one.secret.as_str()).collect();
        changed |= entry.forget_replaced(&named);
        if changed {
            self.published = None;
        }
    }

    /// Forgets the certificates of a function.
    pub(crate) fn remove(&mut self, key: &FunctionKey) {
        if self.functions.remove(key).is_some() {
            self.published = None;
        }
    }

    /// Forgets the certificates of all functions for which `exists` does not hold.
    pub(crate) fn retain(&mut self, exists: impl Fn(&FunctionKey) -> bool) {
        let before = self.functions.len();
        self.functions.retain(|key, _| exists(key));
        if self.functions.len() != before {
            self.published = None;
        }
    }

    /// Puts certificates in use that were not valid before, and returns whether there are any. `now` is in seconds of Unix
    /// time.
    pub(crate) fn advance(&mut self, now: i64) -> bool {
        let mut advanced = false;
        for (key, entry) in &mut self.functions {
            for (secret, known) in &mut entry.secrets {
                if known.slot.advance(now) {
                    advanced = true;
                    known.log_current(key, secret, now);
                }
            }
        }
        if advanced {
            self.published = None;
        }
        advanced
    }

    /// Returns the certificates in use by host.
    pub(crate) fn published(&mut self) -> Arc<FunctionCertificates> {
        let functions = &self.functions;
        let published = self
            .published
            .get_or_insert_with(|| Arc::new(by_host(functions)));
        Arc::clone(published)
    }
}

impl FunctionEntry {
    /// Forgets the Secrets that no route names any longer, unless one that is named has no certificate yet. Returns whether
    /// any was forgotten.
    fn forget_replaced(&mut self, named: &BTreeSet<&str>) -> bool {
        let mut wanted = named.iter().filter_map(|name| self.secrets.get(*name));
        if !wanted.all(|known| known.slot.current().is_some()) {
            return false;
        }
        let before = self.secrets.len();
        self.secrets.retain(|name, _| named.contains(name.as_str()));
        self.secrets.len() != before
    }

    /// Returns the certificates for the hosts of a route that names `secret`: that of the Secret, else those in use before.
    fn in_use<'a>(&'a self, secret: &'a str) -> Vec<(&'a str, &'a Arc<Certificate>)> {
        let current = |name: &'a str| Some((name, self.secrets.get(name)?.slot.current()?));
        if let Some(found) = current(secret) {
            return vec![found];
        }
        let is_named = |name: &str| self.hosts.iter().any(|(_, named)| named == name);
        let former = self.secrets.keys().filter(|name| !is_named(name));
        former.filter_map(|name| current(name)).collect()
    }
}

impl SecretEntry {
    /// Takes a pair and returns whether another certificate is in use now.
    fn take(&mut self, key: &FunctionKey, secret: &str, pair: &CertificatePair, now: i64) -> bool {
        let hash = hash(pair);
        if self.received.replace(hash) == Some(hash) {
            return false;
        }
        match Certificate::parse(&pair.chain, &pair.key) {
            Ok(new) => {
                let taken = self.slot.offer(Arc::new(new), now);
                if taken {
                    self.log_current(key, secret, now);
                }
                taken
            }
            // the operator checks pairs in the same way, so this is one of another version
            Err(error) => {
                let kept = self.slot.current().is_some();
                tracing::warn!(function = %key, secret, %error, kept, "the certificate cannot be used");
                false
            }
        }
    }

    fn log_current(&self, key: &FunctionKey, secret: &str, now: i64) {
        let Some(details) = self.slot.current().map(|current| current.details()) else {
            return;
        };
        let (names, not_after) = (details.names().join(", "), details.not_after());
        if details.is_valid_at(now) {
            tracing::info!(function = %key, secret, names, not_after, "certificate in use");
        } else {
            tracing::warn!(function = %key, secret, names, not_after, "the certificate in use is not valid at this time");
        }
    }
}

/// Returns a hash by which a pair is recognised without a copy of it.
fn hash(pair: &CertificatePair) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(pair.chain.len().to_le_bytes());
    hasher.update(&pair.chain);
    hasher.update(&pair.key);
    hasher.finalize().into()
}

fn by_host(functions: &BTreeMap<FunctionKey, FunctionEntry>) -> FunctionCertificates {
    let mut by_age: Vec<_> = functions.iter().collect();
    by_age.sort_by_key(|(_, entry)| entry.created);
    let mut certificates = FunctionCertificates::default();
    for (key, entry) in by_age {
        let mut made = BTreeMap::new();
        for (host, named) in &entry.hosts {
            for (secret, certificate) in entry.in_use(named) {
                let shared = made.entry(secret).or_insert_with(|| {
                    Arc::new(FunctionCertificate {
                        namespace: key.namespace.clone(),
                        secret: secret.into(),
                        certificate: certificate.clone(),
                    })
                });
                certificates.add(host, shared.clone());
            }
        }
    }
    certificates
}

#[cfg(test)]
mod tests;
