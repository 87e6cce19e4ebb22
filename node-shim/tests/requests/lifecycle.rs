//! Concurrency limits, traffic splits, disconnecting clients and shutdown.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use node_shim::counters::CounterTable;
use node_shim::routing_table::RevisionSlot;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::request_labels::Population;
use node_shim_core::table::{FunctionEntry, RevisionName, TrafficSplit};
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType};

use crate::guests;
use crate::support::h2;
use crate::support::node::{Node, Setup, eventually, served};
use crate::support::wire::{Wire, get, once};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// HG-19: outcome `client`, and all slots are freed. A client that only closes its direction still waits.
#[test]
fn hg_19_disconnecting_clients_cancel_their_guests() {
    let node = Node::serve(&guests::SLEEP);
    for _ in 0..50 {
        let mut wire = Wire::connect(node.address());
        wire.send(GET);
        wire.reset();
    }
    // half of them with a body
    for _ in 0..50 {
        let mut wire = Wire::connect(node.address());
        wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nabcde");
        eventually("the guest runs", || {
            node.plane.free_instance_slots() < node.slots()
        });
        wire.reset();
        node.is_quiet();
    }
    node.is_quiet();
    let outcomes = node.outcomes(50);
    assert!(
        outcomes.iter().all(|o| o.starts_with("client none ")),
        "{outcomes:?}"
    );
}

/// HG-19: the same after the head has been sent.
#[test]
fn hg_19_a_client_that_disconnects_during_the_body_cancels_its_guest() {
    let node = Node::serve(&guests::SLEEP_IN_BODY);
    let mut wire = Wire::connect(node.address());
    wire.send(GET);
    assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
    wire.reset();
    assert_eq!(node.outcomes(1), ["client 2xx 1"]);
    node.is_quiet();
}

