//! Which callers may open a stream, what ends a stream, and which limits apply; each against a server on the
//! loopback.

use node_api::v1::operator_message::Kind as Down;
use node_api::{FencingToken, v1};
use tonic::Code;

use super::super::super::FunctionKey;
use super::super::super::test_support::{
    TestReplica, hello, names, record, shim_review, with_token,
};

/// HK-4: a token of another node, audience or account, or without a claim of node or pod, is refused and counted by
/// reason.
#[tokio::test]
async fn a_token_opens_only_its_own_nodes_stream() {
    let replica = TestReplica::start().await;
    let with = |change: fn(&mut super::super::super::Review)| {
        let mut review = shim_review("node-1");
        change(&mut review);
        review
    };
    replica.add_review("of-node-2", shim_review("node-2"));
    replica.add_review(
        "other-audience",
        with(|review| review.audiences = vec!["api".to_owned()]),
    );
    replica.add_review("no-audience", with(|review| review.audiences.clear()));
    replica.add_review("expired", with(|review| review.authenticated = false));
    replica.add_review(
        "other-account",
        with(|review| review.username = "system:serviceaccount:a:b".to_owned()),
    );
    replica.add_review(
        "replica",
        with(|review| review.username = "system:serviceaccount:sys:selvage-operator".to_owned()),
    );
    replica.add_review(
        "no-node",
        with(|review| {
            review
                .extra
                .remove("authentication.kubernetes.io/node-name");
        }),
    );
    replica.add_review(
        "no-pod",
        with(|review| {
            review.extra.remove("authentication.kubernetes.io/pod-uid");
        }),
    );
    for (token, code, result) in [
        ("of-node-2", Code::PermissionDenied, "ok"),
        ("other-audience", Code::Unauthenticated, "audience"),
        ("no-audience", Code::Unauthenticated, "audience"),
        ("expired", Code::Unauthenticated, "not_authenticated"),
        ("never-seen", Code::Unauthenticated, "not_authenticated"),
        ("", Code::Unauthenticated, "no_token"),
        ("other-account", Code::PermissionDenied, "service_account"),
        ("replica", Code::PermissionDenied, "service_account"),
        ("no-node", Code::PermissionDenied, "no_node_claim"),
        ("no-pod", Code::PermissionDenied, "no_pod_claim"),
        ("unreviewable", Code::Unavailable, "unavailable"),
    ] {
        let before = replica.meter.reviews.with_label_values(&[result]).get();
        let refused = replica.stream(token, hello("node-1", 0)).await;
        let status = refused.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), code, "{token}: {status}");
        let after = replica.meter.reviews.with_label_values(&[result]).get();
        assert_eq!(after, before + 1, "{token} counts as {result}");
    }
    assert_eq!(replica.closed("wrong_node"), 1);
    assert_eq!(replica.fleet.nodes(), []);
}

/// HK-4: a token that was stolen from a node opens no stream and fetches nothing in another node's name, and the node
/// it was stolen from is not affected.
#[tokio::test]
async fn a_cached_token_is_refused_under_another_name() {
    let replica = TestReplica::start().await;
    let mut owner = replica.node("node-1", 0).await;
    owner.welcome().await;
    owner.batch().await;
    let refused = replica.stream("token-of-node-1", hello("node-2", 0)).await;
    let status = refused.map(|_| ()).unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert_eq!(replica.closed("wrong_node"), 1);
    let asked = replica
        .reviewer
        .asked
        .load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(asked, 1, "from the cached review");
    let wanted = v1::BlobRequest {
        node: "node-2".to_owned(),
        digest: "sha256:a".to_owned(),
    };
    let mut client = replica.client().await;
    let blob = client.blob(with_token(wanted, "token-of-node-1")).await;
    assert_eq!(blob.map(|_| ()).unwrap_err().code(), Code::PermissionDenied);
    let live: Vec<String> = replica
        .fleet
        .nodes()
        .into_iter()
        .map(|node| node.name)
        .collect();
    assert_eq!(live, ["node-1"]);
    replica.place(record("a", 11, 1));
    assert_eq!(names(&owner.batch().await), ["a"]);
}

/// FD-6: without a common protocol version a stream is refused by name. HK-11: so is an oversized Hello.
#[tokio::test]
async fn an_incompatible_hello_is_refused() {
    let replica = TestReplica::start().await;
    let newer = v1::Hello {
        protocol_versions: vec![3, 2],
        ..hello("node-1", 0)
    };
    let talkative = v1::Hello {
        addresses: vec!["10.0.0.1".to_owned(); 33],
        ..hello("node-1", 0)
    };
    for (hello, code) in [
        (newer, Code::FailedPrecondition),
        (talkative, Code::InvalidArgument),
    ] {
        let refused = replica.stream("token-of-node-1", hello).await;
        assert_eq!(refused.map(|_| ()).unwrap_err().code(), code);
    }
}

