//! Calls between functions of one node.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use node_shim::counters::CounterTable;
use node_shim::routing_table::{
    RemoteFunction, RemoteNodes, RevisionSlot, RoutingTable, ServedFunction,
};
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::table::{FunctionEntry, FunctionKey, RevisionName, Route, TrafficSplit};
use node_shim_core::validation::Rejection;

use super::origin::{Reaction, TestNetwork};
use super::{counted, messages, setup};
use crate::support::h2;
use crate::support::node::{Node, Setup, eventually, served};
use crate::support::outbound::Call;
use crate::support::wire::{Reply, Wire, once};
use crate::{guests, trailers};

/// Host of the function that [`calling_b`] calls.
pub(super) const B: &str = "b.ns.selvage.internal";

/// Functions of a node. The name of each is that of its host in `.example`.
pub(super) struct Functions {
    setup: Setup,
    counters: Arc<CounterTable>,
    pub(super) network: Arc<TestNetwork>,
    served: Vec<ServedFunction>,
    /// Functions of other nodes.
    remote: Vec<RemoteFunction>,
}

impl Functions {
    /// Functions that may call `a` and `b` of the namespace `ns`. A connection would be refused.
    pub(super) fn new() -> Self {
        Self::allowing(&["function://ns/a", "function://ns/b"])
    }

    /// Functions with these entries of `egress.allow`. A connection would be refused.
    pub(super) fn allowing(entries: &[&str]) -> Self {
        let network = TestNetwork::new(Reaction::Refuse);
        Self {
            setup: setup(&network, entries),
            counters: CounterTable::new(),
            network,
            served: Vec::new(),
            remote: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, namespace: &str, name: &str, wasm: &[u8]) {
        let key = FunctionKey::new(namespace, name);
        let revision = self.setup.revision_of(key, "r1", wasm, &self.counters);
        let route = Route {
            hosts: vec![format!("{name}.example")],
            ..Route::default()
        };
        self.served.push(served(&revision, vec![route]));
    }

    /// Adds a function without routes that is placed on other nodes.
    pub(super) fn add_remote(&mut self, namespace: &str, name: &str, nodes: Arc<RemoteNodes>) {
        let entry = FunctionEntry {
            key: FunctionKey::new(namespace, name),
            created_ms: 0,
            routes: Vec::new(),
            suspended: false,
            callers: Vec::new(),
            split: TrafficSplit::default(),
        };
        let entry = Arc::new(entry);
        self.remote.push(RemoteFunction { entry, nodes });
    }

    /// Changes the function of other nodes that was added last.
    pub(super) fn change_remote(&mut self, change: impl FnOnce(&mut FunctionEntry)) {
        let remote = self.remote.last_mut().unwrap();
        change(Arc::make_mut(&mut remote.entry));
    }

    /// Changes the function that was added last.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut ServedFunction)) {
        change(self.served.last_mut().unwrap());
    }

    /// Changes the node.
    pub(super) fn change_setup(&mut self, change: impl FnOnce(&mut Setup)) {
        change(&mut self.setup);
    }

    pub(super) fn start(&self) -> Node {
        let node = self.setup.start_empty(self.counters.clone());
        self.publish(&node);
        node
    }

    /// Gives a node the functions as they are now.
    pub(super) fn publish(&self, node: &Node) {
        let (served, remote) = (self.served.clone(), self.remote.clone());
        let table = RoutingTable::default().with_all(1, served, remote);
        node.plane.publish(Arc::new(table));
        node.plane.set_ready(true);
    }
}

/// A function `a` that calls `b`, which is this guest.
pub(super) fn calling_b(call: &Call<'_>, b: &[u8]) -> Functions {
    let mut functions = Functions::new();
    functions.add("ns", "a", &call.guest());
    functions.add("ns", "b", b);
    functions
}

pub(super) fn ask(node: &Node, host: &str) -> Reply {
    once(
        node.address(),
        format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n"),
    )
}

pub(super) fn rejected(node: &Node, rejection: Rejection) -> u64 {
    let mut all = node.plane.node_counters().rejections();
    all.find(|(one, _)| *one == rejection).unwrap().1
}

