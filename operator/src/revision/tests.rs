use std::time::Duration;

use super::*;
use crate::validate::Reuse;

struct Fixed;

impl Content for Fixed {
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>> {
        (name == "c").then(|| BTreeMap::from([("k".to_owned(), "v".to_owned())]))
    }
    fn secret(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        (name == "s" && key == "k").then(|| b"hush".to_vec())
    }
}

fn runtime(source: EnvSource) -> Runtime {
    let env = vec![EnvEntry {
        name: "A".into(),
        value: None,
        value_from: Some(source),
    }];
    Runtime {
        env,
        ..Runtime::default()
    }
}

fn select(name: &str) -> Option<KeySelector> {
    Some(KeySelector {
        name: name.into(),
        key: "k".into(),
    })
}

#[test]
fn secret_content_is_in_the_hash_and_nowhere_else() {
    let source = EnvSource {
        secret_key_ref: select("s"),
        ..EnvSource::default()
    };
    let settled = settle(&runtime(source.clone()), &Fixed, b"key").unwrap();
    let other = settle(&runtime(source), &Fixed, b"other key").unwrap();
    assert_ne!(settled.references, other.references);
    let object = object(
        &EdgeFunction::default(),
        "f-1",
        1,
        &ComponentImage::default(),
        settled,
    );
    let text = serde_json::to_string(&object).unwrap();
    assert!(
        !text.contains("hush") && !text.contains(&hex::encode("hush")),
        "{text}"
    );
}

