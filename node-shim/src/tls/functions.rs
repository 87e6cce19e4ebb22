//! Certificates that functions bring for the hosts of their routes. They are in memory only.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use node_api::certificate::Certificate;
use node_shim_core::certificates::CertificateIndex;
use node_shim_core::host::Host;

/// A certificate from a Secret of the namespace of a function.
pub struct FunctionCertificate {
    /// Namespace of the function and the Secret.
    pub namespace: Arc<str>,
    /// Name of the Secret.
    pub secret: Arc<str>,
    /// The certificate with its key.
    pub certificate: Arc<Certificate>,
}

/// Certificates of functions by the hosts of the routes that name them.
#[derive(Debug, Default)]
pub struct FunctionCertificates(CertificateIndex<Arc<FunctionCertificate>>);

/// Writes the namespace and the name of the Secret.
impl fmt::Display for FunctionCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.secret)
    }
}

impl fmt::Debug for FunctionCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FunctionCertificates {
    /// Adds a certificate for the host of a route. Of two certificates for a host, the one that was added first has
    /// precedence.
    pub fn add(&mut self, host: &str, certificate: Arc<FunctionCertificate>) {
        let namespace = certificate.namespace.clone();
        self.0.add(&namespace, host, certificate);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().next().is_none()
    }

    /// Returns the certificate for a host that belongs to `namespace`.
    pub(crate) fn find(&self, namespace: &str, host: &Host) -> Option<&Arc<FunctionCertificate>> {
        let Host::Name(name) = host else {
            return None;
        };
        let covers = |one: &Arc<FunctionCertificate>| one.certificate.details().covers(name);
        self.0.find(namespace, name, covers)
    }

    /// Returns the end of the validity of each Secret's certificate, in seconds of Unix time, by namespace and name.
    /// Functions may have different certificates of one Secret for a moment; the earliest end counts.
    pub(crate) fn expirations(&self) -> BTreeMap<String, i64> {
        let mut ends = BTreeMap::new();
        for one in self.0.iter() {
            let end = one.certificate.details().not_after();
            let earliest = ends.entry(one.to_string()).or_insert(end);
            *earliest = end.min(*earliest);
        }
        ends
    }
}
