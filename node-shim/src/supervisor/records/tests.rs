use node_api::v1::env_var::Kind;
use node_api::v1::{
    Certificate, CertificatePair, EnvVar, FencingToken, FunctionKey as WireKey, PathMatch, Removal,
    SecretValue,
};

use super::super::parse_record::tests::record;
use super::*;

fn whole(version: u64, functions: Vec<FunctionRecord>) -> Batch {
    Batch {
        version,
        snapshot: SnapshotPhase::Whole.into(),
        functions,
        ..Batch::default()
    }
}

fn delta(version: u64, functions: Vec<FunctionRecord>) -> Batch {
    Batch {
        version,
        functions,
        ..Batch::default()
    }
}

fn weight_of(records: &Records, name: &str) -> Option<u32> {
    let key = FunctionKey::new("ns", name);
    records
        .functions
        .get(&key)
        .map(|record| record.parsed.entry.split.weight)
}

fn wire_key(name: &str) -> Option<WireKey> {
    Some(WireKey {
        namespace: "ns".into(),
        name: name.into(),
    })
}

fn update(name: &str, serial: u64, weight: u32) -> SplitUpdate {
    let split = record(name, serial)
        .split
        .map(|split| node_api::v1::TrafficSplit { weight, ..split });
    SplitUpdate {
        key: wire_key(name),
        version: 50,
        split,
    }
}

