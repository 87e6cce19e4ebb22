//! Two replicas on the loopback: reports of a follower's nodes reach the leader, and hints come back.

use std::io::Write;

use node_api::v1::operator_message::Kind as Down;
use node_api::{FencingToken, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::test_support::{TestReplica, record, shim_review, split, with_token};
use super::{CounterSelector, FunctionKey, Latency, Leader, Review};

fn replica_review() -> Review {
    Review {
        username: "system:serviceaccount:sys:selvage-operator".to_owned(),
        ..shim_review("node-9")
    }
}

fn key() -> FunctionKey {
    FunctionKey::new("shop", "a")
}

fn loaded(serial: u64) -> v1::RevisionState {
    v1::RevisionState {
        function: Some((&key()).into()),
        revision: "a-1".to_owned(),
        state: v1::LoadState::Loaded.into(),
        permanent: false,
        applied: Some(v1::FencingToken { epoch: 3, serial }),
    }
}

fn counted(sequence: u64, absolute: bool, count: u64) -> v1::CounterFrame {
    v1::CounterFrame {
        boot_id: 7,
        sequence,
        absolute,
        at: 0,
        revisions: vec![v1::RevisionCounters {
            function: Some((&key()).into()),
            revision: "a-1".to_owned(),
            population: "live".to_owned(),
            outcomes: vec![v1::OutcomeCount {
                outcome: "ok".to_owned(),
                code: "5xx".to_owned(),
                start: "warm".to_owned(),
                count,
            }],
            ..v1::RevisionCounters::default()
        }],
    }
}

/// Leader and follower with one CA; the token file must outlive them.
async fn two_replicas() -> (TestReplica, TestReplica, tempfile::NamedTempFile) {
    let mut token = tempfile::NamedTempFile::new().unwrap();
    writeln!(token, "token-of-a-replica").unwrap();
    let leader = TestReplica::start().await;
    leader.add_review("token-of-a-replica", replica_review());
    let path = token.path().to_owned();
    let follower = TestReplica::with_material(leader.material.clone(), |settings| {
        settings.operator_token = Some(path);
    })
    .await;
    follower.tables.synced(10);
    let is = |is_self| {
        Some(Leader {
            address: leader.address,
            is_self,
        })
    };
    leader.leader.send_replace(is(true));
    follower.leader.send_replace(is(false));
    (leader, follower, token)
}

#[tokio::test]
async fn the_leader_sees_a_followers_nodes_as_its_own() {
    let (leader, follower, _token) = two_replicas().await;
    let node = follower.node("node-1", 0).await;
    node.report(v1::Report {
        revisions: vec![loaded(5)],
        revisions_complete: true,
        ready: true,
        counters: Some(counted(1, true, 10)),
        ..v1::Report::default()
    })
    .await;
    leader
        .wait_for_fleet(|fleet| fleet.nodes().iter().any(|node| node.live && node.relayed))
        .await;
    node.report(v1::Report {
        revisions: vec![loaded(6)],
        ready: true,
        counters: Some(counted(2, false, 5)),
        ..v1::Report::default()
    })
    .await;
    let applied = |fleet: &super::Fleet| {
        let nodes = fleet.function_nodes(&key());
        nodes
            .first()
            .and_then(|node| node.revisions.first()?.applied)
    };
    leader
        .wait_for_fleet(|fleet| applied(fleet) == Some(FencingToken::new(3, 6)))
        .await;
    assert_eq!(leader.fleet.max_epoch_seen(), 3);
    let selector = CounterSelector {
        latency: Latency::Head,
        population: "live",
    };
    let (here, there) = (
        follower.fleet.counters(&key(), selector),
        leader.fleet.counters(&key(), selector),
    );
    assert_eq!(there[0].revisions, here[0].revisions);
    assert_eq!(there[0].revisions["a-1"].total(), 15);

    drop(node);
    leader
        .wait_for_fleet(|fleet| fleet.nodes().iter().all(|node| !node.connected))
        .await;
    let last = leader.fleet.counters(&key(), selector);
    assert_eq!(last.len(), 1, "its counters still count");
}

#[tokio::test]
async fn a_hint_of_the_leader_reaches_a_followers_node() {
    let (leader, follower, _token) = two_replicas().await;
    let on_trial = v1::FunctionRecord {
        split: Some(split("a", 5, 1_000)),
        ..record("a", 11, 5)
    };
    leader.place(on_trial.clone());
    follower.place(on_trial);
    let mut node = follower.node("node-1", 0).await;
    node.welcome().await;
    node.batch().await;
    leader
        .wait_for_fleet(|fleet| !fleet.nodes().is_empty())
        .await;
    let hint = v1::SplitUpdate {
        key: Some((&key()).into()),
        version: 0,
        split: Some(split("a", 6, 0)),
    };
    leader.fleet.hint(&hint).unwrap();
    match node.next().await {
        Some(Down::Hint(got)) => assert_eq!(got.split, Some(hint)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn when_the_leader_changes_the_relay_follows_and_the_old_one_forgets() {
    let (old, follower, _token) = two_replicas().await;
    let new = TestReplica::with_material(old.material.clone(), |_| {}).await;
    new.add_review("token-of-a-replica", replica_review());
    let node = follower.node("node-1", 0).await;
    node.report(v1::Report {
        revisions_complete: true,
        ..v1::Report::default()
    })
    .await;
    old.wait_for_fleet(|fleet| fleet.nodes().iter().any(|node| node.live))
        .await;
    let leader = |is_self| {
        Some(Leader {
            address: new.address,
            is_self,
        })
    };
    new.leader.send_replace(leader(true));
    old.leader.send_replace(leader(false));
    follower.leader.send_replace(leader(false));
    new.wait_for_fleet(|fleet| fleet.nodes().iter().any(|node| node.live))
        .await;
    old.wait_for_fleet(|fleet| fleet.nodes().iter().all(|node| !node.connected))
        .await;
}

#[tokio::test]
async fn only_a_replica_may_relay_and_only_to_the_leader() {
    let replica = TestReplica::start().await;
    replica.add_review("token-of-a-replica", replica_review());
    for (token, leads, code) in [
        ("token-of-node-1", true, Code::PermissionDenied),
        ("unknown", true, Code::Unauthenticated),
        ("token-of-a-replica", false, Code::FailedPrecondition),
    ] {
        let address = replica.address;
        let is_self = leads;
        replica
            .leader
            .send_replace(Some(Leader { address, is_self }));
        let (_up, receiver) = tokio::sync::mpsc::channel::<v1::RelayUp>(1);
        let request = with_token(ReceiverStream::new(receiver), token);
        let refused = replica.client().await.relay(request).await;
        assert_eq!(refused.map(|_| ()).unwrap_err().code(), code, "{token}");
    }
}

/// Result of requesting `digest` for `node`: bytes or a status code.
async fn blob(replica: &TestReplica, token: &str, node: &str, digest: &str) -> Result<usize, Code> {
    let request = v1::BlobRequest {
        digest: digest.to_owned(),
        node: node.to_owned(),
    };
    let answer = replica
        .client()
        .await
        .blob(with_token(request, token))
        .await;
    let mut chunks = answer.map_err(|status| status.code())?.into_inner();
    let mut bytes = 0;
    while let Some(chunk) = chunks.message().await.unwrap() {
        assert!(chunk.data.len() <= 256 * 1024);
        bytes += chunk.data.len();
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_component_is_handed_only_to_nodes_that_refer_to_it() {
    let replica = TestReplica::start().await;
    replica.place_on(record("a", 11, 1), &["node-1"]);
    replica.place_on(record("gone", 12, 1), &["node-1"]);
    let ask = |token, node, digest| blob(&replica, token, node, digest);
    assert_eq!(
        ask("token-of-node-1", "node-1", "sha256:a").await,
        Ok(600 * 1024)
    );
    let denied = Err(Code::PermissionDenied);
    assert_eq!(ask("token-of-node-2", "node-2", "sha256:a").await, denied);
    assert_eq!(ask("token-of-node-2", "node-1", "sha256:a").await, denied);
    assert_eq!(ask("token-of-node-1", "node-1", "sha256:b").await, denied);
    assert_eq!(
        ask("token-of-node-1", "node-1", "sha256:gone").await,
        Err(Code::NotFound)
    );
    assert_eq!(
        ask("", "node-1", "sha256:a").await,
        Err(Code::Unauthenticated)
    );
    replica.tables.remove(&key(), 13);
    assert_eq!(ask("token-of-node-1", "node-1", "sha256:a").await, denied);
}

#[tokio::test]
async fn a_node_has_two_blobs_at_a_time() {
    let replica = TestReplica::start().await;
    replica.place(record("a", 11, 1));
    let mut client = replica.client().await;
    let request = || {
        let request = v1::BlobRequest {
            digest: "sha256:a".to_owned(),
            node: "node-1".to_owned(),
        };
        with_token(request, "token-of-node-1")
    };
    // Larger than the window of a stream, so the calls stay open until they are read.
    let first = client.blob(request()).await.unwrap();
    let _second = client.blob(request()).await.unwrap();
    let third = client.blob(request()).await;
    assert_eq!(
        third.map(|_| ()).unwrap_err().code(),
        Code::ResourceExhausted
    );
    let mut first = first.into_inner();
    while first.message().await.unwrap().is_some() {}
    assert!(client.blob(request()).await.is_ok());
}