#[test]
fn a_function_calls_another_on_its_node() {
    let call = Call {
        path: "/v1?x=1",
        ..Call::get("B.ns.Selvage.internal.")
    };
    let functions = calling_b(&call, &guests::MIRROR);
    let node = functions.start();
    let reply = ask(&node, "a.example");
    let text = reply.text();
    assert_eq!((reply.status, reply.whole), (200, true), "{text}");
    let mut lines: Vec<_> = text.lines().collect();
    assert_eq!(&lines[..2], ["/v1?x=1", B]);
    lines.drain(..2);
    lines.sort_unstable();
    let names: Vec<_> = lines
        .iter()
        .filter_map(|line| line.split(':').next())
        .collect();
    let expected = [
        "traceparent",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    ];
    assert_eq!(names, expected);
    // both count the request once, and the caller counts that it sent one
    assert_eq!(node.outcomes(2), ["ok 2xx 1", "ok 2xx 1"]);
    assert_eq!(counted(&node), ["requests_total outcome=response 1"]);
    assert!(functions.network.connected().is_empty(), "it left the node");
    node.is_quiet();
}

/// HH-19: the name is one between functions.
#[test]
fn hh_19_no_client_reaches_a_function_by_the_name_of_calls() {
    let mut functions = Functions::new();
    functions.add("ns", "b", &guests::ANSWER);
    functions.change(|served| {
        let mut entry = (*served.entry).clone();
        entry.routes[0].hosts = vec!["*".into(), B.into()];
        served.entry = Arc::new(entry);
    });
    let node = functions.start();
    assert_eq!(ask(&node, "other.example").status, 200);
    for host in [B, "b.ns.SELVAGE.internal.:80", "selvage.internal"] {
        assert_eq!(
            ask(&node, host).status_and_error(),
            (404, "no_route"),
            "{host}"
        );
    }
}

/// HE-11: entry, host, error code, and what is counted.
#[test]
fn calls_are_denied_or_refused() {
    let table = [
        (
            "http://api.example",
            B,
            15,
            "denied_total reason=not_allowed",
        ),
        ("function://ns/a", B, 15, "denied_total reason=not_allowed"),
        // a function of another namespace
        (
            "function://other/b",
            "b.other.selvage.internal",
            15,
            "denied_total reason=not_granted",
        ),
        (
            "function://ns/b",
            "b.ns.selvage.internal:8080",
            19,
            "denied_total reason=invalid_target",
        ),
        (
            "function://ns/b",
            "x.b.ns.selvage.internal",
            19,
            "denied_total reason=invalid_target",
        ),
        // on no node
        (
            "function://ns/none",
            "none.ns.selvage.internal",
            6,
            "requests_total outcome=connect",
        ),
    ];
    for (entry, host, code, line) in table {
        let mut functions = Functions::new();
        functions.setup.egress = vec![entry.into()];
        functions.network.name(host, &[&["93.184.216.34"]]);
        functions.add("ns", "a", &Call::get(host).guest());
        functions.add("ns", "b", &guests::ANSWER);
        functions.add("other", "b", &guests::ANSWER);
        let node = functions.start();
        assert_eq!(ask(&node, "a.example").status, 200 + code, "{entry} {host}");
        assert_eq!(counted(&node), [format!("{line} 1")], "{entry} {host}");
        assert!(functions.network.connected().is_empty());
        assert_eq!(node.outcomes(1).len(), 1, "no function was called");
        let help = match (entry, code) {
            ("function://other/b", _) => "callers: [{namespace: \"ns\", name: \"a\"}]",
            (_, 15) => "egress.allow: [\"function://ns/b\"]",
            (_, 6) => "there is no such function",
            _ => "http://<function>.<namespace>.selvage.internal",
        };
        eventually("the log helps", || {
            messages(&node).iter().any(|line| line.contains(help))
        });
    }
}

