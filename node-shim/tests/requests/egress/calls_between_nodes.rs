//! Calls of functions that are placed on other nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use node_shim::routing_table::{RemoteNodes, RevisionSlot};
use node_shim_core::call::Hops;
use node_shim_core::forward_header::{
    Forwarded, ForwardedCall, ForwardedFrom, SignedForward, signed_bytes,
};
use node_shim_core::table::{Caller, FunctionKey};
use node_shim_core::validation::Rejection;
use sha2::Sha256;

use super::calls::{B, Functions, ask, calling_b, rejected};
use super::{counted, messages};
use crate::forward::{KEY, closed_port, forwards, nodes};
use crate::support::h2;
use crate::support::node::{Node, eventually};
use crate::support::outbound::Call;
use crate::support::wire::Wire;
use crate::{guests, trailers};

/// Starts a node with the functions and the key of the cluster.
fn start(functions: &Functions) -> Node {
    let node = functions.start();
    node.plane.set_hop_key(KEY);
    node
}

/// Starts a node with the function `b`, which has no route that the other node knows.
fn serving(b: &[u8]) -> Node {
    let mut functions = Functions::new();
    functions.add("ns", "b", b);
    start(&functions)
}

/// Functions of a node with `a`, which sends this call; `b` is on the nodes with these addresses.
fn calling(a: &[u8], addresses: &[SocketAddr]) -> Functions {
    let mut functions = Functions::new();
    functions.add("ns", "a", a);
    functions.add_remote("ns", "b", nodes(addresses));
    functions
}

/// Starts two nodes: one with `a`, which sends this call, and one with `b`.
fn between(call: &Call<'_>, b: &[u8]) -> (Node, Node) {
    let server = serving(b);
    let node = start(&calling(&call.guest(), &[server.address()]));
    (node, server)
}

#[test]
fn another_node_serves_a_call_as_this_one_would() {
    let call = Call {
        path: "/v1?x=1",
        ..Call::get("B.ns.Selvage.internal.")
    };
    let server = serving(&guests::MIRROR);
    let functions = calling(&call.guest(), &[server.address()]);
    let node = start(&functions);
    let here = calling_b(&call, &guests::MIRROR).start();
    let names = |node: &Node| {
        let reply = ask(node, "a.example");
        let text = reply.text();
        assert_eq!((reply.status, reply.whole), (200, true), "{text}");
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        for line in lines.iter_mut().skip(2) {
            line.truncate(line.find(':').unwrap());
        }
        lines[2..].sort_unstable();
        lines
    };
    assert_eq!(names(&node), names(&here));
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
    assert_eq!(server.outcomes(1), ["ok 2xx 1"]);
    assert_eq!(counted(&node), ["requests_total outcome=response 1"]);
    assert_eq!(forwards(&node), ["answered 1"]);
    assert!(functions.network.connected().is_empty(), "no name");
    node.is_quiet();
    server.is_quiet();
}

#[test]
fn bodies_pass_in_both_directions() {
    let size = 3 << 20;
    let call = Call {
        post: true,
        ..Call::get(B)
    };
    let (node, _server) = between(&call, &guests::SINK);
    let mut wire = Wire::connect(node.address());
    wire.send(format!(
        "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {size}\r\n\r\n"
    ));
    wire.send(vec![b'x'; size]);
    let reply = wire.read().unwrap();
    assert_eq!((reply.status, &*reply.text()), (200, "done"));

    let (node, server) = between(&Call::get(B), &guests::chunks(768));
    let reply = ask(&node, "a.example");
    assert_eq!((reply.whole, reply.body.len()), (true, 3 << 20));
    assert_eq!(server.outcomes(1), ["ok 2xx 1"]);

    // a body that breaks off is not complete for the caller
    let (node, _server) = between(&Call::get(B), &guests::TRAP_IN_BODY);
    let reply = ask(&node, "a.example");
    assert_eq!((&*reply.text(), reply.whole), ("part", false));
    assert_eq!(forwards(&node), ["failed 1"]);
}

#[tokio::test]
async fn trailers_reach_the_caller() {
    let server = serving(&trailers::guest("", ""));
    let mut functions = Functions::new();
    functions.add("ns", "h", &Call::get(B).passing_trailers());
    functions.add_remote("ns", "b", nodes(&[server.address()]));
    let node = start(&functions);
    let response = h2::get(node.address(), "/").await;
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().unwrap().clone();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    assert_eq!(collected.to_bytes(), "hello\n");
}

