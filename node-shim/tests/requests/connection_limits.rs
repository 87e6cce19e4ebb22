//! Tests of the limits on the number of connections.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpSocket;

use crate::guests;
use crate::support::node::{Node, Setup, eventually};
use crate::support::wire::Wire;

const PROBE: &str = "GET /.well-known/selvage/ready HTTP/1.1\r\nhost: a\r\n\r\n";

fn crowded(connections: usize, per_peer: u32) -> Node {
    let mut setup = Setup::default();
    setup.options.max_connections = connections;
    setup.options.max_per_peer = per_peer;
    setup.start(&guests::ANSWER)
}

/// HH-5: connections above the limit wait in the kernel's backlog without affecting others, and are served
/// as soon as another connection is closed.
#[test]
fn hh_5_connections_above_the_limit_wait() {
    let node = crowded(2, u32::MAX);
    let mut inside: Vec<Wire> = (0..2).map(|_| Wire::connect(node.address())).collect();
    for wire in &mut inside {
        assert_eq!(wire.send(PROBE).read().unwrap().status, 200);
    }
    let mut outside: Vec<Wire> = (0..8).map(|_| Wire::connect(node.address())).collect();
    for wire in &mut outside {
        wire.send(PROBE);
    }
    for _ in 0..50 {
        for wire in &mut inside {
            assert_eq!(wire.send(PROBE).read().unwrap().status, 200);
        }
        assert_eq!(node.plane.open_connections(), 2);
    }
    drop(inside);
    for mut wire in outside {
        assert_eq!(wire.read().unwrap().status, 200);
    }
    eventually("all places are back", || node.plane.open_connections() == 0);
}

/// A client may send a request at any time, so an old connection is closed only after a response that has announced it.
#[test]
fn an_old_connection_of_http_1_ends_with_a_response() {
    let mut setup = Setup::default();
    setup.options.connections.max_age = Duration::from_millis(200);
    let node = setup.start(&guests::ANSWER);
    let mut wire = Wire::connect(node.address());
    let is_last = |wire: &mut Wire| {
        let reply = wire.send(PROBE).read().unwrap();
        assert_eq!(reply.status, 200);
        reply.header("connection") == Some("close")
    };
    // on a machine that is slow enough, the first response is the last one
    if !is_last(&mut wire) {
        let idle = Duration::from_millis(500);
        assert!(wire.is_quiet_for(idle), "it was closed while it was idle");
        assert!(is_last(&mut wire));
    }
    assert!(wire.is_closed());
}

/// Connects from 127.0.0.2, another peer address.
async fn stranger(address: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    Wire::of(stream)
}

/// HH-5: connections of one peer above its limit are closed while other peers are served. Closed
/// connections no longer count.
#[tokio::test]
async fn hh_5_one_peer_cannot_use_all_connections() {
    let node = crowded(100, 3);
    let mut hoard: Vec<Wire> = (0..3).map(|_| Wire::connect(node.address())).collect();
    for wire in &mut hoard {
        assert_eq!(wire.send(PROBE).read().unwrap().status, 200);
    }
    for _ in 0..5 {
        assert!(Wire::connect(node.address()).is_closed());
    }
    assert_eq!(node.plane.node_counters().refused_connections(), 5);
    let mut other = stranger(node.address()).await;
    assert_eq!(other.send(PROBE).read().unwrap().status, 200);
    hoard.pop();
    eventually("a place is back", || node.plane.open_connections() == 3);
    let mut again = Wire::connect(node.address());
    assert_eq!(again.send(PROBE).read().unwrap().status, 200);
}
