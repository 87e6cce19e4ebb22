//! What a node receives, and when; against a server on the loopback.

mod bounds;

use node_api::v1::operator_message::Kind as Down;
use node_api::v1::{self, SnapshotPhase};

use super::super::test_support::{TestReplica, names, record, split};
use super::super::{FunctionKey, Placement};

fn update(name: &str, serial: u64, weight: u32) -> v1::SplitUpdate {
    v1::SplitUpdate {
        key: Some((&FunctionKey::new("shop", name)).into()),
        version: 0,
        split: Some(split(name, serial, weight)),
    }
}

fn with_candidate(name: &str, version: u64, serial: u64, weight: u32) -> v1::FunctionRecord {
    v1::FunctionRecord {
        split: Some(split(name, serial, weight)),
        ..record(name, version, serial)
    }
}

/// A loop between nodes is seen only with a common key, whichever replica they are connected to. It is not the key of the
/// hashes of Secret values.
#[tokio::test]
async fn all_nodes_receive_the_same_hop_key() {
    let first = TestReplica::start().await;
    let second = TestReplica::with_material(first.material.clone(), |_| {}).await;
    second.tables.synced(10);
    let welcome = first.node("node-1", 0).await.welcome().await;
    let same = second.node("node-2", 0).await.welcome().await;
    assert!(!format!("{welcome:?}").contains("key: ["), "logs show it");
    let key = welcome.hop_key.unwrap().key;
    assert_eq!((key.len(), &key), (32, &same.hop_key.unwrap().key));
    assert_ne!(key[..], first.material.hash_key[..]);
}

#[tokio::test]
async fn a_new_node_receives_only_functions_placed_on_it() {
    let replica = TestReplica::start().await;
    replica.place(record("everywhere", 11, 1));
    replica.place_on(record("here", 12, 1), &["node-1"]);
    replica.place_on(record("elsewhere", 13, 1), &["node-2"]);
    let mut node = replica.node("node-1", 0).await;
    assert!(!node.welcome().await.resumed);
    let batch = node.batch().await;
    assert_eq!(batch.snapshot(), SnapshotPhase::Whole);
    assert_eq!(batch.version, 13);
    assert_eq!(names(&batch), ["everywhere", "here"]);
    assert_eq!(
        batch.functions[0].definitions[0].env.len(),
        1,
        "with its secret"
    );

    replica.place_on(record("elsewhere", 20, 2), &["node-2"]);
    replica.place_on(record("here", 21, 2), &["node-1"]);
    let batch = node.batch().await;
    assert_eq!(
        (names(&batch), batch.splits.len()),
        (vec![], 1),
        "only a traffic split"
    );
    replica.place_on(record("here", 22, 3), &["node-2"]);
    let batch = node.batch().await;
    let removed = batch.removals[0].key.clone().unwrap();
    assert_eq!((removed.name.as_str(), batch.version), ("here", 22));
    replica
        .tables
        .remove(&FunctionKey::new("shop", "elsewhere"), 23);
    replica
        .tables
        .remove(&FunctionKey::new("shop", "everywhere"), 24);
    let batch = node.batch().await;
    assert_eq!(batch.removals.len(), 1, "only of functions that it had");
}

#[tokio::test]
async fn a_large_snapshot_comes_in_parts_between_marks() {
    let replica = TestReplica::with(|settings| settings.part_bytes = 1).await;
    replica.tables.synced(10);
    for name in ["a", "b", "c", "d"] {
        replica.place(record(name, 11, 1));
    }
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    let mut phases = Vec::new();
    let mut found = Vec::new();
    while found.len() < 4 {
        let batch = node.batch().await;
        phases.push(batch.snapshot());
        found.extend(names(&batch).into_iter().map(str::to_owned));
    }
    use SnapshotPhase::{Begin, Continue, End};
    assert_eq!(phases, [Begin, Continue, Continue, End]);
}

