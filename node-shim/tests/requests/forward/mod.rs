//! Requests to a node that the function is not placed on: another node serves them.

mod bodies;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use http::Request;
use http_body_util::Full;
use node_shim::counters::CounterTable;
use node_shim::routing_table::{
    RemoteFunction, RemoteNodes, RevisionSlot, RoutingTable, ServedFunction,
};
use node_shim_core::table::{FunctionEntry, FunctionKey, Route, TrafficSplit};
use tokio::net::TcpSocket;

use crate::guests;
use crate::support::node::{Node, Setup, served};
use crate::support::wire::{Reply, Wire, get, once};
use crate::support::{component, h2};

pub(crate) const KEY: &[u8] = b"of the cluster";

/// Starts a node that serves the function, with the key of the cluster.
fn serving(wasm: &[u8]) -> Node {
    let node = Node::serve(wasm);
    node.plane.set_hop_key(KEY);
    node
}

/// Starts a node without functions, with the key of the cluster.
fn without(setup: &Setup) -> Node {
    let node = setup.start_empty(CounterTable::new());
    node.plane.set_hop_key(KEY);
    node
}

pub(crate) fn nodes(addresses: &[SocketAddr]) -> Arc<RemoteNodes> {
    Arc::new(RemoteNodes {
        addresses: addresses.to_vec(),
        named: addresses.len(),
    })
}

fn remote(addresses: &[SocketAddr], suspended: bool) -> RemoteFunction {
    let entry = FunctionEntry {
        key: FunctionKey::new("ns", "f"),
        created_ms: 0,
        routes: vec![Route {
            hosts: vec!["*".into()],
            ..Route::default()
        }],
        suspended,
        callers: Vec::new(),
        split: TrafficSplit::default(),
    };
    RemoteFunction {
        entry: Arc::new(entry),
        nodes: nodes(addresses),
    }
}

/// Publishes that the function is placed on other nodes.
fn place(node: &Node, addresses: &[SocketAddr]) {
    let remote = vec![remote(addresses, false)];
    let table = RoutingTable::default().with_all(1, Vec::new(), remote);
    node.plane.publish(Arc::new(table));
}

/// Starts a node that passes requests on to these nodes.
fn forwarding(to: &[&Node]) -> Node {
    let node = without(&Setup::default());
    let addresses: Vec<SocketAddr> = to.iter().map(|node| node.address()).collect();
    place(&node, &addresses);
    node
}

/// Returns an address at which nothing listens.
pub(crate) fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Returns the outcomes of forwarded requests, and their number.
pub(crate) fn forwards(node: &Node) -> Vec<String> {
    let all = node.plane.node_counters().forwards();
    let some = all.filter(|(_, count)| *count > 0);
    some.map(|(outcome, count)| format!("{} {count}", outcome.label()))
        .collect()
}

/// Opens a connection from another address of the loopback.
async fn wire_from(from: &str, to: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let stream = socket.connect(to).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    Wire::of(stream)
}

fn field<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let lines = text.lines();
    lines
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .collect()
}

/// The function sees the client, and not the node that passed the request on. That node counts nothing for the function.
#[tokio::test]
async fn the_function_sees_the_client_that_the_other_node_has_accepted() {
    let server = serving(&guests::MIRROR);
    let forwarder = forwarding(&[&server]);
    let mut wire = wire_from("127.0.0.9", forwarder.address()).await;
    for _ in 0..2 {
        let head = "GET /a?b=c HTTP/1.1\r\nhost: h.example:8080\r\nx-forwarded-for: 1.1.1.1\r\n\
             selvage-forward: 9.9.9.9 https more 00\r\nx-mine: 1\r\n\r\n";
        let reply = wire.send(head).read().unwrap();
        let text = reply.text();
        assert_eq!(reply.status, 200, "{text}");
        assert_eq!(text.lines().next(), Some("/a?b=c"));
        assert_eq!(field(&text, "x-forwarded-for"), ["127.0.0.9"]);
        assert_eq!(field(&text, "x-forwarded-proto"), ["http"]);
        assert_eq!(field(&text, "x-forwarded-host"), ["h.example:8080"]);
        assert_eq!(field(&text, "x-mine"), ["1"]);
        assert_eq!(field(&text, "x-request-id").len(), 1);
        assert!(!text.contains("selvage-"), "{text}");
    }
    assert_eq!(server.outcomes(2), ["ok 2xx 2"]);
    assert_eq!(forwarder.outcomes(0), Vec::<String>::new());
    assert_eq!(forwards(&forwarder), ["answered 2"]);
    assert_eq!(forwards(&server), Vec::<String>::new());
}