#[test]
fn a_snapshot_in_parts_is_applied_when_its_last_part_arrives() {
    let mut records = Records::default();
    records.apply_batch(whole(10, vec![record("old", 1)]), 0);
    let part = |phase: SnapshotPhase, name: &str| Batch {
        version: 30,
        snapshot: phase.into(),
        functions: vec![record(name, 1)],
        ..Batch::default()
    };
    assert!(!records.apply_batch(part(SnapshotPhase::Begin, "a"), 0));
    assert!(!records.apply_batch(part(SnapshotPhase::Continue, "b"), 0));
    assert!(weight_of(&records, "old").is_some() && weight_of(&records, "a").is_none());
    assert!(records.apply_batch(part(SnapshotPhase::End, "c"), 0));
    let names: Vec<&str> = records.iter().map(|(key, _)| &*key.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(records.version(), 30);
}

/// FC-8: an operator that has just started cannot build the record of a function whose object it cannot decode, or whose
/// revision is missing.
#[test]
fn a_snapshot_keeps_the_functions_that_exist_without_a_record() {
    let has = |records: &Records| -> Vec<String> {
        let names = records.iter().map(|(key, _)| key.name.to_string());
        names.collect()
    };
    let kept = |name: &str, uid: &str| KeptFunction {
        key: wire_key(name),
        uid: uid.into(),
    };
    let uid = |name: &str| record(name, 1).uid;
    let records = || {
        let mut records = Records::default();
        records.apply_batch(
            whole(10, ["a", "b", "c"].map(|name| record(name, 1)).into()),
            0,
        );
        records
    };
    let mut one = records();
    let snapshot = Batch {
        kept: vec![
            kept("b", &uid("b")),
            kept("c", "of-another-c"),
            kept("unknown", "u"),
        ],
        ..whole(30, vec![record("a", 1)])
    };
    one.apply_batch(snapshot, 0);
    assert_eq!(has(&one), ["a", "b"]);
    assert_eq!(one.have(), 30);
    // In parts, the last one names them.
    let mut one = records();
    let part = |phase: SnapshotPhase, kept| Batch {
        snapshot: phase.into(),
        kept,
        ..delta(30, Vec::new())
    };
    one.apply_batch(part(SnapshotPhase::Begin, Vec::new()), 0);
    one.apply_batch(part(SnapshotPhase::End, vec![kept("c", &uid("c"))]), 0);
    assert_eq!(has(&one), ["c"]);
}

#[test]
fn older_tokens_are_ignored_in_every_kind_of_message() {
    let mut records = Records::default();
    records.apply_batch(whole(10, vec![record("f", 5)]), 0);
    let mut late = record("f", 4);
    late.split.as_mut().unwrap().weight = 9;
    records.apply_batch(delta(11, vec![late.clone()]), 0);
    assert_eq!(weight_of(&records, "f"), Some(1000));
    records.apply_batch(whole(12, vec![late]), 0);
    assert_eq!(
        weight_of(&records, "f"),
        Some(1000),
        "a snapshot must not apply an older split either"
    );
    records.apply_batch(
        Batch {
            splits: vec![update("f", 4, 9)],
            ..delta(13, vec![])
        },
        0,
    );
    assert_eq!(weight_of(&records, "f"), Some(1000));
    records.apply_batch(
        Batch {
            splits: vec![update("f", 6, 9)],
            ..delta(14, vec![])
        },
        0,
    );
    assert_eq!(weight_of(&records, "f"), Some(9));
}

#[test]
fn a_hint_only_lowers_the_weight_and_its_token_is_not_accepted_again() {
    let mut records = Records::default();
    records.apply_batch(whole(10, vec![record("f", 5)]), 0);
    assert!(!records.apply_hint(&update("f", 6, 2000)));
    assert!(records.apply_hint(&update("f", 7, 0)));
    assert_eq!(weight_of(&records, "f"), Some(0));
    records.apply_batch(delta(11, vec![record("f", 6)]), 0);
    assert_eq!(
        weight_of(&records, "f"),
        Some(0),
        "the record is older than the hint"
    );
}

#[test]
fn removals_of_older_objects_are_ignored() {
    let mut records = Records::default();
    records.apply_batch(whole(10, vec![record("f", 5)]), 0);
    let removal = |version| Removal {
        key: wire_key("f"),
        version,
    };
    records.apply_batch(
        Batch {
            removals: vec![removal(14)],
            ..delta(14, vec![])
        },
        0,
    );
    assert!(weight_of(&records, "f").is_some());
    records.apply_batch(
        Batch {
            removals: vec![removal(15)],
            ..delta(15, vec![])
        },
        0,
    );
    assert!(weight_of(&records, "f").is_none());
}

/// FD-5: the function of an invalid record keeps its previous one; records of other functions are applied.
#[test]
fn an_invalid_record_affects_only_its_own_function() {
    let mut records = Records::default();
    records.apply_batch(whole(10, vec![record("f", 5), record("g", 5)]), 0);
    let mut poison = record("f", 6);
    poison.routes[0].paths = vec![PathMatch {
        r#type: 77,
        value: "/".into(),
    }];
    let mut fine = record("g", 6);
    fine.split.as_mut().unwrap().weight = 1;
    records.apply_batch(delta(11, vec![poison, fine]), 42);
    assert_eq!(
        (weight_of(&records, "f"), weight_of(&records, "g")),
        (Some(1000), Some(1))
    );
    assert_eq!(records.quarantined().next().unwrap().1.since, 42);
    assert_eq!(records.have(), 0, "the next connection requests a snapshot");
    records.apply_batch(delta(12, vec![record("f", 7)]), 0);
    assert_eq!(records.quarantined().count(), 0);
}

#[test]
fn definitions_that_the_split_names_are_kept() {
    let mut records = Records::default();
    records.apply_batch(whole(10, vec![record("f", 5)]), 0);
    let mut newer_routes = record("f", 6);
    newer_routes.definitions.clear();
    newer_routes.split.as_mut().unwrap().token = Some(FencingToken {
        epoch: 1,
        serial: 1,
    });
    records.apply_batch(delta(11, vec![newer_routes]), 0);
    assert_eq!(records.quarantined().count(), 0);
    assert_eq!(weight_of(&records, "f"), Some(1000));
}

#[test]
fn a_table_from_disk_does_not_replace_newer_records() {
    let mut records = Records::default();
    records.apply_batch(whole(20, vec![record("f", 5)]), 0);
    records.restore(10, vec![record("f", 4), record("g", 1)], 0);
    assert_eq!(
        (weight_of(&records, "f"), weight_of(&records, "g")),
        (Some(1000), Some(1000))
    );
    assert_eq!(records.version(), 20);
}

/// Returns the record of `name` whose stable revision refers to a Secret with this value.
fn with_secret(name: &str, serial: u64, value: Option<&str>) -> FunctionRecord {
    let mut record = record(name, serial);
    record.definitions[0].env = vec![EnvVar {
        name: "DB_URL".into(),
        kind: Some(Kind::Secret(SecretValue {
            reference: "db/url".into(),
            value: value.map(|value| value.as_bytes().to_vec()),
        })),
    }];
    record
}

/// Returns the Secret value with which the stable revision of `f` runs.
fn value(records: &Records) -> Option<String> {
    let record = &records.functions[&FunctionKey::new("ns", "f")];
    let stable = record.parsed.entry.split.stable.as_ref().unwrap();
    let definition = &record.parsed.definitions[stable];
    let found = definition.spec.env.first();
    assert_eq!(definition.missing_secrets.is_empty(), found.is_some());
    found.map(|(_, value)| value.as_ref().to_owned())
}

/// A record without values does not remove values in memory, whichever message contains it.
#[test]
fn a_record_without_secret_values_keeps_the_values_in_memory() {
    type Bring = fn(&mut Records);
    let ways: [(&str, Bring); 5] = [
        ("the same table from disk", |records| {
            records.restore(10, vec![with_secret("f", 5, None)], 0);
        }),
        ("a newer table from disk", |records| {
            records.restore(11, vec![with_secret("f", 6, None)], 0);
        }),
        ("a snapshot", |records| {
            records.apply_batch(whole(11, vec![with_secret("f", 5, None)]), 0);
        }),
        ("a change", |records| {
            records.apply_batch(delta(11, vec![with_secret("f", 6, None)]), 0);
        }),
        ("a share", |records| {
            let splits = vec![update("f", 6, 9)];
            records.apply_batch(
                Batch {
                    splits,
                    ..delta(11, vec![])
                },
                0,
            );
        }),
    ];
    for (what, bring) in ways {
        let mut records = Records::default();
        records.apply_batch(whole(10, vec![with_secret("f", 5, Some("one"))]), 0);
        bring(&mut records);
        assert_eq!(value(&records).as_deref(), Some("one"), "{what}");
        assert!(!records.awaits_secret_values(), "{what}");
        assert!(records.have() >= 10, "{what}: no value is missing");
    }
}

#[test]
fn secret_values_are_awaited_until_an_operator_sends_the_record() {
    let mut records = Records::default();
    records.restore(10, vec![with_secret("f", 5, None)], 0);
    assert!(records.awaits_secret_values());
    assert_eq!((value(&records), records.have()), (None, 0));
    // An update of the split alone does not confirm the values.
    let splits = vec![update("f", 6, 9)];
    records.apply_batch(
        Batch {
            splits,
            ..delta(11, vec![])
        },
        0,
    );
    assert!(records.awaits_secret_values());
    records.apply_batch(whole(12, vec![with_secret("f", 7, None)]), 0);
    assert!(
        !records.awaits_secret_values(),
        "the operator does not have the values either"
    );
    assert_eq!(
        (value(&records), records.have()),
        (None, 0),
        "a snapshot is requested again"
    );
    records.apply_batch(delta(13, vec![with_secret("f", 7, Some("one"))]), 0);
    assert_eq!(value(&records).as_deref(), Some("one"));
    assert_eq!(records.have(), 13);
}

/// A node that starts waits for certificates like for values of Secrets, but not once an operator has none of the Secret.
#[test]
fn a_certificate_is_awaited_until_an_operator_sends_the_record() {
    let with = |serial: u64, pair: Option<&[u8]>| {
        let mut record = record("f", serial);
        record.certificates.push(Certificate {
            secret: "tls".into(),
            pair: pair.map(|chain| CertificatePair {
                chain: chain.to_vec(),
                key: b"key".to_vec(),
            }),
        });
        record
    };
    let held = |records: &Records| {
        let record = &records.functions[&FunctionKey::new("ns", "f")].wire;
        record.certificates[0].pair.is_some()
    };
    let mut records = Records::default();
    records.restore(7, vec![with(1, None)], 0);
    assert!(records.awaits_secret_values());
    assert_eq!(records.have(), 0, "the node requests a snapshot");
    records.apply_batch(whole(8, vec![with(1, None)]), 0);
    assert!(!records.awaits_secret_values() && !held(&records));
    assert_eq!(
        records.have(),
        8,
        "a Secret without a certificate is no reason for another one"
    );
    records.apply_batch(delta(9, vec![with(1, Some(b"chain"))]), 0);
    assert!(held(&records));
    // an operator that has none at present
    records.apply_batch(delta(10, vec![with(2, None)]), 0);
    assert!(held(&records));
    // the table of the process before this one
    records.restore(10, vec![with(2, None)], 0);
    assert!(held(&records) && !records.awaits_secret_values());
    assert_eq!(records.have(), 10);
}
