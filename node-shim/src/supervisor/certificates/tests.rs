use node_api::v1::{Certificate as WireCertificate, Route};
use node_shim_core::host::normalise_host;
use rcgen::{CertificateParams, KeyPair};

use super::*;

const NOW: i64 = 1_700_000_000;

/// Returns a pair that is valid for these names, during a year that begins with January of `year`.
fn pair(names: &[&str], year: i32) -> CertificatePair {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(year, 1, 1);
    params.not_after = rcgen::date_time_ymd(year + 1, 1, 1);
    CertificatePair {
        chain: params.self_signed(&key).unwrap().pem().into_bytes(),
        key: key.serialize_pem().into_bytes(),
    }
}

/// Returns a record whose routes, one for each Secret, have the host and the certificate.
fn record(uid: &str, routes: &[(&str, &str, Option<&CertificatePair>)]) -> FunctionRecord {
    let route = |(host, secret, _): &(&str, &str, Option<&CertificatePair>)| Route {
        hosts: vec![host.to_string()],
        certificate: secret.to_string(),
        ..Route::default()
    };
    let certificate =
        |(_, secret, pair): &(&str, &str, Option<&CertificatePair>)| WireCertificate {
            secret: secret.to_string(),
            pair: pair.cloned(),
        };
    FunctionRecord {
        uid: uid.to_owned(),
        routes: routes.iter().map(route).collect(),
        certificates: routes.iter().map(certificate).collect(),
        ..FunctionRecord::default()
    }
}

fn key(name: &str) -> FunctionKey {
    FunctionKey::new("shop", name)
}

/// Returns the Secret and the chain of the certificate for a host of the namespace.
fn found(store: &mut CertificateStore, host: &str) -> Option<(String, Vec<u8>)> {
    let published = store.published();
    let found = published.find("shop", &normalise_host(host).unwrap())?;
    let chain = found.certificate.key().cert.first()?.to_vec();
    Some((found.secret.to_string(), chain))
}

fn der(pair: &CertificatePair) -> Vec<u8> {
    let parsed = Certificate::parse(&pair.chain, &pair.key).unwrap();
    parsed.key().cert[0].to_vec()
}

#[test]
fn a_renewed_pair_replaces_the_old_one_and_an_unknown_or_broken_one_does_not() {
    let mut store = CertificateStore::default();
    let [old, new] = [(); 2].map(|()| pair(&["a.example"], 2023));
    let set = |store: &mut CertificateStore, pair| {
        store.set(&key("f"), &record("u", &[("a.example", "tls", pair)]), NOW);
    };
    let expected = |pair: &CertificatePair| Some(("tls".to_owned(), der(pair)));
    set(&mut store, None);
    assert_eq!(found(&mut store, "a.example"), None);
    set(&mut store, Some(&old));
    assert_eq!(found(&mut store, "a.example"), expected(&old));
    let before = store.published();
    set(&mut store, Some(&old));
    assert!(Arc::ptr_eq(&before, &store.published()), "nothing changed");
    set(&mut store, None);
    let mut broken = new.clone();
    broken.key.clone_from(&old.key);
    set(&mut store, Some(&broken));
    assert_eq!(found(&mut store, "a.example"), expected(&old));
    set(&mut store, Some(&new));
    assert_eq!(found(&mut store, "a.example"), expected(&new));
    assert_eq!(found(&mut store, "b.example"), None);
}

#[test]
fn a_pair_that_is_not_valid_yet_is_used_when_it_is() {
    let mut store = CertificateStore::default();
    let (old, new) = (pair(&["a.example"], 2023), pair(&["a.example"], 2100));
    for pair in [&old, &new] {
        store.set(
            &key("f"),
            &record("u", &[("a.example", "tls", Some(pair))]),
            NOW,
        );
    }
    assert_eq!(found(&mut store, "a.example").unwrap().1, der(&old));
    assert!(!store.advance(NOW));
    assert!(store.advance(4_102_444_800));
    assert_eq!(found(&mut store, "a.example").unwrap().1, der(&new));
}

/// A route that names another Secret keeps the certificate that it had until the new Secret has one.
#[test]
fn the_certificate_of_the_former_secret_stays_until_the_new_one_has_one() {
    let mut store = CertificateStore::default();
    let (old, new) = (pair(&["a.example"], 2023), pair(&["a.example"], 2023));
    store.set(
        &key("f"),
        &record("u", &[("a.example", "old", Some(&old))]),
        NOW,
    );
    store.set(&key("f"), &record("u", &[("a.example", "new", None)]), NOW);
    assert_eq!(found(&mut store, "a.example").unwrap().0, "old");
    store.set(
        &key("f"),
        &record("u", &[("a.example", "new", Some(&new))]),
        NOW,
    );
    assert_eq!(found(&mut store, "a.example").unwrap().0, "new");
    assert_eq!(store.functions[&key("f")].secrets.len(), 1);
    // the former function of this name
    store.set(
        &key("f"),
        &record("v", &[("a.example", "other", None)]),
        NOW,
    );
    assert_eq!(found(&mut store, "a.example"), None);
}

#[test]
fn certificates_end_with_their_route_and_their_function() {
    let mut store = CertificateStore::default();
    let pair = pair(&["a.example", "b.example"], 2023);
    let both = [
        ("a.example", "tls", Some(&pair)),
        ("b.example", "more", Some(&pair)),
    ];
    store.set(&key("f"), &record("u", &both), NOW);
    let ends = store.published().expirations();
    assert_eq!(ends.keys().collect::<Vec<_>>(), ["shop/more", "shop/tls"]);
    store.set(&key("f"), &record("u", &both[..1]), NOW);
    assert_eq!(found(&mut store, "b.example"), None);
    store.set(&key("f"), &record("u", &[]), NOW);
    assert!(store.published().is_empty());
    store.set(&key("f"), &record("u", &both), NOW);
    store.retain(|_| false);
    assert!(store.published().is_empty());
}

#[test]
fn of_two_functions_with_a_host_the_older_one_has_precedence() {
    let mut store = CertificateStore::default();
    let wide = pair(&["*.example"], 2023);
    for (name, created) in [("a", 2), ("b", 1)] {
        let secret = format!("of-{name}");
        let mut record = record("u", &[("x.example", &secret, Some(&wide))]);
        record.created = created;
        store.set(&key(name), &record, NOW);
    }
    assert_eq!(found(&mut store, "x.example").unwrap().0, "of-b");
    store.remove(&key("b"));
    assert_eq!(found(&mut store, "x.example").unwrap().0, "of-a");
}