/// The caller receives what a client would receive.
#[test]
fn a_called_function_that_cannot_serve_answers_as_to_a_client() {
    type Change = fn(&mut ServedFunction);
    let suspended: Change = |served| {
        let mut entry = (*served.entry).clone();
        entry.suspended = true;
        served.entry = Arc::new(entry);
    };
    let changes: [(&[u8], &str, Change, u16); 6] = [
        (&guests::ANSWER, "/", suspended, 503),
        (
            &guests::ANSWER,
            "/",
            |served| served.stable = RevisionSlot::Failed(FailureReason::SecretsUnavailable),
            503,
        ),
        (
            &guests::ANSWER,
            "/",
            |served| served.stable = RevisionSlot::Absent,
            503,
        ),
        (&guests::TRAP, "/", |_| {}, 500),
        (&guests::SILENT, "/", |_| {}, 502),
        (&guests::ANSWER, "/a/../b", |_| {}, 400),
    ];
    for (at, (wasm, path, change, status)) in changes.into_iter().enumerate() {
        let call = Call {
            path,
            ..Call::get(B)
        };
        let mut functions = calling_b(&call, wasm);
        functions.change(change);
        let node = functions.start();
        assert_eq!(ask(&node, "a.example").status, status, "{at}");
        node.is_quiet();
    }
}

/// A call never waits for a permit, because its caller holds one.
#[test]
fn a_call_does_not_wait_in_the_queue() {
    let mut functions = Functions::new();
    functions.add("ns", "a", &Call::get(B).guest());
    functions.setup.limits.concurrency = 1;
    functions.setup.limits.queue_timeout = Duration::from_secs(3_600);
    functions.add("ns", "b", &guests::SLEEP_IN_BODY);
    let node = functions.start();
    let mut holds = Wire::connect(node.address());
    holds.send("GET / HTTP/1.1\r\nhost: b.example\r\n\r\n");
    while holds.line().unwrap() != "part" {}
    assert_eq!(ask(&node, "a.example").status, 503);
    node.outcomes(2);
    assert_eq!(node.failures(), ["concurrency 1"]);
    holds.reset();
    node.is_quiet();
}

/// The weights of the called function divide its calls, like the requests of clients.
#[test]
fn the_called_function_chooses_its_revision() {
    let mut functions = calling_b(&Call::get(B), &guests::status(201));
    let key = FunctionKey::new("ns", "b");
    let setup = &functions.setup;
    let candidate = setup.revision_of(key, "r2", &guests::status(202), &functions.counters);
    let node = functions.start();
    for (weight, status) in [(10_000, 202), (0, 201)] {
        functions.change(|served| {
            let split = TrafficSplit {
                candidate: RevisionName::new("r2"),
                weight,
                ..served.entry.split.clone()
            };
            served.entry = Arc::new(FunctionEntry {
                split,
                ..(*served.entry).clone()
            });
            served.candidate = RevisionSlot::Ready(candidate.clone());
        });
        functions.publish(&node);
        for _ in 0..5 {
            assert_eq!(ask(&node, "a.example").status, status);
        }
    }
    node.outcomes(20);
    let all = node.plane.counters().snapshot(|_| true);
    let live = |r: &node_shim::counters::RevisionSnapshot| {
        r.populations[0]
            .requests
            .iter()
            .map(|r| r.count)
            .sum::<u64>()
    };
    let mut totals: Vec<u64> = all.iter().map(live).collect();
    totals.sort_unstable();
    assert_eq!(totals, [5, 5, 10], "both revisions of b, and a");
}

