//! Outbound requests of guests: allowed, denied, failing, and cancelled with the request that sent them.

mod calls;
mod calls_between_nodes;
mod denied_hosts;
mod grants;
mod hops;
pub(crate) mod origin;
mod resolved_hosts;
mod services;
mod spans;
mod tls;
mod trailers;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use node_shim::counters::CounterTable;
use node_shim::metrics::{Metrics, NodeIdentity};
use node_shim_core::table::{FunctionKey, Route};
use parking_lot::Mutex;

use crate::support::node::{Node, PATIENCE, Setup, eventually, served};
use crate::support::outbound::Call;
use crate::support::wire::{Reply, Wire, get};
use origin::{Exchange, PUBLIC, Reaction, TestNetwork, origin};

const HELLO: &str = "HTTP/1.1 201 Created\r\ncontent-length: 5\r\n\r\nhello";

/// Returns the configuration of a node with a function that may send requests to `entries`.
fn setup(network: &Arc<TestNetwork>, entries: &[&str]) -> Setup {
    let mut setup = Setup::default();
    setup.options.egress.network = network.clone();
    setup.egress = entries.iter().map(|entry| (*entry).to_owned()).collect();
    setup
}

/// Returns the values of the metrics of outbound requests that are above 0.
fn counted(node: &Node) -> Vec<String> {
    let identity = NodeIdentity {
        node_name: "n".into(),
        started_ms: 1,
    };
    let page = Metrics::new(identity)
        .page(&node.plane, Vec::new(), "")
        .text;
    let lines = page
        .lines()
        .filter(|line| line.starts_with("selvage_egress_"));
    let short = |line: &str| {
        let (name, rest) = line.split_once('{').unwrap();
        let (labels, value) = rest.split_once("} ").unwrap();
        let label = labels
            .split(',')
            .find(|label| label.starts_with("reason=") || label.starts_with("outcome="));
        let name = name.trim_start_matches("selvage_egress_");
        format!("{name} {} {value}", label.unwrap().replace('"', ""))
    };
    lines
        .map(short)
        .filter(|line| !line.ends_with(" 0"))
        .collect()
}

fn messages(node: &Node) -> Vec<String> {
    let message = |line: serde_json::Value| line["msg"].as_str().unwrap().to_owned();
    node.log().into_iter().map(message).collect()
}

/// Returns an origin that answers every request, and the heads that it receives.
fn answering(answer: &'static str) -> (std::net::SocketAddr, Receiver<String>) {
    let (seen, heads) = channel();
    let seen = Mutex::new(seen);
    let address = origin(move |mut exchange: Exchange| {
        while let Some(head) = exchange.head() {
            // the test has ended when this fails
            let _ = seen.lock().send(head);
            exchange.send(answer);
        }
    });
    (address, heads)
}

/// HE-7: the host is the one that was checked, and the connection is kept for the next request of the function.
#[test]
fn an_allowed_request_is_sent_with_its_host() {
    let (address, heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    let call = Call {
        path: "/v1?x=1",
        ..Call::get("API.example.:8080")
    };
    let node = setup(&network, &["http://api.example:8080"]).start(&call.guest());
    for _ in 0..2 {
        let reply = get(node.address(), "/");
        assert_eq!((reply.status, reply.text().as_str()), (201, "hello"));
        let head = heads.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with("GET /v1?x=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: api.example:8080\r\n"), "{head}");
    }
    assert_eq!(network.connected(), [format!("{PUBLIC}:8080")]);
    assert_eq!(counted(&node), ["requests_total outcome=response 2"]);
    node.is_quiet();
}

#[test]
fn both_bodies_are_streamed() {
    let (seen, parts) = channel();
    let (go, gate) = channel::<()>();
    let (seen, gate) = (Mutex::new(seen), Mutex::new(gate));
    let address = origin(move |mut exchange| {
        let head = exchange.head().unwrap();
        for end in ["first\r\n", "second\r\n", "0\r\n\r\n"] {
            let part = exchange.until(end).unwrap();
            let _ = seen.lock().send(format!("{head}{part}"));
        }
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nalpha\r\n");
        let _ = gate.lock().recv_timeout(PATIENCE);
        exchange.send("4\r\nbeta\r\n0\r\n\r\n");
    });
    let call = Call {
        post: true,
        ..Call::get("api.example")
    };
    let network = TestNetwork::to(address);
    let node = setup(&network, &["http://api.example"]).start(&call.guest());
    let mut wire = Wire::connect(node.address());
    wire.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    let part = parts.recv_timeout(PATIENCE).unwrap();
    assert!(part.starts_with("POST / HTTP/1.1\r\n"), "{part}");
    wire.send("6\r\nsecond\r\n0\r\n\r\n");
    parts.recv_timeout(PATIENCE).unwrap();
    while wire.line().unwrap() != "alpha" {}
    go.send(()).unwrap();
    while wire.line().unwrap() != "beta" {}
    node.outcomes(1);
    node.is_quiet();
}

