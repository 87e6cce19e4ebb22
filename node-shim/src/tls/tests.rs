use rcgen::{CertificateParams, KeyPair};

use super::*;

fn certificate(names: &[&str]) -> Arc<Certificate> {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let chain = CertificateParams::new(names).unwrap();
    let chain = chain.self_signed(&key).unwrap().pem();
    Arc::new(Certificate::parse(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap())
}

#[test]
fn an_exact_name_wins_over_a_wildcard_and_the_first_certificate_over_later_ones() {
    let all = [
        certificate(&["default.example"]),
        certificate(&["*.a.example", "b.example"]),
        certificate(&["x.a.example", "b.example"]),
    ];
    let table = CertificateTable::new(all.iter());
    for (name, expected) in [
        (Some("x.a.example"), 2),
        (Some("y.a.example"), 1),
        (Some("b.example"), 1),
        (Some("a.example"), 0),
        (Some("x.y.a.example"), 0),
        (Some("default.example"), 0),
        (None, 0),
    ] {
        assert!(
            Arc::ptr_eq(table.find(name).unwrap(), &all[expected]),
            "{name:?}"
        );
    }
    assert!(
        CertificateTable::default()
            .find(Some("a.example"))
            .is_none()
    );
}

#[test]
fn two_folders_of_one_name_are_refused() {
    let error = Certificates::open(&["/x/a".into(), "/y/a".into()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "two folders with certificates are named a"
    );
}
