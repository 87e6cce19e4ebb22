//! Certificates of the node API: generated once, stored in one Secret, reloaded without a restart.
//!
//! [`renew`] describes their rotation.

mod renew;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hmac::{Hmac, Mac};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::Sha256;
use zeroize::Zeroizing;

pub use renew::renew;

/// Name that nodes require in the serving certificate.
pub const SERVER_NAME: &str = "selvage-node-api";

const CA_YEARS: i64 = 10;
const SERVING_YEARS: i64 = 2;

/// Content of the Secret `selvage-node-api`.
#[derive(Clone)]
pub struct KeyMaterial {
    /// `ca.crt`: PEM, one or two certificates; `ca_key` belongs to the first.
    pub ca_crt: String,
    /// `ca.key`: private key of the CA, PEM.
    pub ca_key: Zeroizing<String>,
    /// `tls.crt`: PEM, the serving certificate.
    pub tls_crt: String,
    /// `tls.key`: private key of the serving certificate, PEM.
    pub tls_key: Zeroizing<String>,
    /// `hash.key`: 32 bytes, the key of the hashes of Secret values in revision names.
    pub hash_key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMaterial")
            .field("ca_crt", &self.ca_crt)
            .field("tls_crt", &self.tls_crt)
            .finish_non_exhaustive()
    }
}

/// Error of certificates or keys.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificates cannot be generated.
    #[error("cannot make certificates: {0}")]
    Make(#[from] rcgen::Error),
    /// The system returned no random bytes.
    #[error("no randomness")]
    NoRandomness,
    /// The certificates cannot be used.
    #[error("cannot use the certificates: {0}")]
    Unusable(String),
}

/// Generates a CA, a serving certificate for [`SERVER_NAME`] and a hash key.
///
/// # Errors
/// The random source failed, or `now` is outside the range of certificates.
pub fn make(now: Timestamp) -> Result<KeyMaterial, TlsError> {
    let (ca_crt, ca_key) = make_ca(now)?;
    let (tls_crt, tls_key) = make_serving(&ca_crt, &ca_key, now)?;
    let mut hash_key = Zeroizing::new(vec![0; 32]);
    ring::default_provider()
        .secure_random
        .fill(&mut hash_key)
        .map_err(|_| TlsError::NoRandomness)?;
    Ok(KeyMaterial {
        ca_crt,
        ca_key,
        tls_crt,
        tls_key,
        hash_key,
    })
}

/// A certificate and its key, both PEM.
type Issued = (String, Zeroizing<String>);