/// A Secret `r` that holds this URL.
struct Url(&'static [u8]);

impl Content for Url {
    fn config_map(&self, _: &str) -> Option<BTreeMap<String, String>> {
        None
    }
    fn secret(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        (name == "r" && key == "url").then(|| self.0.to_vec())
    }
}

fn in_redis(secret: &str) -> Runtime {
    let redis = Redis {
        secret_ref: crds::LocalReference {
            name: secret.into(),
        },
        prefix: Some("shop:".into()),
        ..Redis::default()
    };
    Runtime {
        key_value: vec![KeyValueStore {
            label: "cart".into(),
            store: None,
            redis: Some(redis),
        }],
        ..Runtime::default()
    }
}

#[test]
fn the_url_of_a_redis_server_is_in_the_hash_and_nowhere_else() {
    let runtime = in_redis("r");
    let settled = |url| settle(&runtime, &Url(url), b"key").unwrap();
    let (one, two) = (
        settled(b"redis://:hunter2@r.shop.svc.cluster.local"),
        settled(b"redis://:hunter3@r.shop.svc.cluster.local"),
    );
    assert_eq!(one.references[0].key.as_deref(), Some("url"));
    assert_ne!(one.references, two.references);
    let code = ComponentImage::default();
    assert_ne!(
        name("f", &code, &runtime, &one),
        name("f", &code, &runtime, &two),
        "a new password is a new revision"
    );
    let object = object(&EdgeFunction::default(), "f-1", 1, &code, one);
    assert!(!serde_json::to_string(&object).unwrap().contains("hunter2"));
}

#[test]
fn a_url_that_cannot_be_used_is_explained_without_showing_it() {
    let refused = |secret: &str, url| {
        let unusable = settle(&in_redis(secret), &Url(url), b"key").unwrap_err();
        let [one] = &*unusable else {
            panic!("{unusable:?}")
        };
        assert_eq!(one.field, "spec.keyValue[cart].redis.secretRef");
        assert!(!one.message.contains("hunter2"), "{}", one.message);
        (one.reason, one.message.clone())
    };
    let (reason, message) = refused("missing", b"redis://r.shop");
    assert_eq!(reason, reasons::MISSING_REFERENCE);
    assert!(message.contains("\"url\""), "{message}");
    let table: [(&[u8], &str); 5] = [
        (b"", "redis://"),
        (b"http://:hunter2@r.shop", "redis://"),
        (b"redis://:hunter2\xff@r.shop", "UTF-8"),
        (b"redis://:hunter2@redis", "redis.shop.svc.cluster.local"),
        (b"redis://:hunter2@169.254.169.254", "link_local"),
    ];
    for (url, part) in table {
        let (reason, message) = refused("r", url);
        assert_eq!(reason, reasons::INVALID_SPEC);
        assert!(message.contains(part), "{message}");
    }
}

/// A ConfigMap `trust` with this value of `ca.crt`.
struct Trust(String);

impl Content for Trust {
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>> {
        (name == "trust").then(|| BTreeMap::from([("ca.crt".to_owned(), self.0.clone())]))
    }
    fn secret(&self, _: &str, _: &str) -> Option<Vec<u8>> {
        None
    }
}

fn authority() -> String {
    let params = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

fn trusting(name: &str, key: Option<&str>) -> Runtime {
    let reference = crds::function::CaReference {
        name: name.into(),
        key: key.map(Into::into),
    };
    Runtime {
        ca: Some(reference.selector()),
        ..Runtime::default()
    }
}

#[test]
fn certificates_of_authorities_are_copied_and_others_are_another_revision() {
    let (one, two) = (authority(), authority());
    let runtime = trusting("trust", None);
    let settled = |pem: &String| settle(&runtime, &Trust(pem.clone()), b"key").unwrap();
    let (first, second) = (settled(&one), settled(&two));
    assert_eq!(first.references[0].key.as_deref(), Some("ca.crt"));
    let code = ComponentImage::default();
    let named = |settled| name("f", &code, &runtime, settled);
    assert_ne!(named(&first), named(&second));
    // another use of the same content is another revision, too
    let unused = ResolvedReferences {
        ca_certificates: None,
        ..first.clone()
    };
    assert_ne!(named(&first), named(&unused));
    let object = object(&EdgeFunction::default(), "f-1", 1, &code, first);
    assert_eq!(object.spec.ca_certificates, Some(one));
}

#[test]
fn certificates_that_nodes_could_not_use_are_refused_in_words() {
    let refused = |name: &str, key, pem: &str| {
        let unusable = settle(&trusting(name, key), &Trust(pem.to_owned()), b"key").unwrap_err();
        let [one] = &*unusable else {
            panic!("{unusable:?}")
        };
        assert_eq!(one.field, "spec.egress.caConfigMapRef");
        (one.reason, one.message.clone())
    };
    let good = authority();
    for (name, key) in [("other", None), ("trust", Some("other.crt"))] {
        let (reason, message) = refused(name, key, &good);
        assert_eq!(reason, reasons::MISSING_REFERENCE);
        let key = key.unwrap_or("ca.crt");
        assert!(message.contains(name) && message.contains(key), "{message}");
    }
    let large = good.repeat(1_000);
    for (pem, part) in [
        ("", "no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA", "has no end"),
        (large.as_str(), "at most 256 KiB"),
    ] {
        let (reason, message) = refused("trust", None, pem);
        assert_eq!(reason, reasons::INVALID_SPEC);
        assert!(
            message.contains(part) && message.contains("\"trust\""),
            "{message}"
        );
    }
}

#[test]
fn content_that_does_not_fit_into_a_revision_is_named_with_its_size() {
    struct Large;
    impl Content for Large {
        fn config_map(&self, name: &str) -> Option<BTreeMap<String, String>> {
            let wide = (0..=CONFIG_KEYS).map(|n| (format!("k{n}"), String::new()));
            let long = ("long".to_owned(), "x".repeat(40_000));
            Some(match name {
                "wide" => wide.collect(),
                _ => BTreeMap::from([long]),
            })
        }
        fn secret(&self, _: &str, _: &str) -> Option<Vec<u8>> {
            None
        }
    }
    let entry = |name: &str| ConfigEntry {
        values: None,
        config_map_ref: Some(crds::LocalReference { name: name.into() }),
    };
    let runtime = Runtime {
        env: vec![EnvEntry {
            name: "LONG".into(),
            value_from: Some(EnvSource {
                config_map_key_ref: Some(KeySelector {
                    name: "c".into(),
                    key: "long".into(),
                }),
                ..EnvSource::default()
            }),
            ..EnvEntry::default()
        }],
        config: vec![entry("wide"), entry("long")],
        ..Runtime::default()
    };
    let unusable = settle(&runtime, &Large, b"key").unwrap_err();
    let found: Vec<_> = unusable
        .iter()
        .map(|one| (one.reason, one.field.as_str(), one.message.as_str()))
        .collect();
    let long = "has 40000 bytes, and a value has at most 32 KiB";
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|one| one.0 == reasons::INVALID_SPEC));
    assert_eq!(found[0].1, "spec.env[LONG].valueFrom");
    assert!(found[0].2.ends_with(long), "{}", found[0].2);
    assert!(found[1].2.contains("129 keys"), "{}", found[1].2);
    assert!(found[2].1.starts_with("spec.config[1]") && found[2].2.ends_with(long));
}

