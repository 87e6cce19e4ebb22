//! Renews certificates in time: a pure function of the current material and the clock.
//!
//! Nodes trust every certificate in `ca.crt`, so a rotation of the CA takes two steps with time in between. A year
//! before its expiry, the CA gets a successor, which is placed before it in `ca.crt`; its key replaces `ca.key`, and
//! the serving certificate stays. A day or two later, when every node has read the file again, the successor issues a
//! new serving certificate. The old CA is removed from `ca.crt` when it has expired. A serving certificate is renewed
//! when less than a third of its lifetime is left.

use jiff::{Timestamp, ToSpan};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{BACKDATED, KeyMaterial, TlsError, make_ca, make_serving};

/// A CA with less remaining time gets a successor.
const CA_LEFT: i64 = 365 * 24;
/// Hours within which every node reads a changed `ca.crt`: the kubelet needs minutes.
const READ_BY_ALL: i64 = 24;

struct Dates {
    from: Timestamp,
    until: Timestamp,
}

/// Returns the new content for `material` at `now`, or `None` while no change is needed. The hash key never changes,
/// because the names of revisions depend on it.
///
/// # Errors
/// A certificate cannot be read, or a new one cannot be generated.
pub fn renew(material: &KeyMaterial, now: Timestamp) -> Result<Option<KeyMaterial>, TlsError> {
    let mut renewed = material.clone();
    let mut changed = false;
    let mut authorities = pems(&material.ca_crt)?;
    let before = authorities.len();
    let first = first_dates(&authorities)?;
    if first.until < now + CA_LEFT.hours() {
        let (certificate, key) = make_ca(now)?;
        authorities.insert(0, certificate);
        authorities.truncate(2);
        renewed.ca_key = key;
        changed = true;
    }
    let mut kept = Vec::new();
    for (index, authority) in authorities.into_iter().enumerate() {
        if index == 0 || dates(&authority)?.until > now {
            kept.push(authority);
        }
    }
    changed |= kept.len() != before;
    let issuer = first_dates(&kept)?;
    let known_by_all = issuer.from + (BACKDATED * 24 + READ_BY_ALL).hours() <= now;
    renewed.ca_crt = kept.concat();

    let serving = dates(&material.tls_crt)?;
    let third = (serving.until.as_second() - serving.from.as_second()) / 3;
    let old = serving.until.as_second() - now.as_second() < third;
    let expired = serving.until <= now;
    let foreign = !issued_by(&material.tls_crt, &renewed.ca_crt)?;
    // No client accepts an expired certificate, so there is nothing to wait for.
    if ((old || foreign) && known_by_all) || expired {
        (renewed.tls_crt, renewed.tls_key) = make_serving(&renewed.ca_crt, &renewed.ca_key, now)?;
        changed = true;
    }
    Ok(changed.then_some(renewed))
}

/// Splits a PEM file into its certificates, each as PEM.
fn pems(text: &str) -> Result<Vec<String>, TlsError> {
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = text
        .split_inclusive(END)
        .filter(|block| block.contains(END));
    let found: Vec<String> = blocks.map(|block| format!("{}\n", block.trim())).collect();
    if found.is_empty() {
        return Err(TlsError::Unusable("no certificate".to_owned()));
    }
    Ok(found)
}

fn first_dates(pems: &[String]) -> Result<Dates, TlsError> {
    let first = pems.first().map_or("", String::as_str);
    dates(first)
}

fn dates(pem: &str) -> Result<Dates, TlsError> {
    let der = der(pem)?;
    let certificate = parse(&der)?;
    let validity = certificate.validity();
    let time = |at: x509_parser::time::ASN1Time| {
        Timestamp::from_second(at.timestamp()).map_err(|error| unusable(&error))
    };
    Ok(Dates {
        from: time(validity.not_before)?,
        until: time(validity.not_after)?,
    })
}