/// HE-1 to HE-4, HE-6: the error code and the reason of each denial.
#[test]
fn denied_requests_are_counted_and_reach_no_address() {
    let table: &[(&str, &str, u16, &str)] = &[
        // nothing is allowed unless an entry matches
        ("https://api.example", "api.example", 15, "not_allowed"),
        ("http://api.example", "api.example:8080", 15, "not_allowed"),
        (
            "http://api.example",
            "api.example.evil.example",
            15,
            "not_allowed",
        ),
        (
            "http://api.example",
            "kubernetes.default",
            15,
            "not_allowed",
        ),
        ("http://api.example", PUBLIC, 15, "not_allowed"),
        // what programs read differently
        (
            "http://api.example",
            "user@api.example",
            19,
            "invalid_target",
        ),
        ("http://0.0.0.0/0", "127.1", 19, "invalid_target"),
        // addresses, literal or behind a name
        ("http://0.0.0.0/0", "127.0.0.1", 4, "address"),
        ("http://0.0.0.0/0", "169.254.169.254", 4, "address"),
        ("http://[::/0]", "[::ffff:169.254.169.254]", 4, "address"),
        ("http://metadata.example", "metadata.example", 4, "address"),
        ("http://private.example", "private.example", 4, "address"),
        (
            "http://translated.example",
            "translated.example",
            4,
            "address",
        ),
    ];
    let network = TestNetwork::new(Reaction::Refuse);
    network.name("api.example", &[&[PUBLIC]]);
    network.name("metadata.example", &[&["169.254.169.254", "fd00:ec2::254"]]);
    network.name("private.example", &[&["10.0.0.7"]]);
    network.name("translated.example", &[&["64:ff9b::a9fe:a9fe"]]);
    for (entry, authority, code, reason) in table {
        let node = setup(&network, &[*entry]).start(&Call::get(authority).guest());
        let reply = get(node.address(), "/");
        assert_eq!(reply.status, 200 + code, "{entry} {authority}");
        let expected = format!("denied_total reason={reason} 1");
        assert_eq!(counted(&node), [expected], "{entry} {authority}");
        eventually("the denial is logged", || !messages(&node).is_empty());
    }
    assert_eq!(network.connected(), [""; 0]);
}

#[test]
fn the_log_names_the_entry_that_allows_a_denied_request() {
    let network = TestNetwork::new(Reaction::Refuse);
    network.name("private.example", &[&["10.0.0.7"]]);
    for (entries, authority, advice) in [
        (
            &[][..],
            "api.example",
            "egress.allow: [\"http://api.example\"]",
        ),
        (
            &[][..],
            "api.example:8080",
            "egress.allow: [\"http://api.example:8080\"]",
        ),
        (
            &["http://private.example"][..],
            "private.example",
            "egress.allow: [\"http://10.0.0.7\"]",
        ),
    ] {
        let node = setup(&network, entries).start(&Call::get(authority).guest());
        get(node.address(), "/");
        eventually("the denial is logged", || !messages(&node).is_empty());
        let messages = messages(&node);
        assert!(messages[0].contains(advice), "{messages:?}");
    }
}