#[test]
fn config_map_content_is_kept_and_missing_content_is_named() {
    let there = EnvSource {
        config_map_key_ref: select("c"),
        ..EnvSource::default()
    };
    let settled = settle(&runtime(there), &Fixed, b"key").unwrap();
    assert_eq!(settled.env[0].value.as_deref(), Some("v"));
    let gone = EnvSource {
        config_map_key_ref: select("x"),
        ..EnvSource::default()
    };
    assert_eq!(
        settle(&runtime(gone), &Fixed, b"key").unwrap_err()[0].field,
        "spec.env[A].valueFrom"
    );
}

/// Otherwise an upgrade of the operator would roll out every function again.
#[test]
fn a_revision_without_newer_fields_keeps_the_name_that_earlier_versions_gave_it() {
    let code = ComponentImage {
        digest: "sha256:1".into(),
        ..ComponentImage::default()
    };
    let settled = ResolvedReferences::default();
    let mut runtime = Runtime::default();
    // the default of that version
    runtime.limits.cpu = Duration::from_millis(50);
    assert_eq!(name("f", &code, &runtime, &settled), "f-26372b371d");
    // the same without defaults
    runtime.reuse = Reuse {
        max_requests: 0,
        idle_timeout: Duration::ZERO,
    };
    assert_eq!(name("f", &code, &runtime, &settled), "f-7ab042dff4");
}

#[test]
fn stores_are_part_of_the_object() {
    let mut function = EdgeFunction::default();
    function.spec.key_value = vec![crds::function::KeyValueStore::default()];
    let code = ComponentImage::default();
    let object = object(&function, "f-1", 1, &code, ResolvedReferences::default());
    assert_eq!(object.spec.key_value, function.spec.key_value);
}

#[test]
fn names_are_short_and_stable_and_differ_by_behaviour() {
    let code = ComponentImage {
        digest: "sha256:1".into(),
        ..ComponentImage::default()
    };
    let settled = ResolvedReferences::default();
    let long = "a".repeat(63);
    let first = name(&long, &code, &Runtime::default(), &settled);
    assert_eq!(first.len(), 63);
    assert_eq!(first, name(&long, &code, &Runtime::default(), &settled));
    let mut runtime = Runtime::default();
    runtime.limits.memory += 1;
    assert_ne!(first, name(&long, &code, &runtime, &settled));
    let with_store = |label: &str| {
        let store = crds::function::KeyValueStore {
            label: label.into(),
            store: Some(crds::function::Store::Memory),
            redis: None,
        };
        let runtime = Runtime {
            key_value: vec![store],
            ..Runtime::default()
        };
        name(&long, &code, &runtime, &settled)
    };
    assert_ne!(first, with_store("cart"));
    assert_ne!(with_store("cart"), with_store("other"));
    let egress = Runtime {
        egress: vec!["https://api.example".into()],
        ..Runtime::default()
    };
    assert_ne!(first, name(&long, &code, &egress, &settled));
    assert_ne!(
        name("f", &code, &Runtime::default(), &settled),
        name("g", &code, &Runtime::default(), &settled)
    );
}
