//! Certificates of certificate authorities that a function trusts. The operator validates them with the code that nodes read
//! them with.
//!
//! ```
//! use node_api::ca_certificates::CaCertificates;
//!
//! let error = CaCertificates::parse("no certificate").unwrap_err();
//! assert_eq!(error.to_string(), "it has no certificate in PEM (-----BEGIN CERTIFICATE-----)");
//! ```

use std::fmt;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject};

/// Maximum size of the certificates of one function in PEM, in bytes. The usual list of public authorities has 220 KiB.
pub const MAX_PEM: usize = 256 << 10;

/// Certificates of certificate authorities, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificates(Vec<CertificateDer<'static>>);

/// Why a text has no usable certificates. The messages are clauses about the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaCertificatesError {
    /// The text has more than 256 KiB.
    TooLarge {
        /// Size of the text in bytes.
        bytes: usize,
    },
    /// The text has no certificate.
    Empty,
    /// A section of the text is not valid PEM.
    Pem(String),
    /// A certificate cannot be read.
    Certificate {
        /// Position of the certificate in the text, from 1.
        number: usize,
    },
}

impl CaCertificates {
    /// Reads certificates in PEM. Text outside of them, and sections of other types, are ignored.
    ///
    /// # Errors
    /// Fails when the text is too large, has no certificate, or has one that cannot be read.
    pub fn parse(pem: &str) -> Result<Self, CaCertificatesError> {
        if pem.len() > MAX_PEM {
            return Err(CaCertificatesError::TooLarge { bytes: pem.len() });
        }
        let mut known = RootCertStore::empty();
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| CaCertificatesError::pem(&error))?;
            let number = certificates.len() + 1;
            known
                .add(certificate.clone())
                .map_err(|_| CaCertificatesError::Certificate { number })?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(CaCertificatesError::Empty);
        }
        Ok(Self(certificates))
    }

    /// Returns the certificates in DER.
    #[must_use]
    pub fn as_der(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl CaCertificatesError {
    fn pem(error: &PemError) -> Self {
        Self::Pem(match error {
            PemError::MissingSectionEnd { .. } => "a section has no end".to_owned(),
            PemError::IllegalSectionStart { .. } => {
                "the first line of a section is wrong".to_owned()
            }
            PemError::Base64Decode(_) => "a section is not base64".to_owned(),
            error => error.to_string(),
        })
    }
}

impl fmt::Display for CaCertificatesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => write!(
                f,
                "it has {bytes} bytes, and at most {} KiB are read; keep only the certificates that the system's own list \
                 lacks",
                MAX_PEM / 1024
            ),
            Self::Empty => {
                f.write_str("it has no certificate in PEM (-----BEGIN CERTIFICATE-----)")
            }
            Self::Pem(why) => write!(f, "it is not valid PEM: {why}"),
            Self::Certificate { number } => {
                write!(f, "certificate {number} in it is not an X.509 certificate")
            }
        }
    }
}

impl std::error::Error for CaCertificatesError {}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn certificate() -> String {
        let params = CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    fn refused(pem: &str) -> String {
        CaCertificates::parse(pem).unwrap_err().to_string()
    }

    #[test]
    fn all_certificates_are_read_and_other_text_is_ignored() {
        let (one, two) = (certificate(), certificate());
        let key = KeyPair::generate().unwrap().serialize_pem();
        let text = format!("# Example CA\n{one}\n{key}{two}");
        assert_eq!(CaCertificates::parse(&text).unwrap().as_der().len(), 2);
        let windows = one.replace('\n', "\r\n");
        assert_eq!(CaCertificates::parse(&windows), CaCertificates::parse(&one));
    }

    #[test]
    fn a_text_without_usable_certificates_is_refused_with_its_reason() {
        let good = certificate();
        let key = KeyPair::generate().unwrap().serialize_pem();
        for text in ["", "no certificate", key.as_str()] {
            assert!(refused(text).contains("no certificate in PEM"), "{text}");
        }
        let cut = &good[..good.len() - 30];
        assert_eq!(refused(cut), "it is not valid PEM: a section has no end");
        let wrong = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
        assert_eq!(
            refused(wrong),
            "it is not valid PEM: a section is not base64"
        );
        let other = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert_eq!(
            refused(&format!("{good}{other}")),
            "certificate 2 in it is not an X.509 certificate"
        );
        let large = format!("{}{good}", "#".repeat(MAX_PEM));
        assert!(refused(&large).contains("at most 256 KiB"));
    }
}