/// HG-21: a function that calls itself, and two that call each other, end with 508 after eight calls.
#[test]
fn hg_21_a_loop_ends() {
    for (a, b) in [("a", "a"), ("b", "a")] {
        let mut functions = Functions::new();
        for (name, next) in [("a", a), ("b", b)] {
            let host = format!("{next}.ns.selvage.internal");
            functions.add("ns", name, &Call::get(&host).guest());
        }
        let node = functions.start();
        assert_eq!(ask(&node, "a.example").status, 508, "a calls {a}");
        let counts = node.outcomes(9);
        let total: u64 = counts
            .iter()
            .map(|line| {
                line.strip_prefix("ok 5xx ")
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum();
        assert_eq!(total, 9, "{counts:?}");
        assert_eq!(rejected(&node, Rejection::Loop), 1);
        node.is_quiet();
    }
}

#[test]
fn bodies_of_calls_are_streamed() {
    // more than the node would keep in memory
    let size = 3 << 20;
    let call = Call {
        post: true,
        ..Call::get(B)
    };
    let node = calling_b(&call, &guests::SINK).start();
    let mut wire = Wire::connect(node.address());
    wire.send(format!(
        "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {size}\r\n\r\n"
    ));
    wire.send(vec![b'x'; size]);
    let reply = wire.read().unwrap();
    assert_eq!((reply.status, &*reply.text()), (200, "done"));

    let node = calling_b(&Call::get(B), &guests::chunks(768)).start();
    let reply = ask(&node, "a.example");
    assert_eq!((reply.whole, reply.body.len()), (true, 3 << 20));
    assert_eq!(node.outcomes(2), ["ok 2xx 1", "ok 2xx 1"]);

    // a body that breaks off is not complete for the caller
    let node = calling_b(&Call::get(B), &guests::TRAP_IN_BODY).start();
    let reply = ask(&node, "a.example");
    assert_eq!((&*reply.text(), reply.whole), ("part", false));
    let limit = |setup: &mut Setup| setup.limits.request_body = 1_000;
    let mut functions = Functions::new();
    functions.add("ns", "a", &call.guest());
    limit(&mut functions.setup);
    functions.add("ns", "b", &guests::SINK);
    let node = functions.start();
    let mut wire = Wire::connect(node.address());
    wire.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2000\r\n\r\n");
    wire.send(vec![b'x'; 2_000]);
    assert_eq!(wire.read().unwrap().status, 413);
}

#[tokio::test]
async fn trailers_of_a_call_reach_the_caller() {
    let mut functions = Functions::new();
    functions.add("ns", "h", &Call::get(B).passing_trailers());
    functions.add("ns", "b", &trailers::guest("", ""));
    let node = functions.start();
    let response = h2::get(node.address(), "/").await;
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().unwrap().clone();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    assert_eq!(collected.to_bytes(), "hello\n");
    assert_eq!(node.outcomes(2), ["ok 2xx 1", "ok 2xx 1"]);
}

/// A client that leaves ends its function and what that has called, before the head of the response and after it.
#[test]
fn a_called_function_ends_with_its_caller() {
    for (b, part) in [(&guests::SLEEP, false), (&guests::SLEEP_IN_BODY, true)] {
        let node = calling_b(&Call::get(B), b).start();
        let slots = node.slots();
        let mut wire = Wire::connect(node.address());
        wire.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n");
        if part {
            // streamed to the client while the called function runs
            while wire.line().unwrap() != "part" {}
        } else {
            eventually("both functions run", || {
                slots - node.plane.free_instance_slots() >= 2
            });
        }
        wire.reset();
        node.is_quiet();
        let outcomes = node.outcomes(2);
        assert!(
            outcomes.iter().all(|line| line.starts_with("client")),
            "{outcomes:?}"
        );
    }
}

/// A caller that is not interested in the rest of a response ends the called function.
#[test]
fn a_response_that_is_dropped_ends_the_called_function() {
    let ignoring = |b: &[u8]| {
        let mut functions = Functions::new();
        functions.add("ns", "a", &Call::get(B).ignoring());
        functions.add("ns", "b", b);
        functions.start()
    };
    let node = ignoring(&guests::SLEEP_IN_BODY);
    assert_eq!(ask(&node, "a.example").status, 204);
    node.is_quiet();
    let mut outcomes = node.outcomes(2);
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["client 2xx 1", "ok 2xx 1"]);

    // a complete response was delivered, whatever the caller does with it; if an epoch ends inside the guest, the head
    // is delivered before
    eventually("a complete response counts as successful", || {
        let node = ignoring(&guests::ANSWER);
        assert_eq!(ask(&node, "a.example").status, 204);
        node.outcomes(2) == ["ok 2xx 1", "ok 2xx 1"]
    });
}

/// The end of the caller's time does not count against the called function, which kept its own limits.
#[test]
fn a_called_function_has_the_time_that_its_caller_has_left() {
    let mut functions = Functions::new();
    functions.setup.limits.timeout = Duration::from_millis(300);
    functions.add("ns", "a", &Call::get(B).guest());
    functions.setup.limits.timeout = Duration::from_secs(3_600);
    functions.setup.limits.first_byte = Duration::from_secs(3_600);
    functions.add("ns", "b", &guests::SLEEP);
    let node = functions.start();
    let reply = ask(&node, "a.example");
    assert_eq!(reply.status_and_error(), (504, "deadline"));
    node.is_quiet();
    let mut outcomes = node.outcomes(2);
    outcomes.sort_unstable();
    assert!(outcomes[0].starts_with("client"), "{outcomes:?}");
    assert_eq!(outcomes[1], "deadline 5xx 1");
}
