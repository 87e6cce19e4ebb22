use crds::function::{EnvEntry, EnvSource, Instances, KeySelector, Reuse, RevisionStatus};
use crds::{EdgeRevisionSpec, ReferenceHash, ReferenceKind};
use operator_core::function::Revision;
use operator_core::rollout::{RevisionRef, RolloutState};

use super::*;

struct Known(&'static str);

impl SecretValues for Known {
    fn value(&self, _: &EdgeRevision, of: &KeySelector, hash: &str) -> Option<Vec<u8>> {
        let secret = matches!((&*of.name, &*of.key), ("s", "k") | ("r", "url"));
        (secret && hash == self.0).then(|| b"hush".to_vec())
    }

    fn certificate(&self, name: &str, hosts: &[&str]) -> Option<v1::CertificatePair> {
        (name == "tls" && hosts.contains(&"a.example")).then(|| v1::CertificatePair {
            chain: b"chain".to_vec(),
            key: b"key".to_vec(),
        })
    }
}

fn revision(name: &str, version: u64, change: impl FnOnce(&mut EdgeRevisionSpec)) -> EdgeRevision {
    let mut spec = EdgeRevisionSpec {
        digest: "sha256:manifest".into(),
        component_digest: Some("sha256:component".into()),
        repository: Some("r.example/shop/app".into()),
        ..EdgeRevisionSpec::default()
    };
    change(&mut spec);
    let mut revision = EdgeRevision::new(name, spec);
    revision.metadata.resource_version = Some(version.to_string());
    revision
}

/// A function at rest on `stable`, or with such a status and a record that cannot be read.
fn function(stable: Option<&str>, readable: bool) -> EdgeFunction {
    let at = jiff::Timestamp::UNIX_EPOCH;
    let state = RolloutState {
        stable: stable.map(|name| RevisionRef {
            revision: Revision {
                name: name.into(),
                digest: String::new(),
            },
            since: at,
        }),
        ..RolloutState::default()
    };
    let mut rollout = persist::rollout(&state);
    rollout.working_record = Some(if readable {
        persist::encode(&state).unwrap()
    } else {
        "{".into()
    });
    let status = EdgeFunctionStatus {
        accepted: Some(crds::function::AcceptedStatus::default()),
        stable: stable.map(|name| RevisionStatus {
            revision: name.into(),
            ..RevisionStatus::default()
        }),
        rollout: Some(rollout),
        ..EdgeFunctionStatus::default()
    };
    let mut function = EdgeFunction::new("app", crds::EdgeFunctionSpec::default());
    function.metadata.resource_version = Some("7".into());
    function.status = Some(status);
    function
}

#[test]
fn nothing_is_projected_before_something_was_accepted() {
    let bare = EdgeFunction::new("app", crds::EdgeFunctionSpec::default());
    assert_eq!(record(&bare, &[], &Known("")), None);
    let empty = record(&function(None, true), &[], &Known("")).unwrap();
    assert!(names_nothing(&empty));
}

/// FC-14: nodes keep stable when the record cannot be read.
#[test]
fn i6_a_record_that_cannot_be_read_leaves_stable_serving() {
    let stable = revision("app-1", 9, |_| {});
    let lost = function(Some("app-1"), false);
    assert!(!is_settled(&lost));
    let record = record(&lost, &[&stable], &Known("")).unwrap();
    let split = record.split.clone().unwrap();
    assert_eq!(
        (
            split.stable.as_str(),
            split.candidate.as_str(),
            split.weight
        ),
        ("app-1", "", 0)
    );
    assert_eq!(lacking(&record), None);
    assert_eq!(record.version, 9, "the newest of all objects in it");
}

#[test]
fn a_share_does_not_travel_before_what_it_names() {
    let record = record(&function(Some("app-1"), true), &[], &Known("")).unwrap();
    assert_eq!(lacking(&record), Some("app-1"));
}

#[test]
fn what_needs_credentials_comes_from_the_operator_and_the_rest_from_the_registry() {
    let source = |change: fn(&mut EdgeRevisionSpec)| {
        let revision = revision("app-1", 1, change);
        let record = record(&function(Some("app-1"), true), &[&revision], &Known("")).unwrap();
        record.definitions[0].source.clone().unwrap()
    };
    let public = source(|_| {});
    assert_eq!(
        (public.via_operator, public.repository.as_str()),
        (false, "r.example/shop/app")
    );
    assert_eq!(public.manifest_digest, "sha256:manifest");
    let private =
        source(|spec| spec.image_pull_secrets = vec![crds::LocalReference { name: "p".into() }]);
    assert_eq!(
        (private.via_operator, private.repository.as_str()),
        (true, "")
    );
    assert!(source(|spec| spec.inline = Some(k8s_openapi::ByteString(vec![1]))).via_operator);
}

#[test]
fn fn_12_a_secret_travels_only_as_the_value_that_the_revision_was_made_with() {
    let value = |known: &'static str| {
        let revision = revision("app-1", 1, |spec| {
            let reference = KeySelector {
                name: "s".into(),
                key: "k".into(),
            };
            let source = EnvSource {
                secret_key_ref: Some(reference),
                ..EnvSource::default()
            };
            spec.env = vec![EnvEntry {
                name: "A".into(),
                value: None,
                value_from: Some(source),
            }];
            spec.references = vec![ReferenceHash {
                kind: ReferenceKind::Secret,
                name: "s".into(),
                key: Some("k".into()),
                hash: "then".into(),
            }];
        });
        let record = record(&function(Some("app-1"), true), &[&revision], &Known(known)).unwrap();
        match record.definitions[0].env[0].kind.clone().unwrap() {
            v1::env_var::Kind::Secret(secret) => (secret.reference.clone(), secret.value.clone()),
            v1::env_var::Kind::Value(value) => panic!("a plain value: {value}"),
        }
    };
    assert_eq!(value("then"), ("s/k".to_owned(), Some(b"hush".to_vec())));
    assert_eq!(value("now"), ("s/k".to_owned(), None), "not an empty text");
}

