use std::sync::Arc;

use node_api::certificate::Certificate;
use rcgen::{CertificateParams, KeyPair};

use super::*;

const NOW: i64 = 1_700_000_000;

/// A certificate for these names that is valid in 2023, where `NOW` is, or in another year.
fn usable(names: &[&str], year: i32) -> CertificateState {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(year, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + 1, 1, 1);
    let chain = params.self_signed(&key).unwrap().pem();
    let parsed = Certificate::parse(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    CertificateState::Usable(Arc::new(parsed.details().clone()))
}

fn of(state: &CertificateState, hosts: &[&str]) -> Result<Option<Timestamp>, String> {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    verdict(state, &hosts, Timestamp::from_second(NOW).unwrap())
}

#[test]
fn a_certificate_is_usable_for_one_of_the_hosts_until_it_expires() {
    let state = usable(&["a.example"], 2023);
    let until = "2024-01-01T00:00:01Z".parse().unwrap();
    assert_eq!(of(&state, &["b.example", "a.example"]), Ok(Some(until)));
    assert_eq!(of(&state, &["*.example"]), Ok(Some(until)));
}

#[test]
fn what_makes_a_certificate_unusable_is_named() {
    let many = usable(&["a.example", "b.example", "c.example", "d.example"], 2023);
    for (state, expected) in [
        (
            many,
            "it is valid for a.example, b.example, c.example and 1 more, and for no host of the route",
        ),
        (
            usable(&[], 2023),
            "it is valid for no host name, and for no host of the route",
        ),
        (
            usable(&["x.example"], 2024),
            "it is valid from 2024-01-01T00:00:00Z on",
        ),
        (
            usable(&["x.example"], 2022),
            "it expired at 2023-01-01T00:00:00Z",
        ),
        (
            CertificateState::Absent("tls.key"),
            "it does not exist, or it has no key \"tls.key\"",
        ),
    ] {
        assert_eq!(of(&state, &["x.example"]), Err(expected.to_owned()));
    }
}