/// HH-21: what a client writes about another client has no effect.
#[tokio::test]
async fn hh_21_a_forged_header_names_no_client() {
    let server = serving(&guests::MIRROR);
    let genuine = "127.0.0.9 https last 00112233445566778899aabbccddeeff";
    let request = Request::get("http://h.example/")
        .header("selvage-forward", genuine)
        .body(Full::default())
        .unwrap();
    let mut sender = h2::connect(server.address()).await;
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let text = String::from_utf8(h2::body(response).await.unwrap().to_vec()).unwrap();
    assert_eq!(field(&text, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(field(&text, "x-forwarded-proto"), ["http"]);
    assert!(!text.contains("selvage-"), "{text}");
    let head = format!("GET / HTTP/1.1\r\nhost: h\r\nselvage-forward: {genuine}\r\n\r\n");
    let text = once(server.address(), head).text();
    assert!(
        !text.contains("selvage-") && !text.contains("127.0.0.9"),
        "{text}"
    );
}

/// A node whose key is another one serves the request, but does not believe what it says about the client.
#[tokio::test]
async fn a_node_with_another_key_does_not_believe_it() {
    let server = Node::serve(&guests::MIRROR);
    let forwarder = forwarding(&[&server]);
    let mut wire = wire_from("127.0.0.9", forwarder.address()).await;
    let reply = wire
        .send("GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .read()
        .unwrap();
    assert_eq!(field(&reply.text(), "x-forwarded-for"), ["127.0.0.1"]);
}

/// HH-22: two nodes of which each believes that the other one has the function. Also if they do not share a key.
#[tokio::test]
async fn hh_22_a_request_is_passed_on_once() {
    for same_key in [true, false] {
        let (first, second) = (without(&Setup::default()), without(&Setup::default()));
        if !same_key {
            second.plane.set_hop_key(b"another");
        }
        place(&first, &[second.address()]);
        place(&second, &[first.address()]);
        for node in [&first, &second] {
            let reply = get(node.address(), "/");
            assert_eq!(reply.status_and_error(), (503, "not_here"));
            assert_eq!(reply.header("retry-after"), Some("1"));
        }
        assert_eq!(forwards(&first), ["answered 1"]);
    }
}

#[test]
fn a_request_that_no_node_can_serve_is_answered_with_503() {
    let forwarder = without(&Setup::default());
    let ask = || {
        let reply = get(forwarder.address(), "/");
        (
            reply.status,
            reply.header("selvage-error").unwrap().to_owned(),
        )
    };
    assert_eq!(ask(), (404, "no_route".to_owned()));
    place(&forwarder, &[]);
    assert_eq!(ask(), (503, "not_placed".to_owned()));
    place(&forwarder, &[closed_port(), closed_port()]);
    assert_eq!(ask(), (503, "unreachable".to_owned()));
    // the addresses of its nodes are not known
    let unknown = RemoteFunction {
        nodes: Arc::new(RemoteNodes {
            addresses: Vec::new(),
            named: 2,
        }),
        ..remote(&[], false)
    };
    let table = RoutingTable::default().with_all(1, Vec::new(), vec![unknown]);
    forwarder.plane.publish(Arc::new(table));
    assert_eq!(ask(), (503, "unreachable".to_owned()));
    let suspended = vec![remote(&[closed_port()], true)];
    let table = RoutingTable::default().with_all(1, Vec::new(), suspended);
    forwarder.plane.publish(Arc::new(table));
    assert_eq!(ask(), (503, "suspended".to_owned()));
    assert_eq!(forwards(&forwarder), ["unreachable 2"]);
}

/// A dead node, and one that has lost the function meanwhile, cost no request, whatever its body.
#[test]
fn another_node_serves_what_one_could_not() {
    let server = serving(&guests::ECHO);
    let lost = without(&Setup::default());
    let forwarder = without(&Setup::default());
    place(
        &forwarder,
        &[closed_port(), lost.address(), server.address()],
    );
    let body = "x".repeat(300_000);
    let length = format!("content-length: {}\r\n\r\n{body}", body.len());
    let chunked = format!("transfer-encoding: chunked\r\n\r\n493e0\r\n{body}\r\n0\r\n\r\n");
    for at in 0..20 {
        let rest = if at % 2 == 0 { &length } else { &chunked };
        let reply = once(
            forwarder.address(),
            format!("POST / HTTP/1.1\r\nhost: h\r\n{rest}"),
        );
        let (status, error) = reply.status_and_error();
        assert_eq!(
            (status, error, reply.body.len()),
            (200, "", body.len()),
            "{at}"
        );
    }
    assert_eq!(server.outcomes(20), ["ok 2xx 20"]);
    assert_eq!(forwards(&forwarder), ["answered 20"]);
}

/// While a function moves, most of its nodes may not have it: each request finds the one that has.
#[test]
fn one_of_many_nodes_that_has_the_function_is_found() {
    let server = serving(&guests::ANSWER);
    let others: Vec<Node> = (0..7).map(|_| without(&Setup::default())).collect();
    let mut all: Vec<&Node> = others.iter().collect();
    all.push(&server);
    let forwarder = forwarding(&all);
    for at in 0..20 {
        assert_eq!(get(forwarder.address(), "/").status, 200, "{at}");
    }
}

#[test]
fn the_nodes_of_a_function_share_its_requests() {
    let servers: Vec<Node> = (0..3).map(|_| serving(&guests::ANSWER)).collect();
    let forwarder = forwarding(&servers.iter().collect::<Vec<_>>());
    let mut wire = Wire::connect(forwarder.address());
    for _ in 0..90 {
        let reply = wire
            .send("GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .read()
            .unwrap();
        assert_eq!(reply.status, 200);
    }
    for server in &servers {
        let counted = server.plane.counters().snapshot(|_| true);
        let requests = &counted[0].populations[0].requests;
        assert!(requests[0].count >= 10, "{}", requests[0].count);
    }
}

/// A function that comes to a node: other nodes serve its requests until its code is loaded.
#[test]
fn other_nodes_serve_while_code_is_loaded() {
    let server = serving(&guests::ANSWER);
    let node = without(&Setup::default());
    let counters = CounterTable::new();
    let revision = Setup::default().revision("r1", &guests::ANSWER, &counters);
    let routes = Setup::default().routes;
    let loading = ServedFunction {
        stable: RevisionSlot::LoadingHere(nodes(&[server.address()])),
        ..served(&revision, routes.clone())
    };
    node.publish(vec![loading]);
    assert_eq!(get(node.address(), "/").status, 200);
    assert_eq!(forwards(&node), ["answered 1"]);
    // a third node that already sends requests there
    let third = forwarding(&[&node, &server]);
    for _ in 0..10 {
        assert_eq!(get(third.address(), "/").status, 200);
    }
    assert_eq!(server.outcomes(11), ["ok 2xx 11"]);
    node.publish(vec![served(&revision, routes)]);
    assert_eq!(get(node.address(), "/").status, 200);
    assert_eq!(forwards(&node), ["answered 1"]);
}

/// Nodes open many connections to each other, and a limit for clients must not refuse them.
#[test]
fn the_limit_of_connections_does_not_apply_to_other_nodes() {
    let mut setup = Setup::default();
    setup.options.max_per_peer = 1;
    let node = setup.start(&guests::ANSWER);
    let ask = |wire: &mut Wire| {
        let reply = wire.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").read();
        reply.map(|reply| reply.status)
    };
    let mut first = Wire::connect(node.address());
    assert_eq!(ask(&mut first), Some(200));
    assert_eq!(ask(&mut Wire::connect(node.address())), None);
    let peers: HashSet<IpAddr> = [IpAddr::from([127, 0, 0, 1])].into();
    let table = node.plane.table();
    let functions = table.functions().to_vec();
    let table = table
        .with_functions(2, functions)
        .with_peers(Arc::new(peers));
    node.plane.publish(Arc::new(table));
    assert_eq!(ask(&mut Wire::connect(node.address())), Some(200));
}

/// The limits of the node that serves the request decide, and its responses are passed on.
#[test]
fn limits_and_failures_are_those_of_the_other_node() {
    let server = Setup::limits(|limits| limits.request_body = 10).start(&guests::ECHO);
    server.plane.set_hop_key(KEY);
    let forwarder = forwarding(&[&server]);
    let post = |rest: &str| -> Reply {
        once(
            forwarder.address(),
            format!("POST / HTTP/1.1\r\nhost: h\r\n{rest}"),
        )
    };
    let reply = post("content-length: 11\r\n\r\nhello world");
    assert_eq!(reply.status_and_error(), (413, "body_too_large"));
    let reply = post("transfer-encoding: chunked\r\n\r\n5\r\nhelloxx");
    assert_eq!(reply.status_and_error(), (400, "bad_framing"));
    let trap = serving(&component::guest("", "(unreachable)"));
    let forwarder = forwarding(&[&trap]);
    let reply = get(forwarder.address(), "/");
    assert_eq!(reply.status_and_error(), (500, "trap"));
    assert_eq!(forwards(&forwarder), ["answered 1"]);
}