#[tokio::test]
async fn an_empty_table_is_a_snapshot_too() {
    let replica = TestReplica::start().await;
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    let batch = node.batch().await;
    assert_eq!(
        (batch.snapshot(), batch.version),
        (SnapshotPhase::Whole, 10)
    );
}

/// FD-1: a node that resumes with its state receives the difference and no snapshot.
#[tokio::test]
async fn a_reconnecting_node_receives_the_difference() {
    let replica = TestReplica::start().await;
    replica.place(record("kept", 11, 1));
    replica.place(record("deleted", 12, 1));
    replica.place_on(record("moved", 13, 1), &["node-1"]);
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    let version = node.batch().await.version;
    drop(node);
    replica
        .wait_for_fleet(|fleet| fleet.nodes().iter().all(|node| !node.connected))
        .await;
    replica.place(record("new", 14, 1));
    replica
        .tables
        .remove(&FunctionKey::new("shop", "deleted"), 15);
    replica.place_on(record("moved", 16, 2), &["node-2"]);

    let mut node = replica.node("node-1", version).await;
    assert!(node.welcome().await.resumed);
    let batch = node.batch().await;
    assert_eq!((batch.snapshot(), batch.version), (SnapshotPhase::None, 16));
    assert!(names(&batch).contains(&"new"));
    let mut gone: Vec<String> = batch
        .removals
        .into_iter()
        .filter_map(|removal| Some(removal.key?.name))
        .collect();
    gone.sort();
    assert_eq!(gone, ["deleted", "moved"]);
    // A node that never received them does not receive their removal now.
    let mut other = replica.node("node-3", version).await;
    other.welcome().await;
    let gone = other.batch().await.removals;
    let gone: Vec<_> = gone
        .into_iter()
        .filter_map(|one| Some(one.key?.name))
        .collect();
    assert_eq!(gone, ["deleted"]);
}

/// FD-1: a node keeps its version and its stream at a replica that is behind.
#[tokio::test]
async fn a_node_older_than_the_log_gets_a_snapshot_and_one_from_a_newer_replica_keeps_its_version()
{
    let replica = TestReplica::start().await;
    replica.place(record("a", 11, 1));
    let mut old = replica.node("node-1", 9).await;
    assert!(!old.welcome().await.resumed);
    assert_eq!(old.batch().await.snapshot(), SnapshotPhase::Whole);
    let mut ahead = replica.node("node-2", 500).await;
    assert!(ahead.welcome().await.resumed);
    replica.place(record("b", 12, 1));
    let batch = ahead.batch().await;
    assert_eq!(batch.version, 500, "never lower");
}

#[tokio::test]
async fn of_many_changes_only_the_last_reaches_a_node() {
    let replica = TestReplica::start().await;
    replica.place(with_candidate("a", 11, 1, 0));
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    node.batch().await;
    // The single thread of this test runs no stream in between.
    for serial in 2..=500_u64 {
        let weight = u32::try_from(serial).unwrap();
        replica.place(with_candidate("a", 11 + serial, serial, weight));
    }
    let batch = node.batch().await;
    assert_eq!(batch.version, 511);
    assert_eq!((batch.splits.len(), batch.functions.len()), (1, 0));
    let split = batch.splits[0].split.clone().unwrap();
    assert_eq!((split.weight, split.token.unwrap().serial), (500, 500));
}

#[tokio::test]
async fn a_record_without_a_change_is_not_sent() {
    let replica = TestReplica::start().await;
    replica.place(record("a", 11, 1));
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    node.batch().await;
    replica.place(record("a", 12, 1));
    replica.place(record("b", 13, 1));
    assert_eq!(names(&node.batch().await), ["b"]);
}