/// HK-11: an acknowledgement of a version that was never sent ends the stream.
#[tokio::test]
async fn acknowledging_what_was_never_sent_ends_the_stream() {
    let replica = TestReplica::start().await;
    replica.place(record("a", 11, 1));
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    node.batch().await;
    let ack = |applied_version| v1::Report {
        applied_version,
        revisions_complete: true,
        ..v1::Report::default()
    };
    node.report(ack(11)).await;
    replica
        .wait_for_fleet(|fleet| {
            fleet
                .nodes()
                .iter()
                .any(|node| node.live && node.applied_version == 11)
        })
        .await;
    node.report(ack(12)).await;
    assert_eq!(node.goodbye().await.reason, "ack_of_the_future");
}

/// HK-11: of many exceptions 64 are kept, shortened and without control characters; the rest is counted.
#[tokio::test]
async fn no_more_than_64_exceptions_are_kept_and_the_rest_is_counted() {
    let replica = TestReplica::start().await;
    let node = replica.node("node-1", 0).await;
    let exception = |n: usize| v1::NodeException {
        function: Some((&FunctionKey::new("shop", "a")).into()),
        revision: format!("a-{n}"),
        reason: "DigestMismatch".to_owned(),
        message: format!("\u{1b}[31m{}", "ö".repeat(300)),
        since: 1,
    };
    node.report(v1::Report {
        exceptions: (0..100).map(exception).collect(),
        exceptions_dropped: 5,
        revisions_complete: true,
        ..v1::Report::default()
    })
    .await;
    replica
        .wait_for_fleet(|fleet| fleet.nodes().iter().any(|node| node.live))
        .await;
    let seen = replica.fleet.nodes().remove(0);
    assert_eq!((seen.exceptions.len(), seen.exceptions_dropped), (64, 41));
    let message = &seen.exceptions[0].message;
    assert!(message.len() <= 256 && !message.chars().any(char::is_control));
    let on_function = replica.fleet.function_nodes(&FunctionKey::new("shop", "a"));
    assert_eq!(on_function[0].exceptions.len(), 64);
}

/// HK-11: one identity has at most two streams, and that does not affect other identities.
#[tokio::test]
async fn a_node_has_two_streams_and_no_third() {
    let replica = TestReplica::start().await;
    let mut first = replica.node("node-1", 0).await;
    let mut second = replica.node("node-1", 0).await;
    first.welcome().await;
    second.welcome().await;
    let mut third = replica.node("node-1", 0).await;
    assert_eq!(third.goodbye().await.reason, "too_many_streams");
    replica.node("node-2", 0).await.welcome().await;
    drop(first);
    loop {
        let mut again = replica.node("node-1", 0).await;
        match again.next().await {
            Some(Down::Welcome(_)) => break,
            Some(Down::Goodbye(_)) => tokio::task::yield_now().await,
            other => panic!("{other:?}"),
        }
    }
}

/// FC-15: a replica without complete lists sends nodes away instead of sending them an empty table.
#[tokio::test]
async fn no_node_is_served_before_the_caches_are_complete() {
    let replica = TestReplica::with(|_| {}).await;
    let mut early = replica.node("node-1", 0).await;
    let goodbye = early.goodbye().await;
    assert_eq!(goodbye.reason, "starting");
    assert!(goodbye.retry_after > 0);
    replica.tables.synced(10);
    replica.node("node-1", 0).await.welcome().await;
}

/// FD-2: streams beyond the limit per second receive a time to return.
#[tokio::test]
async fn too_many_new_streams_are_sent_away_for_a_while() {
    let replica = TestReplica::with(|settings| settings.new_streams_per_second = 1).await;
    replica.tables.synced(10);
    replica.node("node-1", 0).await.welcome().await;
    let goodbye = replica.node("node-2", 0).await.goodbye().await;
    assert_eq!(goodbye.reason, "busy");
    assert!(goodbye.retry_after >= 1_000);
}

fn increments(sequence: u64, absolute: bool) -> v1::Report {
    v1::Report {
        revisions_complete: true,
        counters: Some(v1::CounterFrame {
            boot_id: 7,
            sequence,
            absolute,
            ..v1::CounterFrame::default()
        }),
        ..v1::Report::default()
    }
}

#[tokio::test]
async fn after_a_gap_absolute_counters_are_requested_and_required() {
    let replica = TestReplica::start().await;
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    node.batch().await;
    node.report(increments(1, true)).await;
    node.report(increments(3, false)).await;
    let asked = node.next().await;
    assert!(matches!(asked, Some(Down::CountersWanted(_))), "{asked:?}");
    node.report(increments(4, true)).await;
    node.report(increments(5, false)).await;
    for sequence in 7..=11 {
        node.report(increments(sequence, false)).await;
    }
    assert_eq!(node.goodbye().await.reason, "counters_gap");
    let count = |result| replica.meter.reports.with_label_values(&[result]).get();
    assert_eq!((count("frame_applied"), count("frame_gap")), (3, 6));
}

