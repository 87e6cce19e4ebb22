//! Validates the certificates of authorities in a record. Pure.

use std::sync::Arc;

use node_api::ca_certificates::CaCertificatesError;

use crate::egress::FunctionAuthorities;

/// Returns the authorities that a revision trusts in addition to those of the node; `None` for an empty text.
///
/// # Errors
/// Fails when the text has no usable certificate.
pub(super) fn authorities(
    pem: &str,
) -> Result<Option<Arc<FunctionAuthorities>>, CaCertificatesError> {
    if pem.is_empty() {
        return Ok(None);
    }
    FunctionAuthorities::parse(pem).map(|authorities| Some(Arc::new(authorities)))
}

#[cfg(test)]
mod tests {
    use super::super::parse_record::tests::record;
    use super::super::parse_record::{RecordError, parse};
    use super::*;

    #[test]
    fn certificates_of_authorities_belong_to_the_revision() {
        let params = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let mut trusting = record("f", 1);
        trusting.definitions[0].ca_certificates = pem;
        let parsed = parse(&trusting).unwrap();
        let trusted: Vec<_> = parsed
            .definitions
            .values()
            .map(|definition| definition.spec.authorities.is_some())
            .collect();
        assert_eq!(trusted, [true, false]);
        trusting.definitions[0].ca_certificates = "no certificate".into();
        let error = parse(&trusting).err();
        assert_eq!(
            error,
            Some(RecordError::Authorities(CaCertificatesError::Empty))
        );
    }
}