/// Whatever the body: a dead node, and one that has lost the function or does not have it yet, cost no call.
#[test]
fn a_call_is_sent_to_another_node_if_one_cannot_serve_it() {
    let server = serving(&guests::ECHO);
    let lost = start(&Functions::new());
    let mut functions = Functions::new();
    functions.add("ns", "b", &guests::ECHO);
    functions.change(|served| served.stable = RevisionSlot::Loading);
    let loading = start(&functions);
    let all = [
        closed_port(),
        lost.address(),
        loading.address(),
        server.address(),
    ];
    let call = Call {
        post: true,
        ..Call::get(B)
    };
    let node = start(&calling(&call.guest(), &all));
    let body = "x".repeat(100_000);
    let length = body.len();
    for at in 0..20 {
        let mut wire = Wire::connect(node.address());
        wire.send(format!(
            "POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
        let reply = wire.read().unwrap();
        assert_eq!((reply.status, reply.body.len()), (200, length), "{at}");
    }
    assert_eq!(server.outcomes(20), ["ok 2xx 20"]);
    assert_eq!(forwards(&node), ["answered 20"]);
}

/// The caller receives an error code, because no function has seen the call.
#[test]
fn a_call_that_no_node_can_serve_fails() {
    let lost = start(&Functions::new());
    let unknown = RemoteNodes {
        addresses: Vec::new(),
        named: 2,
    };
    let table = [
        (nodes(&[]), "no node matches its spec.placement", ""),
        (
            nodes(&[closed_port(), closed_port()]),
            "can be reached",
            "unreachable 1",
        ),
        (Arc::new(unknown), "can be reached", "unreachable 1"),
        (nodes(&[lost.address()]), "do not have it yet", "answered 1"),
    ];
    for (placed, help, forwarded) in table {
        let mut functions = Functions::new();
        functions.add("ns", "a", &Call::get(B).guest());
        functions.add_remote("ns", "b", placed);
        let node = start(&functions);
        // destination-unavailable
        assert_eq!(ask(&node, "a.example").status, 203, "{help}");
        assert_eq!(counted(&node), ["requests_total outcome=connect 1"]);
        assert_eq!(forwards(&node).concat(), forwarded, "{help}");
        eventually("the log helps", || {
            messages(&node).iter().any(|line| line.contains(help))
        });
    }
    // what the function itself would answer
    let mut functions = calling(&Call::get(B).guest(), &[closed_port()]);
    functions.change_remote(|entry| entry.suspended = true);
    assert_eq!(ask(&start(&functions), "a.example").status, 503);
}

/// HE-12: both nodes check that the function admits the caller, and a caller learns nothing of a function that does not.
#[test]
fn he_12_a_caller_without_a_grant_reaches_no_other_node() {
    let grant = || Caller {
        namespace: "ns".into(),
        name: Some("a".into()),
    };
    for (known_here, known_there, status) in
        [(false, true, 215), (true, false, 215), (true, true, 200)]
    {
        let mut there = Functions::new();
        there.add("other", "b", &guests::ANSWER);
        there.change(|served| {
            let entry = Arc::make_mut(&mut served.entry);
            entry.callers.extend(known_there.then(grant));
        });
        let server = start(&there);
        let mut here = Functions::allowing(&["function://other/b"]);
        here.add("ns", "a", &Call::get("b.other.selvage.internal").guest());
        here.add_remote("other", "b", nodes(&[server.address()]));
        here.change_remote(|entry| entry.callers.extend(known_here.then(grant)));
        let node = start(&here);
        assert_eq!(ask(&node, "a.example").status, status);
        if status != 200 {
            assert_eq!(counted(&node), ["denied_total reason=not_granted 1"]);
            assert_eq!(server.outcomes(0), Vec::<String>::new());
        }
        assert_eq!(forwards(&node).is_empty(), !known_here);
    }
    // without an entry of the caller's own, the other function is not even looked up
    let server = serving(&guests::ANSWER);
    let mut here = Functions::allowing(&[]);
    here.add("ns", "a", &Call::get(B).guest());
    here.add_remote("ns", "b", nodes(&[server.address()]));
    let node = start(&here);
    assert_eq!(ask(&node, "a.example").status, 215);
    assert_eq!(counted(&node), ["denied_total reason=not_allowed 1"]);
    assert_eq!(server.outcomes(0), Vec::<String>::new());
}

/// HG-21: two functions on different nodes that call each other end with 508 after eight calls.
#[test]
fn hg_21_a_loop_through_two_nodes_ends() {
    let mut second = Functions::new();
    second.add("ns", "b", &Call::get("a.ns.selvage.internal").guest());
    let server = start(&second);
    let node = start(&calling(&Call::get(B).guest(), &[server.address()]));
    second.add_remote("ns", "a", nodes(&[node.address()]));
    second.publish(&server);
    assert_eq!(ask(&node, "a.example").status, 508);
    assert_eq!(node.outcomes(5), ["ok 5xx 5"]);
    assert_eq!(server.outcomes(4), ["ok 5xx 4"]);
    assert_eq!(rejected(&node, Rejection::Loop), 1);
    assert_eq!(rejected(&server, Rejection::Loop), 0);
    node.is_quiet();
    server.is_quiet();
}

/// HH-22: two nodes of which each believes that the other one has the function.
#[test]
fn hh_22_a_call_is_passed_on_once() {
    let second = start(&Functions::new());
    let first = start(&calling(&Call::get(B).guest(), &[second.address()]));
    let mut functions = Functions::new();
    functions.add_remote("ns", "b", nodes(&[first.address()]));
    functions.publish(&second);
    assert_eq!(ask(&first, "a.example").status, 203);
    assert_eq!(forwards(&first), ["answered 1"]);
    assert_eq!(forwards(&second), Vec::<String>::new());
}

#[test]
fn a_caller_that_ends_ends_the_function_on_the_other_node() {
    for (b, part) in [(&guests::SLEEP, false), (&guests::SLEEP_IN_BODY, true)] {
        let (node, server) = between(&Call::get(B), b);
        let mut wire = Wire::connect(node.address());
        wire.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n");
        if part {
            while wire.line().unwrap() != "part" {}
        } else {
            let slots = server.slots();
            eventually("it runs", || server.plane.free_instance_slots() < slots);
        }
        wire.reset();
        node.is_quiet();
        server.is_quiet();
        assert!(server.outcomes(1)[0].starts_with("client"));
    }
}

/// Functions of this node that come back to it: other nodes serve calls until the code is loaded.
#[test]
fn other_nodes_serve_calls_while_code_is_loaded() {
    let server = serving(&guests::ANSWER);
    let mut functions = calling_b(&Call::get(B), &guests::ANSWER);
    functions.change(|served| {
        served.stable = RevisionSlot::LoadingHere(nodes(&[server.address()]));
    });
    let node = start(&functions);
    assert_eq!(ask(&node, "a.example").status, 200);
    assert_eq!(server.outcomes(1), ["ok 2xx 1"]);
}

/// A call as another node writes it, with this key.
fn passed_on(call: ForwardedCall, signed_for: &str, key: &[u8]) -> Request<Full<bytes::Bytes>> {
    let forwarded = Forwarded {
        from: ForwardedFrom::Function(call),
        last: true,
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(&signed_bytes(&forwarded, signed_for));
    let tag = mac.finalize().into_bytes()[..16].try_into().unwrap();
    let mut request = Request::get(format!("http://{B}/"))
        .version(Version::HTTP_2)
        .body(Full::default())
        .unwrap();
    SignedForward { forwarded, tag }.write(request.headers_mut());
    request
}

fn call_of_a(left: Duration) -> ForwardedCall {
    ForwardedCall {
        caller: FunctionKey::new("ns", "a"),
        hops: Hops::new(1),
        left,
        traced: None,
    }
}

/// HH-23: a client that writes the header of a call reaches no function by it.
#[tokio::test]
async fn hh_23_a_forged_call_reaches_no_function() {
    let server = serving(&guests::ANSWER);
    let minute = Duration::from_secs(60);
    for (host, key, status) in [
        (B, b"a guess".as_slice(), 503),
        ("other.ns.selvage.internal", KEY, 503),
        (B, KEY, 200),
    ] {
        let mut sender = h2::connect(server.address()).await;
        let request = passed_on(call_of_a(minute), host, key);
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{host}");
    }
    assert_eq!(server.outcomes(1), ["ok 2xx 1"]);
    // more calls than may lead to one
    let looping = ForwardedCall {
        hops: Hops::new(9),
        ..call_of_a(minute)
    };
    let mut sender = h2::connect(server.address()).await;
    let response = sender.send_request(passed_on(looping, B, KEY)).await;
    assert_eq!(response.unwrap().status(), 508);
}

/// The end of the caller's time does not count against the called function, which kept its own limits.
#[tokio::test]
async fn the_function_has_the_time_that_its_caller_has_left() {
    let mut functions = Functions::new();
    functions.change_setup(|setup| {
        setup.limits.timeout = Duration::from_secs(3_600);
        setup.limits.first_byte = Duration::from_secs(3_600);
    });
    functions.add("ns", "b", &guests::SLEEP);
    let server = start(&functions);
    let mut sender = h2::connect(server.address()).await;
    let request = passed_on(call_of_a(Duration::from_millis(200)), B, KEY);
    let response = sender.send_request(request).await.unwrap();
    assert_ne!(response.status(), 200);
    assert!(server.outcomes(1)[0].starts_with("client"));
    server.is_quiet();
}