/// FD-3: a stuck node is disconnected with a reason, and the others receive everything meanwhile.
#[tokio::test]
async fn a_stream_that_does_not_drain_is_cut_and_no_other_waits_for_it() {
    let replica =
        TestReplica::with(|settings| settings.drain = std::time::Duration::from_millis(200)).await;
    replica.tables.synced(10);
    let mut big = record("big", 11, 1);
    big.definitions[0].egress = vec!["x".repeat(1_500_000)];
    replica.place(big.clone());
    let mut stuck = replica.node("node-1", 0).await;
    let mut healthy = replica.node("node-2", 0).await;
    healthy.welcome().await;
    healthy.batch().await;
    for size in 1..=5 {
        big.definitions[0].size = size;
        replica.place(big.clone());
        healthy.batch().await;
    }
    replica
        .wait_for_fleet(|fleet| {
            let nodes = fleet.nodes();
            nodes
                .iter()
                .any(|node| node.name == "node-1" && !node.connected)
        })
        .await;
    assert_eq!(replica.closed("slow"), 1);
    replica.place(record("small", 12, 1));
    assert_eq!(names(&healthy.batch().await), ["small"]);
    // The connection was closed too: data in flight may still be read, then reading fails.
    let mut last = Ok(None);
    for _ in 0..10 {
        last = stuck.down.message().await;
        if !matches!(last, Ok(Some(_))) {
            break;
        }
    }
    assert!(last.is_err(), "{last:?}");
}

#[tokio::test]
async fn placement_everywhere_that_narrows_removes_elsewhere() {
    let replica = TestReplica::start().await;
    replica.place(record("a", 11, 1));
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    node.batch().await;
    replica
        .tables
        .upsert(record("a", 11, 1), Placement::nowhere())
        .unwrap();
    assert_eq!(node.batch().await.removals.len(), 1);
    replica.place(record("a", 11, 1));
    assert_eq!(names(&node.batch().await), ["a"], "a whole record again");
}

/// FD-4: a node that connects before the status write receives a rollback by hint first.
#[tokio::test]
async fn a_hint_lowers_and_stays_lowered() {
    let replica = TestReplica::start().await;
    replica.place(with_candidate("a", 11, 5, 1_000));
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    node.batch().await;
    for (hint, refused) in [
        (
            update("a", 6, 1_001),
            "it would not lower the candidate's weight",
        ),
        (update("a", 5, 0), "the fencing token is not newer"),
        (update("b", 6, 0), "unknown function"),
    ] {
        let error = replica.fleet.hint(&hint).unwrap_err();
        assert_eq!(error.to_string(), refused);
    }
    let mut other_stable = update("a", 6, 0);
    other_stable.split.as_mut().unwrap().stable = "a-2".to_owned();
    assert!(replica.fleet.hint(&other_stable).is_err());
    let mut other_candidate = update("a", 6, 0);
    other_candidate.split.as_mut().unwrap().candidate = "a-3".to_owned();
    assert!(replica.fleet.hint(&other_candidate).is_err());

    replica.fleet.hint(&update("a", 6, 0)).unwrap();
    match node.next().await {
        Some(Down::Hint(hint)) => assert_eq!(hint.split, Some(update("a", 6, 0))),
        other => panic!("{other:?}"),
    }
    // The caches still have the step before the rollback.
    replica.place(with_candidate("a", 12, 5, 1_000));
    let mut late = replica.node("node-2", 0).await;
    late.welcome().await;
    let split = late.batch().await.functions[0].split.clone().unwrap();
    assert_eq!((split.weight, split.token.unwrap().serial), (0, 6));
    replica.place(with_candidate("a", 13, 7, 0));
    let split = late.batch().await.splits[0].split.clone().unwrap();
    assert_eq!(split.token.unwrap().serial, 7);
}

#[tokio::test]
async fn a_wave_must_not_rise_under_a_hint() {
    let replica = TestReplica::start().await;
    let mut placed = with_candidate("a", 11, 5, 1_000);
    let wave = |weight| v1::WaveWeight {
        wave: "east".to_owned(),
        weight,
    };
    placed.split.as_mut().unwrap().waves = vec![wave(500)];
    replica.place(placed);
    let mut hint = update("a", 6, 600);
    // Without its own entry, the wave would get the general weight.
    assert!(replica.fleet.hint(&hint).is_err());
    hint.split.as_mut().unwrap().waves = vec![wave(400)];
    replica.fleet.hint(&hint).unwrap();
}