fn make_ca(now: Timestamp) -> Result<Issued, TlsError> {
    let key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name.remove(DnType::CommonName);
    ca.distinguished_name
        .push(DnType::CommonName, "selvage node API CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut ca, now, CA_YEARS);
    let certificate = ca.self_signed(&key)?.pem();
    Ok((certificate, Zeroizing::new(key.serialize_pem())))
}

/// Issues a serving certificate of the first CA in `ca_crt`, whose key is `ca_key`.
fn make_serving(ca_crt: &str, ca_key: &str, now: Timestamp) -> Result<Issued, TlsError> {
    let issuer = Issuer::from_ca_cert_pem(ca_crt, KeyPair::from_pem(ca_key)?)?;
    let key = KeyPair::generate()?;
    let mut serving = CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    serving.distinguished_name.remove(DnType::CommonName);
    serving
        .distinguished_name
        .push(DnType::CommonName, SERVER_NAME);
    serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    serving.use_authority_key_identifier_extension = true;
    set_validity(&mut serving, now, SERVING_YEARS);
    let certificate = serving.signed_by(&key, &issuer)?.pem();
    Ok((certificate, Zeroizing::new(key.serialize_pem())))
}

/// Days by which the validity starts before the time of issue, because clocks differ.
const BACKDATED: i64 = 2;

/// Validity from two days ago for `years`.
fn set_validity(params: &mut CertificateParams, now: Timestamp, years: i64) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let from = today.saturating_sub(BACKDATED.days());
    let until = today.saturating_add(years.years());
    let day = |date: jiff::civil::Date| {
        let month = u8::try_from(date.month()).unwrap_or(1);
        let day = u8::try_from(date.day()).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    params.not_before = day(from);
    params.not_after = day(until);
}

struct Loaded {
    serving: Arc<CertifiedKey>,
    ca_pem: String,
    hop_key: Zeroizing<Vec<u8>>,
}

/// Derives the key with which nodes sign `selvage-hops` from the key of the hashes, which never leaves the operator. It
/// stays the same when certificates are renewed.
fn hop_key(hash_key: &[u8]) -> Zeroizing<Vec<u8>> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(hash_key) else {
        return Zeroizing::default();
    };
    mac.update(b"selvage hop key");
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// The certificates in use. Clones share them. Empty until the first [`Store::replace`]: until then handshakes fail
/// and nodes retry.
#[derive(Clone, Default)]
pub struct Store(Arc<ArcSwapOption<Loaded>>);

impl Store {
    /// Uses `material` from the next handshake on; open connections stay.
    ///
    /// # Errors
    /// A certificate or key cannot be parsed, or they do not match; then nothing changes.
    pub fn replace(&self, material: &KeyMaterial) -> Result<(), TlsError> {
        let unusable =
            |what: &str, error: &dyn fmt::Display| TlsError::Unusable(format!("{what}: {error}"));
        let chain = CertificateDer::pem_slice_iter(material.tls_crt.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable("tls.crt", &error))?;
        let key = PrivateKeyDer::from_pem_slice(material.tls_key.as_bytes())
            .map_err(|error| unusable("tls.key", &error))?;
        let serving = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| unusable("tls.crt with tls.key", &error))?;
        let authorities = CertificateDer::pem_slice_iter(material.ca_crt.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unusable("ca.crt", &error))?;
        if authorities.is_empty() {
            return Err(unusable("ca.crt", &"no certificate in it"));
        }
        self.0.store(Some(Arc::new(Loaded {
            serving: Arc::new(serving),
            ca_pem: material.ca_crt.clone(),
            hop_key: hop_key(&material.hash_key),
        })));
        Ok(())
    }

    /// Whether certificates are loaded.
    pub fn is_loaded(&self) -> bool {
        self.0.load().is_some()
    }

    /// Returns `ca.crt` as last loaded, to connect to the leader.
    pub(super) fn ca_pem(&self) -> Option<String> {
        self.0.load().as_ref().map(|loaded| loaded.ca_pem.clone())
    }

    /// Returns the key with which nodes sign `selvage-hops`; `None` before the first [`Store::replace`].
    pub(super) fn hop_key(&self) -> Option<Vec<u8>> {
        let loaded = self.0.load();
        loaded.as_ref().map(|loaded| loaded.hop_key.to_vec())
    }

    /// Configuration for TLS 1.3 with HTTP/2, always with the newest certificate.
    pub(super) fn server_config(&self) -> Result<rustls::ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| TlsError::Unusable(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store {{ loaded: {} }}", self.is_loaded())
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0
            .load()
            .as_ref()
            .map(|loaded| Arc::clone(&loaded.serving))
    }
}

#[cfg(test)]
mod tests {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn verify(ca_crt: &str, tls_crt: &str, name: &str) -> bool {
        verify_at(ca_crt, tls_crt, name, Timestamp::now())
    }

    pub(super) fn verify_at(ca_crt: &str, tls_crt: &str, name: &str, at: Timestamp) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(ca_crt.as_bytes()) {
            roots.add(ca.unwrap()).unwrap();
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(tls_crt.as_bytes()).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let since = std::time::Duration::from_secs(at.as_second().try_into().unwrap());
        let at = UnixTime::since_unix_epoch(since);
        verifier
            .verify_server_cert(&leaf, &[], &name, &[], at)
            .is_ok()
    }

    #[test]
    fn the_serving_certificate_is_trusted_for_its_name_and_no_other() {
        let made = make(Timestamp::now()).unwrap();
        assert!(verify(&made.ca_crt, &made.tls_crt, SERVER_NAME));
        assert!(!verify(&made.ca_crt, &made.tls_crt, "selvage-operator"));
        let other = make(Timestamp::now()).unwrap();
        assert!(!verify(&other.ca_crt, &made.tls_crt, SERVER_NAME));
        assert_ne!(made.hash_key, other.hash_key);
        assert_eq!(made.hash_key.len(), 32);
    }

    /// FD-7: during a rotation both CAs are trusted.
    #[test]
    fn during_a_rotation_both_authorities_are_accepted() {
        let old = make(Timestamp::now()).unwrap();
        let new = make(Timestamp::now()).unwrap();
        let both = format!("{}{}", new.ca_crt, old.ca_crt);
        assert!(verify(&both, &old.tls_crt, SERVER_NAME));
        assert!(verify(&both, &new.tls_crt, SERVER_NAME));
    }

    /// FD-7: a certificate that does not match its key replaces nothing.
    #[test]
    fn a_certificate_that_does_not_match_its_key_changes_nothing() {
        let store = Store::default();
        let made = make(Timestamp::now()).unwrap();
        store.replace(&made).unwrap();
        let mut wrong = make(Timestamp::now()).unwrap();
        wrong.tls_key = make(Timestamp::now()).unwrap().tls_key;
        assert!(matches!(store.replace(&wrong), Err(TlsError::Unusable(_))));
        assert_eq!(store.ca_pem().unwrap(), made.ca_crt);
    }

    #[test]
    fn keys_are_not_in_debug_output() {
        let made = make(Timestamp::now()).unwrap();
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }
}
