use super::*;

const NODE: &str = "n-1";

/// The record of a function whose certificate has this chain, if any.
fn record(uid: &str, serial: u64, chain: Option<&str>) -> v1::FunctionRecord {
    let token = Some(v1::FencingToken { epoch: 1, serial });
    v1::FunctionRecord {
        key: Some((&key()).into()),
        uid: uid.to_owned(),
        version: 7,
        accepted: token,
        certificates: vec![v1::Certificate {
            secret: "tls".to_owned(),
            pair: chain.map(|chain| v1::CertificatePair {
                chain: chain.into(),
                key: b"key".to_vec(),
            }),
        }],
        split: Some(v1::TrafficSplit {
            token,
            stable: "f-1".to_owned(),
            ..v1::TrafficSplit::default()
        }),
        ..v1::FunctionRecord::default()
    }
}

fn key() -> FunctionKey {
    FunctionKey::new("shop", "f")
}

/// The chain that nodes receive.
fn chain(tables: &Tables) -> Option<String> {
    let record = tables.newest_record(&key()).unwrap();
    let pair = record.certificates[0].pair.as_ref()?;
    Some(String::from_utf8(pair.chain.clone()).unwrap())
}

#[test]
fn a_renewed_certificate_is_a_change_and_an_unknown_one_is_not() {
    let tables = Tables::new();
    tables.synced(5);
    tables
        .upsert(record("u", 1, Some("old")), Placement::All)
        .unwrap();
    let opening = tables.open(NODE, 0, false).unwrap();
    let changed = |record: v1::FunctionRecord| {
        let before = tables.version();
        tables.upsert(record, Placement::All).unwrap();
        let queued = opening.queue.pop().is_some();
        assert_eq!(queued, tables.version() > before);
        queued
    };
    assert!(!changed(record("u", 1, Some("old"))));
    assert!(changed(record("u", 1, Some("new"))));
    assert!(!changed(record("u", 1, None)));
    assert_eq!(
        chain(&tables).as_deref(),
        Some("new"),
        "for nodes that start"
    );
    // another function of the name starts without it
    assert!(changed(record("v", 2, None)));
    assert_eq!(chain(&tables), None);
}

/// With a `nodeSelector`, all other nodes of a large cluster would receive the whole record.
#[test]
fn a_node_that_joins_or_leaves_is_no_change_for_the_others() {
    let tables = Tables::new();
    tables.synced(5);
    let on = |nodes: &[&str]| {
        let placement = Placement::nodes(nodes.iter().copied());
        tables.upsert(record("u", 1, None), placement).unwrap();
    };
    on(&[NODE]);
    let stays = tables.open(NODE, 0, false).unwrap();
    let joins = tables.open("n-2", 0, false).unwrap();
    let queued = || [&stays, &joins].map(|opening| opening.queue.pop().is_some());
    for nodes in [&[NODE, "n-2"][..], &[NODE]] {
        let before = tables.version();
        on(nodes);
        assert_eq!(queued(), [false, true], "{nodes:?}");
        assert!(tables.version() > before);
    }
}

/// A hint has used up the token of the split, and the routes of the record are older than those that nodes have.
#[test]
fn older_routes_do_not_bring_back_their_certificates() {
    let tables = Tables::new();
    tables
        .upsert(record("u", 2, Some("new")), Placement::All)
        .unwrap();
    tables
        .upsert(record("u", 1, Some("old")), Placement::All)
        .unwrap();
    assert_eq!(chain(&tables).as_deref(), Some("new"));
}
