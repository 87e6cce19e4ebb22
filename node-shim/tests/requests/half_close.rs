//! Clients that close one direction of the connection (half-close), and clients that reset it.

use std::net::TcpListener;
use std::sync::Arc;

use futures::future::BoxFuture;
use node_shim::admin::{self, DebugPage, MetricsPage, ProcessStatus};

use crate::guests;
use crate::support::node::{Node, eventually};
use crate::support::wire::Wire;

/// HH-14: a client that has sent its request and closes its direction, such as `nc -N`, receives the response.
#[test]
fn hh_14_a_half_closed_connection_is_answered() {
    let node = Node::serve(&guests::ECHO);
    for (request, body) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", ""),
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", ""),
        ("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", ""),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "abc",
        ),
    ] {
        for _ in 0..5 {
            let mut wire = Wire::connect(node.address());
            wire.send(request).shutdown_write();
            let reply = wire.read().expect("a response");
            assert_eq!(
                (reply.status, reply.text().as_str(), reply.whole),
                (200, body, true),
                "{request:?}"
            );
            assert!(wire.read_to_end(), "{request:?}");
        }
    }
    assert_eq!(node.outcomes(25), ["ok 2xx 25"]);
}

/// HH-14: a response that no socket buffer holds is complete.
#[test]
fn hh_14_a_large_response_follows_a_half_close() {
    let node = Node::serve(&guests::chunks(3 << 8));
    let mut wire = Wire::connect(node.address());
    wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .shutdown_write();
    let reply = wire.read().expect("a response");
    assert_eq!((reply.body.len(), reply.whole), (3 << 20, true));
}

/// HH-14: requests that arrived before the half-close are answered.
#[test]
fn hh_14_pipelined_requests_before_a_half_close_are_answered() {
    let node = Node::serve(&guests::MIRROR);
    let mut wire = Wire::connect(node.address());
    for path in ["/1", "/2", "/3"] {
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
    }
    wire.shutdown_write();
    for path in ["/1", "/2", "/3"] {
        assert!(wire.read().expect(path).text().starts_with(path));
    }
    assert!(wire.is_closed());
}

/// HH-14: a reset ends the guest, before and after the head was sent.
#[test]
fn hh_14_a_reset_cancels_the_guest() {
    for (guest, outcome) in [
        (&guests::SLEEP, "client none 1"),
        (&guests::SLEEP_IN_BODY, "client 2xx 1"),
    ] {
        let node = Node::serve(guest);
        let mut wire = Wire::connect(node.address());
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .shutdown_write();
        eventually("the guest runs", || {
            node.plane.free_instance_slots() < node.slots()
        });
        if outcome == "client 2xx 1" {
            wire.line();
        }
        wire.reset();
        assert_eq!(node.outcomes(1), [outcome]);
        node.is_quiet();
    }
}

struct Healthy;

impl ProcessStatus for Healthy {
    fn health(&self) -> BoxFuture<'_, Result<(), node_shim::admin::Unhealthy>> {
        Box::pin(async { Ok(()) })
    }

    fn readiness(&self) -> Result<(), node_shim::admin::NotReady> {
        Ok(())
    }

    fn metrics(&self, _accept: &str) -> MetricsPage {
        MetricsPage::text("selvage_node_info 1\n".repeat(100_000))
    }

    fn debug(&self, _page: DebugPage) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// HH-14: the same on the admin port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hh_14_a_half_closed_connection_to_the_admin_port_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = admin::serve(listener, Arc::new(Healthy)).unwrap();
    for (path, length) in [("/healthz", 3), ("/readyz", 3), ("/metrics", 2_000_000)] {
        for version in ["1.0", "1.1"] {
            let request = format!("GET {path} HTTP/{version}\r\nhost: a\r\n\r\n");
            let reply = tokio::task::spawn_blocking(move || {
                let mut wire = Wire::connect(address);
                wire.send(request).shutdown_write();
                wire.read().expect("a response")
            });
            let reply = reply.await.unwrap();
            assert_eq!((reply.status, reply.whole), (200, true), "{path}");
            assert_eq!(reply.body.len(), length, "{path}");
        }
    }
}

/// Clients that hold connections of the admin port without reading do not keep out the probes of the kubelet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_to_the_admin_port_do_not_keep_out_probes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = admin::serve(listener, Arc::new(Healthy)).unwrap();
    let reply = tokio::task::spawn_blocking(move || {
        let request = |path| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        let connect = || {
            let mut wire = Wire::connect(address);
            wire.send(request("/metrics"));
            wire
        };
        let _held: Vec<Wire> = (0..100).map(|_| connect()).collect();
        let mut wire = Wire::connect(address);
        wire.send(request("/healthz"));
        wire.read().expect("a response")
    });
    assert_eq!(reply.await.unwrap().status, 200);
}