/// Whether the first certificate of `ca_crt` is the issuer, determined by the identifier of its key.
fn issued_by(tls_crt: &str, ca_crt: &str) -> Result<bool, TlsError> {
    use x509_parser::extensions::ParsedExtension;
    let (leaf, ca) = (der(tls_crt)?, der(ca_crt)?);
    let (leaf, ca) = (parse(&leaf)?, parse(&ca)?);
    let wanted = leaf
        .extensions()
        .iter()
        .find_map(|one| match one.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| id.0)
            }
            _ => None,
        });
    let is = ca
        .extensions()
        .iter()
        .find_map(|one| match one.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
    Ok(wanted.is_some() && wanted == is)
}

fn der(pem: &str) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| unusable(&error))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, TlsError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unusable(&error))?;
    Ok(certificate)
}

fn unusable(error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unusable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::verify_at;
    use super::super::{SERVER_NAME, make};
    use super::*;

    fn days(n: i64) -> jiff::SignedDuration {
        jiff::SignedDuration::from_hours(24 * n)
    }

    fn now() -> Timestamp {
        "2026-05-10T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn new_certificates_need_no_renewal_for_most_of_their_lifetime() {
        let made = make(now()).unwrap();
        for later in [0, 1, 30, 365] {
            assert!(
                renew(&made, now() + days(later)).unwrap().is_none(),
                "{later}"
            );
        }
    }

    #[test]
    fn a_serving_certificate_in_its_last_third_is_issued_anew_by_the_same_ca() {
        let made = make(now()).unwrap();
        let later = now() + days(600);
        let renewed = renew(&made, later).unwrap().unwrap();
        assert_eq!(renewed.ca_crt, made.ca_crt);
        assert_ne!(renewed.tls_crt, made.tls_crt);
        assert_eq!(renewed.hash_key, made.hash_key);
        assert!(verify_at(
            &made.ca_crt,
            &renewed.tls_crt,
            SERVER_NAME,
            later
        ));
        assert!(renew(&renewed, later).unwrap().is_none(), "once");
    }

    /// At each step, a node that has read the previous `ca.crt` and one that has read the current one both trust the
    /// served certificate.
    #[test]
    fn a_ca_rotates_in_steps_without_a_trust_gap() {
        let mut material = make(now()).unwrap();
        let mut at = now();
        let mut seen_by_nodes = material.ca_crt.clone();
        let mut authorities = std::collections::BTreeSet::new();
        let end = now() + days(24 * 365);
        while at < end {
            at += days(3);
            let served = material.tls_crt.clone();
            if let Some(renewed) = renew(&material, at).unwrap() {
                assert!(verify_at(&renewed.ca_crt, &served, SERVER_NAME, at), "{at}");
                material = renewed;
            }
            // A node that reads the file before each change.
            assert!(
                verify_at(&seen_by_nodes, &material.tls_crt, SERVER_NAME, at),
                "{at}"
            );
            assert!(pems(&material.ca_crt).unwrap().len() <= 2);
            authorities.insert(pems(&material.ca_crt).unwrap()[0].clone());
            seen_by_nodes.clone_from(&material.ca_crt);
        }
        assert_eq!(authorities.len(), 3, "after nine and after eighteen years");
        assert_eq!(
            pems(&material.ca_crt).unwrap().len(),
            1,
            "the old CAs are gone"
        );
    }

    #[test]
    fn expired_material_is_replaced_at_once() {
        let made = make(now()).unwrap();
        let later = now() + days(30 * 365);
        let renewed = renew(&made, later).unwrap().unwrap();
        assert!(verify_at(
            &renewed.ca_crt,
            &renewed.tls_crt,
            SERVER_NAME,
            later
        ));
        assert_eq!(renewed.hash_key, made.hash_key);
    }

    #[test]
    fn an_invalid_certificate_is_an_error_and_not_replaced() {
        let mut made = make(now()).unwrap();
        made.ca_crt = "nonsense".to_owned();
        assert!(matches!(renew(&made, now()), Err(TlsError::Unusable(_))));
    }
}