/// HE-3: a name whose answers change. Only checked addresses are connected to.
#[test]
fn he_3_only_the_checked_address_is_connected() {
    let (address, _heads) =
        answering("HTTP/1.1 201 Created\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let network = TestNetwork::to(address);
    network.name(
        "api.example",
        &[&[PUBLIC], &["169.254.169.254"], &["127.0.0.1", "1.1.1.1"]],
    );
    let node = setup(&network, &["http://api.example"]).start(&Call::get("api.example").guest());
    let statuses: Vec<u16> = (0..3).map(|_| get(node.address(), "/").status).collect();
    assert_eq!(statuses, [201, 204, 201]);
    assert_eq!(
        network.connected(),
        [format!("{PUBLIC}:80"), "1.1.1.1:80".into()]
    );
}

/// HE-5: the guest receives the redirect; a second request is checked like any other.
#[test]
fn he_5_redirects_are_not_followed() {
    let (address, _heads) =
        answering("HTTP/1.1 302 Found\r\nlocation: http://10.0.0.1/\r\ncontent-length: 0\r\n\r\n");
    let network = TestNetwork::to(address);
    let node = setup(&network, &["http://api.example"]).start(&Call::get("api.example").guest());
    assert_eq!(get(node.address(), "/").status, 302);
    assert_eq!(network.connected().len(), 1);
}

#[test]
fn private_addresses_need_a_network_or_a_name_in_the_cluster() {
    let (address, _heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    network.name("a.shop.svc.cluster.local", &[&["10.96.0.7"]]);
    network.name("db.example", &[&["10.1.2.3"]]);
    for (entries, authority) in [
        (&["http://10.0.0.0/8"][..], "10.1.2.3"),
        (
            &["http://*.svc.cluster.local"][..],
            "a.shop.svc.cluster.local",
        ),
        (
            &["http://db.example", "http://10.1.0.0/16"][..],
            "db.example",
        ),
    ] {
        let node = setup(&network, entries).start(&Call::get(authority).guest());
        assert_eq!(get(node.address(), "/").status, 201, "{entries:?}");
    }
}

/// HE-8: attempts that fail or never end, and the metric that counts them.
#[test]
fn he_8_failures_have_their_error_codes() {
    let short = Duration::from_millis(100);
    let table: [(Reaction, &str, u16, &str); 3] = [
        (Reaction::Refuse, "api.example", 6, "connect"),
        (Reaction::NeverAnswer, "api.example", 8, "timeout"),
        (Reaction::Refuse, "absent.example", 1, "dns"),
    ];
    for (reaction, name, code, outcome) in table {
        let network = TestNetwork::new(reaction);
        network.name("api.example", &[&[PUBLIC]]);
        let entry = format!("http://{name}");
        let mut setup = setup(&network, &[&entry]);
        setup.options.egress.connect_timeout = short;
        let node = setup.start(&Call::get(name).guest());
        assert_eq!(get(node.address(), "/").status, 200 + code);
        assert_eq!(
            counted(&node),
            [format!("requests_total outcome={outcome} 1")]
        );
        node.is_quiet();
    }
}

/// HE-8: origins that answer too late, cut the response, or send too large a head.
#[test]
fn he_8_origins_that_misbehave_have_their_error_codes() {
    let large = format!(
        "HTTP/1.1 200 OK\r\nx-large: {}\r\n\r\n",
        "a".repeat(40 << 10)
    );
    let large: &'static str = Box::leak(large.into_boxed_str());
    let table = [
        ("", 33, "timeout"),
        ("HTTP/1.1 200 OK\r\ncontent-le", 7, "broken"),
        ("nonsense\r\n\r\n", 35, "broken"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            34,
            "broken",
        ),
        (large, 26, "broken"),
    ];
    for (answer, code, outcome) in table {
        let address = origin(move |mut exchange: Exchange| {
            exchange.head();
            exchange.send(answer);
            if answer.is_empty() {
                exchange.rest();
            }
        });
        let network = TestNetwork::to(address);
        let mut setup = setup(&network, &["http://api.example"]);
        if answer.is_empty() {
            setup.options.egress.first_byte_timeout = Duration::from_millis(100);
        }
        let node = setup.start(&Call::get("api.example").guest());
        assert_eq!(get(node.address(), "/").status, 200 + code, "{answer:.40}");
        assert_eq!(
            counted(&node),
            [format!("requests_total outcome={outcome} 1")]
        );
        node.is_quiet();
    }
}

/// HE-8: a response that breaks off, or pauses for longer than `limits.idle`, is an error for the guest.
#[test]
fn he_8_a_response_that_breaks_off_is_not_complete() {
    for pauses in [false, true] {
        let (received, part) = std::sync::mpsc::channel::<()>();
        let part = Mutex::new(part);
        let address = origin(move |mut exchange: Exchange| {
            exchange.head();
            exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart");
            if pauses {
                exchange.rest();
            } else {
                // a guest that saw the end before it had begun its own response could still respond with an error
                let _ = part.lock().recv_timeout(PATIENCE);
            }
        });
        let network = TestNetwork::to(address);
        let mut setup = setup(&network, &["http://api.example"]);
        if pauses {
            setup.limits.idle = Duration::from_millis(100);
        }
        let node = setup.start(&Call::get("api.example").guest());
        let mut wire = Wire::connect(node.address());
        wire.send("GET / HTTP/1.1\r\nhost: h.example\r\n\r\n");
        assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
        while wire.line().is_some_and(|field| !field.is_empty()) {}
        assert_eq!(wire.chunk(), b"part");
        drop(received);
        assert_eq!(wire.line(), None, "the response looks complete");
        node.is_quiet();
    }
}

/// The 33rd request in flight is denied. All of them end with the guest.
#[test]
fn a_request_has_32_outbound_requests_in_flight() {
    let (ended, ends) = channel();
    let ended = Mutex::new(ended);
    let address = origin(move |mut exchange: Exchange| {
        exchange.head();
        exchange.rest();
        let _ = ended.lock().send(());
    });
    let network = TestNetwork::to(address);
    let node =
        setup(&network, &["http://api.example"]).start(&Call::get("api.example").repeated(33));
    assert_eq!(get(node.address(), "/").status, 200 + 11);
    node.is_quiet();
    eventually("the others are cancelled", || {
        let counted = counted(&node);
        counted.contains(&"requests_total outcome=cancelled 32".to_owned())
            && counted.contains(&"denied_total reason=limit 1".to_owned())
    });
    // what was connected by then is closed
    for _ in network.connected() {
        ends.recv_timeout(PATIENCE).unwrap();
    }
}

/// A client that leaves cancels the outbound requests, and the origin never takes an unfinished body for complete.
#[test]
fn outbound_requests_end_with_their_request() {
    for (post, sent) in [
        (false, "GET / HTTP/1.1\r\nhost: h\r\n\r\n"),
        (
            true,
            "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
        ),
    ] {
        let (seen, started) = channel();
        let (ended, ends): (Sender<String>, _) = channel();
        let (seen, ended) = (Mutex::new(seen), Mutex::new(ended));
        let address = origin(move |mut exchange: Exchange| {
            let mut received = exchange.head().unwrap_or_default();
            if post {
                received += &exchange.until("part\r\n").unwrap_or_default();
            }
            let _ = seen.lock().send(());
            received += &exchange.rest();
            let _ = ended.lock().send(received);
        });
        let network = TestNetwork::to(address);
        let call = Call {
            post,
            ..Call::get("api.example")
        };
        let node = setup(&network, &["http://api.example"]).start(&call.guest());
        let mut wire = Wire::connect(node.address());
        wire.send(sent);
        started.recv_timeout(PATIENCE).unwrap();
        wire.reset();
        let received = ends.recv_timeout(PATIENCE).unwrap();
        assert!(!received.contains("0\r\n\r\n"), "{received}");
        node.is_quiet();
        eventually("the request is counted", || {
            counted(&node) == ["requests_total outcome=cancelled 1"]
        });
    }
}

/// HE-9: two functions that send requests to the same server use different connections.
#[test]
fn he_9_no_function_uses_a_connection_of_another() {
    let (address, _heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    let setup = setup(&network, &["http://api.example"]);
    let guest = Call::get("api.example").guest();
    let counters = CounterTable::new();
    let functions: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|namespace| {
            let key = FunctionKey::new(namespace, "f");
            let revision = setup.revision_of(key, "r1", &guest, &counters);
            let route = Route {
                hosts: vec![format!("{namespace}.example")],
                ..Route::default()
            };
            served(&revision, vec![route])
        })
        .collect();
    let node = setup.start_empty(counters);
    node.publish(functions);
    let ask = |host: &str| -> Reply {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        crate::support::wire::once(node.address(), request)
    };
    for host in ["a.example", "b.example", "a.example", "b.example"] {
        assert_eq!(ask(host).status, 201);
    }
    assert_eq!(network.connected().len(), 2);
}
