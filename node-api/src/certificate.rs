//! Certificates of servers with their private keys. The operator checks with it what nodes will use, so both agree.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Key of a Secret of type `kubernetes.io/tls`, and file of its mount, with the certificate chain.
pub const CHAIN: &str = "tls.crt";
/// Key of such a Secret, and file of its mount, with the private key.
pub const KEY: &str = "tls.key";

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The chain contains no certificate.
    #[error("tls.crt contains no certificate in PEM format")]
    NoCertificate,
    /// There is no private key.
    #[error("tls.key contains no private key in PEM format")]
    NoKey,
    /// The key is that of another certificate.
    #[error("the private key in tls.key does not belong to the certificate in tls.crt")]
    OtherKey,
    /// The key has a type that is not supported, or is malformed.
    #[error("the private key in tls.key cannot be used: {0}")]
    Key(String),
    /// The certificate cannot be parsed.
    #[error("tls.crt is not a certificate: {0}")]
    Malformed(String),
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateDetails {
    /// DNS names in lower case, exact or with one leading wildcard.
    names: Vec<String>,
    /// First second of the validity, Unix time.
    not_before: i64,
    /// Last second of the validity, Unix time.
    not_after: i64,
}

/// A certificate chain with its private key. `Debug` does not show the key.
#[derive(Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    details: CertificateDetails,
}

impl Certificate {
    /// Parses a certificate chain, whose first certificate is the server's, and its private key, both in PEM format.
    ///
    /// # Errors
    /// Returns an error when one of them is missing or malformed, or when they do not belong together.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| CertificateError::Malformed(error.to_string()))?;
        let first = chain.first().ok_or(CertificateError::NoCertificate)?;
        let details = CertificateDetails::parse(first)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let key =
            CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(key_error)?;
        Ok(Self {
            key: Arc::new(key),
            details,
        })
    }

    /// Returns the chain and the key for a handshake.
    #[must_use]
    pub fn key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }

    /// Returns the names and the validity.
    #[must_use]
    pub fn details(&self) -> &CertificateDetails {
        &self.details
    }
}

fn key_error(error: rustls::Error) -> CertificateError {
    match error {
        rustls::Error::InconsistentKeys(_) => CertificateError::OtherKey,
        error => CertificateError::Key(error.to_string()),
    }
}

impl CertificateDetails {
    fn parse(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let malformed =
            |error: &dyn std::fmt::Display| CertificateError::Malformed(error.to_string());
        let (_, parsed) = parse_x509_certificate(certificate).map_err(|error| malformed(&error))?;
        let alternative = parsed
            .subject_alternative_name()
            .map_err(|error| malformed(&error))?;
        let names = alternative.map_or_else(Vec::new, |extension| {
            let names = extension.value.general_names.iter();
            let dns = names.filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            });
            dns.collect()
        });
        let validity = parsed.validity();
        Ok(Self {
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// Returns whether the certificate is valid for a host name in lower case. A wildcard stands for one label.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let wildcard = host
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        let mut names = self.names.iter();
        names.any(|name| name == host || Some(name) == wildcard.as_ref())
    }

    /// Returns whether the certificate is valid for at least one name that the host of a route matches: an exact name, `*`
    /// for all names, or a wildcard, which in a route stands for one or more labels.
    #[must_use]
    pub fn covers_any_of(&self, host: &str) -> bool {
        let Some(suffix) = host.strip_prefix('*') else {
            return self.covers(host);
        };
        let mut names = self.names.iter();
        // the wildcard of a certificate, which is one label, is itself a name below the suffix
        names.any(|name| name.len() > suffix.len() && name.ends_with(suffix))
    }

    /// Returns whether the certificate is valid at `now`, in seconds of Unix time.
    #[must_use]
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Returns the start of the validity in seconds of Unix time.
    #[must_use]
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// Returns the end of the validity in seconds of Unix time.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Returns the DNS names of the certificate in lower case.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let (chain, key) = pair(&["Shop.Example", "*.api.example"]);
        let certificate = Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap();
        let certificate = certificate.details();
        for covered in ["shop.example", "a.api.example"] {
            assert!(certificate.covers(covered), "{covered}");
        }
        for other in [
            "api.example",
            "a.b.api.example",
            "x.shop.example",
            "",
            "example",
        ] {
            assert!(!certificate.covers(other), "{other}");
        }
    }

    #[test]
    fn a_host_with_a_wildcard_is_covered_by_any_name_that_it_matches() {
        let (chain, key) = pair(&["shop.example", "*.api.example"]);
        let certificate = Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap();
        for (host, expected) in [
            ("shop.example", true),
            ("other.example", false),
            ("*.example", true),
            ("*.api.example", true),
            ("*.shop.example", false),
            // one label more than the wildcard of the certificate
            ("*.eu.api.example", false),
            ("*.hop.example", false),
            ("*", true),
        ] {
            assert_eq!(
                certificate.details().covers_any_of(host),
                expected,
                "{host}"
            );
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let ((chain, key), (_, other)) = (pair(&["a.example"]), pair(&["a.example"]));
        let error = |chain: &str, key: &str| {
            Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap_err()
        };
        assert_eq!(error(&chain, &other), CertificateError::OtherKey);
        assert_eq!(error("", &key), CertificateError::NoCertificate);
        assert_eq!(error(&key, &key), CertificateError::NoCertificate);
        assert_eq!(error(&chain, ""), CertificateError::NoKey);
        assert_eq!(error(&chain, &chain), CertificateError::NoKey);
    }

    #[test]
    fn the_validity_is_that_of_the_first_certificate() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let chain = params.self_signed(&key).unwrap().pem();
        let certificate = Certificate::parse(chain.as_bytes(), key.serialize_pem().as_bytes());
        let certificate = certificate.unwrap();
        let certificate = certificate.details();
        let (start, end) = (1_577_836_800, 1_609_459_200);
        assert!(certificate.is_valid_at(start) && certificate.is_valid_at(end));
        assert!(!certificate.is_valid_at(start - 1) && !certificate.is_valid_at(end + 1));
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let (chain, key) = pair(&["a.example"]);
        let wire = crate::v1::CertificatePair {
            chain: chain.clone().into_bytes(),
            key: key.clone().into_bytes(),
        };
        assert_eq!(format!("{wire:?}"), "CertificatePair { .. }");
        let parsed = Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap();
        let shown = format!("{parsed:?}");
        let secret = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let secret = format!("{:?}", &secret.secret_der()[..16]);
        assert!(!shown.contains(secret.trim_matches(['[', ']'])), "{shown}");
    }
}