/// FN-8: requests above the concurrency limit wait; those that wait too long or do not fit the queue get 503.
#[test]
fn a_saturated_function_queues_then_rejects() {
    let node = Setup::limits(|l| {
        l.concurrency = 1;
        l.queue_length = 1;
        l.queue_timeout = Duration::from_millis(300);
        l.timeout = Duration::from_secs(20);
    })
    .start(&guests::SLEEP);
    let mut running = Wire::connect(node.address());
    running.send(GET);
    eventually("the first runs", || {
        node.plane.free_instance_slots() < node.slots()
    });
    let mut waiting = Wire::connect(node.address());
    waiting.send(GET);
    let shown = node.plane.counters().shown();
    let mut refused = get(node.address(), "/");
    if refused.header("retry-after").is_none() {
        refused = get(node.address(), "/");
    }
    assert_eq!(refused.status_and_error(), (503, "overloaded"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(
        waiting.read().unwrap().status_and_error(),
        (503, "overloaded")
    );
    running.reset();
    node.outcomes(3);
    let saturated: u64 = shown
        .iter()
        .map(|c| c.snapshot().populations[0].saturated)
        .sum();
    assert_eq!(saturated, 2);
    node.is_quiet();
}

fn split(stable: &str, candidate: &str, weight: u32) -> TrafficSplit {
    TrafficSplit {
        stable: RevisionName::new(stable),
        candidate: RevisionName::new(candidate),
        weight,
        ..TrafficSplit::default()
    }
}

#[test]
fn traffic_is_split_by_weight_and_an_unloaded_candidate_falls_back() {
    let setup = Setup::default();
    let counters = CounterTable::new();
    let good = setup.revision("good", &guests::ANSWER, &counters);
    let bad = setup.revision("bad", &guests::TRAP, &counters);
    let node = setup.start_empty(counters);
    let publish = |split: TrafficSplit, candidate: RevisionSlot| {
        let mut entry = served(&good, setup.routes.clone());
        entry.entry = Arc::new(FunctionEntry {
            split,
            ..(*entry.entry).clone()
        });
        entry.candidate = candidate;
        node.publish(vec![entry]);
    };
    let all = |status: u16| (0..20).all(|_| get(node.address(), "/").status == status);
    publish(split("good", "bad", 0), RevisionSlot::Ready(bad.clone()));
    assert!(all(200));
    publish(
        split("good", "bad", 10_000),
        RevisionSlot::Ready(bad.clone()),
    );
    assert!(all(500));
    publish(
        split("good", "bad", 10_000),
        RevisionSlot::Failed(FailureReason::Unloadable),
    );
    assert!(all(200));
    assert_eq!(node.plane.node_counters().fallbacks(), 20);
    publish(split("good", "bad", 5_000), RevisionSlot::Ready(bad));
    let traps = (0..200)
        .filter(|_| get(node.address(), "/").status == 500)
        .count();
    // a binomial variable of 200 and 1/2 is outside of this range with a probability below 1e-9
    assert!((56..=144).contains(&traps), "{traps}");
}

/// A port-forward reaches a candidate at weight 0, and what it asks is no evidence.
#[test]
fn a_client_in_the_pod_can_name_the_revision() {
    let setup = Setup::default();
    let counters = CounterTable::new();
    let good = setup.revision("good", &guests::ANSWER, &counters);
    let bad = setup.revision("bad", &guests::TRAP, &counters);
    let node = setup.start_empty(counters);
    let publish = |weight, candidate: RevisionSlot| {
        let mut entry = served(&good, setup.routes.clone());
        entry.entry = Arc::new(FunctionEntry {
            split: split("good", "bad", weight),
            ..(*entry.entry).clone()
        });
        entry.candidate = candidate;
        node.publish(vec![entry]);
    };
    let ask = |revision: &str| {
        let fields = format!("host: a\r\nselvage-revision: {revision}");
        let reply = once(
            node.address(),
            format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n"),
        );
        let (status, error) = reply.status_and_error();
        (status, error.to_owned())
    };
    publish(0, RevisionSlot::Ready(bad.clone()));
    let expect = |revision: &str, status: u16, error: &str| {
        assert_eq!(ask(revision), (status, error.to_owned()), "{revision}");
    };
    expect("bad", 500, "trap");
    expect("good", 200, "");
    expect("other", 404, "no_revision");
    publish(10_000, RevisionSlot::Ready(bad));
    expect("good", 200, "");
    publish(0, RevisionSlot::Loading);
    expect("bad", 503, "loading");
    let counted = |population: Population| -> u64 {
        let shown = node.plane.counters().all();
        let snapshots = shown.iter().flat_map(|one| one.snapshot().populations);
        let counted = snapshots.filter(|one| one.population == population);
        counted
            .flat_map(|one| one.requests)
            .map(|one| one.count)
            .sum()
    };
    eventually("requests are counted", || counted(Population::Preview) == 3);
    assert_eq!(counted(Population::Live), 0);
    node.is_quiet();
}

/// A load test of a candidate through a port-forward would otherwise take the few permits of its live requests, and that counts
/// against it.
#[test]
fn requests_that_name_the_revision_take_no_permit_of_others() {
    let setup = Setup::limits(|l| {
        l.concurrency = 1;
        l.queue_length = 0;
        l.timeout = Duration::from_secs(20);
    });
    let counters = CounterTable::new();
    let revision = setup.revision("slow", &guests::SLEEP, &counters);
    let node = setup.start_empty(counters);
    node.publish(vec![served(&revision, setup.routes.clone())]);
    let slots = node.slots();
    let send = |head: &str, running: usize| {
        let mut wire = Wire::connect(node.address());
        wire.send(head);
        eventually("the guest runs", || {
            node.plane.free_instance_slots() == slots - running
        });
        wire
    };
    let named = "GET / HTTP/1.1\r\nhost: a\r\nselvage-revision: slow\r\n\r\n";
    let running = [send(named, 1), send(GET, 2)];
    for head in [named, GET] {
        let reply = once(node.address(), head);
        assert_eq!(reply.status_and_error(), (503, "overloaded"));
    }
    running.into_iter().for_each(Wire::reset);
    node.is_quiet();
}

#[test]
fn a_request_that_waits_for_code_counts_as_cold() {
    let setup = Setup::default();
    let counters = CounterTable::new();
    let revision = setup.revision("r1", &guests::ANSWER, &counters);
    let node = setup.start_empty(counters);
    let mut loading = served(&revision, setup.routes.clone());
    loading.stable = RevisionSlot::Loading;
    node.publish(vec![loading]);
    let mut wire = Wire::connect(node.address());
    wire.send(GET);
    eventually("it waits", || node.plane.open_connections() == 1);
    node.publish(vec![served(&revision, setup.routes.clone())]);
    assert_eq!(wire.read().unwrap().status, 200);
    node.outcomes(1);
    let mut failed = served(&revision, setup.routes.clone());
    failed.stable = RevisionSlot::Failed(FailureReason::SecretsUnavailable);
    node.publish(vec![failed]);
    assert_eq!(
        get(node.address(), "/").status_and_error(),
        (503, "secrets_unavailable")
    );
}

/// The reason names what the client waits for. It is not the load of the node.
#[test]
fn a_request_for_code_that_is_not_loaded_in_time_gets_the_reason_loading() {
    let setup = Setup::default();
    let revision = setup.revision("r1", &guests::ANSWER, &CounterTable::new());
    let node = setup.start_empty(CounterTable::new());
    let mut loading = served(&revision, setup.routes.clone());
    loading.stable = RevisionSlot::Loading;
    node.publish(vec![loading]);
    let refused = get(node.address(), "/");
    assert_eq!(refused.status_and_error(), (503, "loading"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(node.outcomes(1), ["overloaded 5xx 1"]);
    assert_eq!(node.failures(), ["compile 1"]);
}

#[test]
fn a_client_that_leaves_while_code_loads_is_counted() {
    let setup = Setup::default();
    // the node has no counters of the revision yet
    let revision = setup.revision("r1", &guests::ANSWER, &CounterTable::new());
    let node = setup.start_empty(CounterTable::new());
    let mut loading = served(&revision, setup.routes.clone());
    loading.stable = RevisionSlot::Loading;
    node.publish(vec![loading]);
    let mut wire = Wire::connect(node.address());
    wire.send(GET);
    eventually("it waits", || !node.plane.counters().all().is_empty());
    wire.reset();
    assert_eq!(node.outcomes(1), ["client none 1"]);
    assert_eq!(node.failures(), ["client_gone 1"]);
}

/// Requests that nothing can serve do not wait for code.
#[test]
fn a_function_without_a_revision_that_can_run_responds_at_once() {
    let setup = Setup::default();
    let revision = setup.revision("r1", &guests::ANSWER, &CounterTable::new());
    let node = setup.start_empty(CounterTable::new());
    let publish = |candidate: Option<RevisionName>, slot: RevisionSlot| {
        let mut first = served(&revision, setup.routes.clone());
        first.entry = Arc::new(FunctionEntry {
            split: TrafficSplit {
                candidate,
                ..TrafficSplit::default()
            },
            ..(*first.entry).clone()
        });
        first.stable = RevisionSlot::Absent;
        first.candidate = slot;
        node.publish(vec![first]);
    };
    let failed = RevisionSlot::Failed(FailureReason::Unloadable);
    publish(RevisionName::new("r1"), failed);
    let refused = (503, "host_error");
    assert_eq!(get(node.address(), "/").status_and_error(), refused);
    // the operator has withdrawn the revision
    publish(None, RevisionSlot::Absent);
    assert_eq!(get(node.address(), "/").status_and_error(), refused);
    publish(
        RevisionName::new("r1"),
        RevisionSlot::Ready(revision.clone()),
    );
    assert_eq!(get(node.address(), "/").status, 200);
}

#[test]
fn requests_for_code_that_never_loaded_are_counted() {
    let setup = Setup::default();
    // the node has no counters of the revision yet
    let revision = setup.revision("r1", &guests::ANSWER, &CounterTable::new());
    let node = setup.start_empty(CounterTable::new());
    let mut failed = served(&revision, setup.routes.clone());
    failed.stable = RevisionSlot::Failed(FailureReason::SecretsUnavailable);
    node.publish(vec![failed]);
    assert_eq!(
        get(node.address(), "/").status_and_error(),
        (503, "secrets_unavailable")
    );
    node.outcomes(1);
    assert_eq!(node.failures(), ["secrets_unavailable 1"]);
}

#[test]
fn a_suspended_function_responds_with_503() {
    let setup = Setup::default();
    let counters = CounterTable::new();
    let revision = setup.revision("r1", &guests::ANSWER, &counters);
    let node = setup.start_empty(counters);
    let mut entry = served(&revision, setup.routes.clone());
    entry.entry = Arc::new(FunctionEntry {
        suspended: true,
        callers: Vec::new(),
        ..(*entry.entry).clone()
    });
    node.publish(vec![entry]);
    assert_eq!(
        get(node.address(), "/").status_and_error(),
        (503, "suspended")
    );
}

/// Returns a socket that is bound and does not listen.
fn bound() -> TcpListener {
    let (family, socket_type) = (AddressFamily::INET, SocketType::STREAM);
    let socket = rustix::net::socket(family, socket_type, None).unwrap();
    set_socket_reuseaddr(&socket, true).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    rustix::net::bind(&socket, &address).unwrap();
    socket.into()
}

/// A port that is bound can still be taken by another program, which listens first.
#[test]
fn a_data_plane_that_cannot_listen_on_all_ports_can_be_opened_later() {
    let setup = Setup::default();
    let counters = CounterTable::new();
    let revision = setup.revision("r1", &guests::ANSWER, &counters);
    let node = setup.start_unopened(counters, bound());
    node.publish(vec![served(&revision, setup.routes.clone())]);
    let other = TcpListener::bind(node.address()).unwrap();
    for _ in 0..2 {
        let refused = node.plane.open().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    }
    drop(other);
    node.plane.open().unwrap();
    assert_eq!(get(node.address(), "/").status, 200);
}

/// FN-11: the health check detects whether the event loop of the data plane responds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_event_loop_is_detected() {
    let node = Node::serve(&guests::ANSWER);
    assert!(node.plane.responds_within(Duration::from_secs(30)).await);
    node.plane.drain(Duration::ZERO, Duration::ZERO).await;
    assert!(!node.plane.responds_within(Duration::from_millis(50)).await);
}

/// FN-3: the node and not the client ends the requests that are left at the end of a drain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_cut_at_the_end_of_a_drain_are_cancelled() {
    for (guest, code) in [(&guests::SLEEP, "none"), (&guests::SLEEP_IN_BODY, "2xx")] {
        let node = Node::serve(guest);
        let mut wire = Wire::connect(node.address());
        wire.send(GET);
        let mut sender = h2::connect(node.address()).await;
        let request = Request::get("http://h.example/").body(Full::default());
        let stream = tokio::spawn(async move { sender.send_request(request.unwrap()).await });
        eventually("both run", || {
            node.plane.free_instance_slots() == node.slots() - 2
        });
        if code == "2xx" {
            assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
            eventually("both have their heads", || stream.is_finished());
        }
        node.plane.drain(Duration::ZERO, Duration::ZERO).await;
        assert_eq!(node.outcomes(2), [format!("host_error {code} 2")]);
        assert_eq!(node.failures(), ["cancelled 2"]);
        drop((wire, stream));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_finishes_requests_in_progress() {
    let node = Arc::new(Node::serve(&guests::SLEEP_IN_BODY));
    let mut idle = Wire::connect(node.address());
    idle.send("GET /.well-known/selvage/ready HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.read().unwrap().status, 200);
    let mut running = Wire::connect(node.address());
    running.send(GET);
    assert_eq!(running.line().as_deref(), Some("HTTP/1.1 200 OK"));
    let draining = node.clone();
    let drain = tokio::spawn(async move {
        let propagation = Duration::from_secs(1);
        draining
            .plane
            .drain(propagation, Duration::from_millis(300))
            .await;
    });
    // further requests get `connection: close`
    let client = tokio::task::spawn_blocking(move || {
        let probe = "GET /.well-known/selvage/ready HTTP/1.1\r\nhost: a\r\n\r\n";
        loop {
            match idle.send(probe).read() {
                Some(reply) if reply.status == 200 => {}
                Some(reply) => {
                    assert_eq!(
                        (reply.status, reply.header("connection")),
                        (503, Some("close"))
                    );
                    assert!(idle.is_closed());
                    return;
                }
                // the machine was too busy to send the request in time
                None => return,
            }
        }
    });
    client.await.unwrap();
    drain.await.unwrap();
    // closed, gracefully or by a reset
    tokio::task::spawn_blocking(move || running.read_to_end())
        .await
        .unwrap();
    assert!(std::net::TcpStream::connect(node.address()).is_err());
}
