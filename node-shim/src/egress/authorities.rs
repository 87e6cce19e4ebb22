//! Certificate authorities that a function trusts in addition to those of the node.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use node_api::ca_certificates::{CaCertificates, CaCertificatesError};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};

use super::tls;

/// Certificate authorities that a function trusts in addition to those of the node. Two values are equal if their
/// certificates are.
pub struct FunctionAuthorities {
    certificates: CaCertificates,
    id: AuthoritiesId,
    /// Created by the first connection with TLS of each kind: most functions open none, and the list of all authorities takes
    /// about 100 KiB.
    http: TlsConfig,
    redis: TlsConfig,
}

/// Hash of the certificates, which names them in the keys of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AuthoritiesId([u8; 32]);

type TlsConfig = OnceLock<Result<Arc<ClientConfig>, rustls::Error>>;

impl FunctionAuthorities {
    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// Fails when the text has no certificate, or one that cannot be read.
    pub fn parse(pem: &str) -> Result<Self, CaCertificatesError> {
        let certificates = CaCertificates::parse(pem)?;
        let mut hasher = Sha256::new();
        for certificate in certificates.as_der() {
            hasher.update(certificate.len().to_be_bytes());
            hasher.update(certificate);
        }
        Ok(Self {
            id: AuthoritiesId(hasher.finalize().into()),
            certificates,
            http: OnceLock::new(),
            redis: OnceLock::new(),
        })
    }

    pub(crate) const fn id(&self) -> AuthoritiesId {
        self.id
    }

    /// Returns the configuration for HTTP. `node` are the authorities that the node trusts; `None` means those of the system.
    pub(super) fn http_config(
        &self,
        node: Option<&Arc<RootCertStore>>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        self.http
            .get_or_init(|| self.config(node, &tls::HTTP))
            .clone()
    }

    /// Returns the configuration for Redis.
    pub(crate) fn redis_config(
        &self,
        node: Option<&Arc<RootCertStore>>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        self.redis.get_or_init(|| self.config(node, &[])).clone()
    }

    fn config(
        &self,
        node: Option<&Arc<RootCertStore>>,
        protocols: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut roots = match node {
            Some(roots) => RootCertStore::clone(roots),
            None => tls::system_roots().clone(),
        };
        for certificate in self.certificates.as_der() {
            roots.add(certificate.clone())?;
        }
        tls::client_config(Some(&Arc::new(roots)), protocols)
    }
}

impl PartialEq for FunctionAuthorities {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for FunctionAuthorities {}

impl Hash for FunctionAuthorities {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl fmt::Debug for FunctionAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.certificates.as_der().len();
        write!(f, "FunctionAuthorities({number} certificates)")
    }
}
