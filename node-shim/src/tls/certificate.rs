//! One certificate with its key, and the hosts it is valid for.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use zeroize::Zeroizing;

/// File with the certificate chain.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// File with the private key.
pub(super) const KEY: &str = "tls.key";

/// Why a certificate cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// The file of the certificate contains none.
    #[error("tls.crt contains no certificate in PEM format")]
    NoCertificate,
    /// The file of the key contains none.
    #[error("tls.key contains no private key in PEM format")]
    NoKey,
    /// The key has another certificate, or a type that is not supported.
    #[error("tls.crt and tls.key: {0}")]
    Key(rustls::Error),
    /// The certificate cannot be parsed.
    #[error("tls.crt is not a certificate: {0}")]
    Malformed(String),
    /// A file cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// A certificate chain with its key.
#[derive(Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// DNS names in lower case, exact or with one leading wildcard.
    names: Vec<String>,
    /// First second of the validity, Unix time.
    not_before: i64,
    /// Last second of the validity, Unix time.
    not_after: i64,
}

impl Certificate {
    /// Reads the files `tls.crt` and `tls.key` of a folder.
    ///
    /// # Errors
    /// Returns an error when a file cannot be read, and those of [`parse`](Self::parse).
    pub fn read(folder: &Path) -> Result<Self, CertificateError> {
        let read = |name: &str| {
            let unreadable = |error| CertificateError::Unreadable(format!("{name}: {error}"));
            fs::read(folder.join(name)).map_err(unreadable)
        };
        Self::parse(&read(CERTIFICATE)?, &Zeroizing::new(read(KEY)?))
    }

    /// Parses a certificate chain, whose first certificate is the server's, and its private key, both in PEM format.
    ///
    /// # Errors
    /// Returns an error when one of them is missing or malformed, or when they do not belong together.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| CertificateError::Malformed(error.to_string()))?;
        let first = chain.first().ok_or(CertificateError::NoCertificate)?;
        let malformed =
            |error: &dyn std::fmt::Display| CertificateError::Malformed(error.to_string());
        let (_, parsed) = parse_x509_certificate(first).map_err(|error| malformed(&error))?;
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
        let (not_before, not_after) = (
            validity.not_before.timestamp(),
            validity.not_after.timestamp(),
        );
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey)?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(CertificateError::Key)?;
        Ok(Self {
            key: Arc::new(key),
            names,
            not_before,
            not_after,
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

    /// Returns whether the certificate is valid at `now`, in seconds of Unix time.
    #[must_use]
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
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

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        self.key.clone()
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
    fn what_does_not_belong_together_is_refused() {
        let ((chain, key), (_, other)) = (pair(&["a.example"]), pair(&["a.example"]));
        let error = |chain: &str, key: &str| {
            Certificate::parse(chain.as_bytes(), key.as_bytes()).unwrap_err()
        };
        assert!(matches!(error(&chain, &other), CertificateError::Key(_)));
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
        let (start, end) = (1_577_836_800, 1_609_459_200);
        assert!(certificate.is_valid_at(start) && certificate.is_valid_at(end));
        assert!(!certificate.is_valid_at(start - 1) && !certificate.is_valid_at(end + 1));
    }
}