#[test]
fn a_certificate_travels_once_with_the_routes_that_name_it() {
    let mut function = function(Some("app-1"), true);
    let route = |host: &str, secret: Option<&str>| Route {
        hosts: vec![host.into()],
        tls: secret.map(|name| crds::function::RouteTls {
            secret_ref: crds::LocalReference { name: name.into() },
        }),
        ..Route::default()
    };
    let status = function.status.as_mut().unwrap();
    status.accepted.as_mut().unwrap().routes = vec![
        route("b.example", Some("tls")),
        route("a.example", Some("tls")),
        route("a.example", Some("other")),
        route("c.example", None),
    ];
    let names: Vec<_> = certificates_of(&function).into_iter().collect();
    assert_eq!(names, ["other", "tls"]);
    let record = record(&function, &[], &Known("")).unwrap();
    let named = record.routes.iter().map(|route| route.certificate.as_str());
    assert_eq!(named.collect::<Vec<_>>(), ["tls", "tls", "other", ""]);
    let sent = record.certificates.iter();
    let sent: Vec<_> = sent
        .map(|one| (one.secret.as_str(), one.pair.is_some()))
        .collect();
    assert_eq!(sent, [("other", false), ("tls", true)]);
}

#[test]
fn stores_travel_with_their_label_and_kind() {
    let revision = revision("app-1", 1, |spec| {
        let store = |label: &str, store| KeyValueStore {
            label: label.into(),
            store,
            redis: None,
        };
        spec.key_value = vec![
            store("cart", Some(Store::Memory)),
            store("later", Some(Store::Unknown)),
        ];
    });
    let record = record(&function(Some("app-1"), true), &[&revision], &Known("")).unwrap();
    let stores = &record.definitions[0].key_value;
    let memory = v1::key_value_store::Kind::Memory(v1::MemoryStore {});
    let kind = |index: usize| (stores[index].label.as_str(), stores[index].kind.clone());
    assert_eq!(kind(0), ("cart", Some(memory)));
    assert_eq!(kind(1), ("later", None));
}

#[test]
fn fn_12_the_url_of_a_store_travels_as_the_secrets_of_variables_do() {
    let revision = revision("app-1", 1, |spec| {
        spec.key_value = vec![KeyValueStore {
            label: "cart".into(),
            store: None,
            redis: Some(crds::function::Redis {
                secret_ref: crds::LocalReference { name: "r".into() },
                prefix: Some("shop:".into()),
                local_cache_ttl: Some("1m30s".into()),
            }),
        }];
        spec.references = vec![ReferenceHash {
            kind: ReferenceKind::Secret,
            name: "r".into(),
            key: Some("url".into()),
            hash: "then".into(),
        }];
    });
    assert_eq!(secrets_of(&revision), BTreeSet::from(["r".to_owned()]));
    for (known, value) in [("then", Some(b"hush".to_vec())), ("now", None)] {
        let record = record(&function(Some("app-1"), true), &[&revision], &Known(known)).unwrap();
        let redis = v1::RedisStore {
            url: Some(v1::SecretValue {
                reference: "r/url".into(),
                value,
            }),
            prefix: "shop:".into(),
            local_cache_ttl: 90_000,
        };
        let store = &record.definitions[0].key_value[0];
        assert_eq!(store.kind, Some(v1::key_value_store::Kind::Redis(redis)));
    }
}

#[test]
fn the_reuse_of_instances_travels_with_its_defaults() {
    let travels = |reuse: Option<Reuse>| {
        let revision = revision("app-1", 1, |spec| {
            spec.instances = Some(Instances { reuse });
        });
        let record = record(&function(Some("app-1"), true), &[&revision], &Known("")).unwrap();
        let definition = &record.definitions[0];
        (definition.reuse_max_requests, definition.reuse_idle_timeout)
    };
    assert_eq!(travels(None), (1, 1_000));
    let reuse = |max_requests, idle: Option<&str>| {
        Some(Reuse {
            max_requests,
            idle_timeout: idle.map(str::to_owned),
        })
    };
    assert_eq!(travels(reuse(None, None)), (1, 1_000));
    assert_eq!(travels(reuse(Some(100), None)), (100, 1_000));
    assert_eq!(travels(reuse(Some(2), Some("1m30s"))), (2, 90_000));
}