/// HK-11: above its byte budget a node loses counters, which is counted, and nothing that a rollback needs.
#[tokio::test]
async fn a_node_above_its_byte_budget_loses_counters_but_no_revisions() {
    let replica = TestReplica::with(|settings| settings.report_bytes_per_second = 1).await;
    replica.tables.synced(10);
    let node = replica.node("node-1", 0).await;
    let mut report = increments(1, true);
    report.revisions = vec![v1::RevisionState {
        function: Some((&FunctionKey::new("shop", "a")).into()),
        revision: "a-1".to_owned(),
        state: v1::LoadState::Loaded.into(),
        permanent: false,
        applied: Some(v1::FencingToken {
            epoch: 4,
            serial: 9,
        }),
    }];
    node.report(report).await;
    replica
        .wait_for_fleet(|fleet| fleet.nodes().iter().any(|node| node.live))
        .await;
    let over = replica
        .meter
        .reports
        .with_label_values(&["over_budget"])
        .get();
    assert_eq!(over, 1);
    let seen = replica.fleet.function_nodes(&FunctionKey::new("shop", "a"));
    assert_eq!(seen[0].revisions[0].applied, Some(FencingToken::new(4, 9)));
    assert_eq!(replica.fleet.max_epoch_seen(), 4);
}

/// HK-11: connections that do not speak TLS are closed, and an open stream is not affected.
#[tokio::test]
async fn connections_with_garbage_are_closed_and_disturb_no_node() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let replica = TestReplica::start().await;
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    node.batch().await;
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        // The head of a handshake of 16 kB, followed by something else.
        [b"\x16\x03\x01\x40\x00".as_slice(), &[7; 20_000]].concat(),
    ] {
        let mut stream = tokio::net::TcpStream::connect(replica.address)
            .await
            .unwrap();
        // The server may close the connection while the client still writes.
        let _ = stream.write_all(&garbage).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let closed = tokio::time::timeout(std::time::Duration::from_secs(60), read).await;
        assert!(closed.is_ok(), "still open: {:?}", &garbage[..8]);
        assert!(answer.len() < 100, "more than an alert: {answer:?}");
    }
    replica.place(record("a", 11, 1));
    assert_eq!(names(&node.batch().await), ["a"]);
}

/// HK-11: a frame above the limit ends the stream.
#[tokio::test]
async fn a_message_above_the_limit_ends_the_stream() {
    let replica = TestReplica::with(|settings| settings.frame_bytes = 10_000).await;
    replica.tables.synced(10);
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    let mut report = v1::Report::default();
    report.exceptions.push(v1::NodeException {
        message: "x".repeat(20_000),
        ..v1::NodeException::default()
    });
    node.report(report).await;
    assert_eq!(node.goodbye().await.reason, "malformed");
}

/// FD-7: a stream ends in time to be authenticated with a newer token.
#[tokio::test]
async fn a_stream_is_authenticated_again_in_time_and_a_review_is_cached_until_then() {
    let replica = TestReplica::with(|settings| {
        settings.reauthenticate = std::time::Duration::from_millis(500)
    })
    .await;
    replica.tables.synced(10);
    let mut first = replica.node("node-1", 0).await;
    let mut second = replica.node("node-1", 0).await;
    let asked = || {
        replica
            .reviewer
            .asked
            .load(std::sync::atomic::Ordering::SeqCst)
    };
    assert_eq!(asked(), 1);
    let goodbye = first.goodbye().await;
    assert_eq!(
        (goodbye.reason.as_str(), goodbye.retry_after),
        ("reauthenticate", 0)
    );
    assert_eq!(second.goodbye().await.reason, "reauthenticate");
    replica.node("node-1", 0).await.welcome().await;
    assert_eq!(asked(), 2);
}

/// FD-1: a replica that stops sends its nodes to another one at once.
#[tokio::test]
async fn a_replica_that_stops_sends_its_nodes_elsewhere() {
    let replica = TestReplica::start().await;
    let mut node = replica.node("node-1", 0).await;
    node.welcome().await;
    replica.stop.cancel();
    let goodbye = node.goodbye().await;
    assert_eq!(
        (goodbye.reason.as_str(), goodbye.retry_after),
        ("stopping", 0)
    );
}

/// FD-7: a new CA and certificate are used from the next handshake on; open streams stay.
#[tokio::test]
async fn certificates_are_replaced_under_open_streams() {
    let replica = TestReplica::start().await;
    let mut before = replica.node("node-1", 0).await;
    before.welcome().await;
    before.batch().await;
    let newer = super::super::super::tls::make(jiff::Timestamp::now()).unwrap();
    replica.tls.replace(&newer).unwrap();
    assert!(
        replica
            .client_trusting(&replica.material.ca_crt)
            .await
            .is_err()
    );
    let both = format!("{}{}", replica.material.ca_crt, newer.ca_crt);
    assert!(replica.client_trusting(&both).await.is_ok());
    replica.place(record("a", 11, 1));
    assert_eq!(names(&before.batch().await), ["a"]);
}
