//! Several event loops in one node: they run guests at the same time, share limits, and get equal numbers of connections.
//! Setups have two loops unless they say otherwise.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim::counters::CounterTable;
use node_shim::egress::{Network, ResolveError};
use node_shim_core::table::Limits;
use parking_lot::{Condvar, Mutex};
use tokio::net::TcpStream;

use crate::guests;
use crate::metrics::page;
use crate::support::h2;
use crate::support::node::{Node, PATIENCE, Setup, eventually, served};
use crate::support::outbound::Call;
use crate::support::wire::{Wire, get};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PROBE: &str = "GET /.well-known/selvage/ready HTTP/1.1\r\nhost: a\r\n\r\n";

/// A network that blocks the thread of each lookup, as nothing in the node does, until it opens.
#[derive(Debug)]
struct BlockingNetwork {
    state: Mutex<State>,
    changed: Condvar,
    /// Number of threads that have to be blocked at the same time until it opens.
    opens_at: usize,
}

#[derive(Debug, Default)]
struct State {
    blocked: usize,
    most_blocked: usize,
    open: bool,
}

impl BlockingNetwork {
    fn new(opens_at: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            opens_at,
        })
    }

    fn open(&self) {
        self.state.lock().open = true;
        self.changed.notify_all();
    }

    fn blocked(&self) -> usize {
        self.state.lock().blocked
    }

    fn most_blocked(&self) -> usize {
        self.state.lock().most_blocked
    }

    fn block(&self) {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        state.blocked += 1;
        state.most_blocked = state.most_blocked.max(state.blocked);
        if state.blocked == self.opens_at {
            state.open = true;
            self.changed.notify_all();
        }
        while !state.open && !self.changed.wait_until(&mut state, end).timed_out() {}
        state.blocked -= 1;
    }
}

impl Network for BlockingNetwork {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, ResolveError>> {
        async {
            self.block();
            Err(ResolveError::NotFound)
        }
        .boxed()
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed()
    }
}

/// Serves a guest that looks up a name and responds with a status from 200 to 299. The function is in a rollout, so that
/// its metrics have the requests that wait.
fn looking_up(network: &Arc<BlockingNetwork>, limits: impl FnOnce(&mut Limits)) -> Node {
    let mut setup = Setup::limits(|l| {
        l.first_byte = PATIENCE;
        limits(l);
    });
    setup.options.egress.network = network.clone();
    setup.options.egress.resolve_timeout = PATIENCE;
    setup.egress = vec!["http://api.example".into()];
    let counters = CounterTable::new();
    let guest = Call::get("api.example").guest();
    let revision = setup.revision("r1", &guest, &counters);
    let node = setup.start_empty(counters);
    let mut function = served(&revision, setup.routes);
    let mut entry = (*function.entry).clone();
    entry.split.in_rollout = true;
    function.entry = Arc::new(entry);
    node.publish(vec![function]);
    node
}

fn connect(node: &Node, request: &str) -> Wire {
    let mut wire = Wire::connect(node.address());
    wire.send(request);
    wire
}

fn succeeds(mut wire: Wire) -> bool {
    (200..300).contains(&wire.read().unwrap().status)
}

#[test]
fn two_guests_run_at_the_same_time() {
    let network = BlockingNetwork::new(2);
    let node = looking_up(&network, |_| {});
    let wires = [connect(&node, GET), connect(&node, GET)];
    assert!(wires.into_iter().all(succeeds));
    assert_eq!(network.most_blocked(), 2);
    node.is_quiet();
}

/// FN-11: the health check detects that one of the loops is blocked; the others go on serving.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_thread_delays_no_other_thread() {
    let network = BlockingNetwork::new(usize::MAX);
    let node = looking_up(&network, |_| {});
    let blocked = connect(&node, GET);
    eventually("a thread is blocked", || network.blocked() == 1);
    for _ in 0..20 {
        // the blocked loop has one connection, the other one none
        assert!(succeeds(connect(&node, PROBE)));
        eventually("it is closed", || node.plane.open_connections() == 1);
    }
    assert!(!node.plane.responds_within(Duration::from_millis(50)).await);
    assert_eq!(network.blocked(), 1);
    network.open();
    assert!(succeeds(blocked));
    assert!(node.plane.responds_within(PATIENCE).await);
}

/// The request that waits is on another thread than the one that runs.
#[test]
fn a_concurrency_limit_holds_over_all_threads() {
    let network = BlockingNetwork::new(usize::MAX);
    let node = looking_up(&network, |l| {
        l.concurrency = 1;
        l.queue_timeout = PATIENCE;
    });
    let running = connect(&node, GET);
    eventually("a thread is blocked", || network.blocked() == 1);
    let waiting = connect(&node, GET);
    let queued =
        "selvage_queued_requests{function_namespace=\"ns\",function=\"f\",revision=\"r1\"} 1";
    eventually("the other request waits", || {
        page(&node).lines().any(|line| line == queued)
    });
    assert_eq!(node.plane.connections_by_thread(), [1, 1]);
    network.open();
    assert!(succeeds(running) && succeeds(waiting));
    assert_eq!(network.most_blocked(), 1);
    node.is_quiet();
}

/// FN-3: on every thread, a request in progress ends before the node does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_finishes_requests_on_all_threads() {
    let node = Arc::new(Node::serve(&guests::ECHO));
    let mut wires = Vec::new();
    for _ in 0..2 {
        let mut wire = connect(
            &node,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        );
        assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
        wires.push(wire);
    }
    assert_eq!(node.plane.connections_by_thread(), [1, 1]);
    let draining = node.clone();
    let drain = tokio::spawn(async move {
        draining.plane.drain(Duration::ZERO, PATIENCE).await;
    });
    eventually("no connection is accepted", || {
        std::net::TcpStream::connect(node.address()).is_err()
    });
    for mut wire in wires {
        wire.send("4\r\nlast\r\n0\r\n\r\n");
        while wire.line().is_some_and(|field| !field.is_empty()) {}
        assert_eq!(wire.chunk(), b"first");
        assert_eq!(wire.chunk(), b"last");
        assert_eq!(wire.chunk(), b"");
    }
    drain.await.unwrap();
    assert_eq!(node.outcomes(2), ["ok 2xx 2"]);
    assert_eq!(node.plane.connections_by_thread(), [0, 0]);
}

/// The few connections that a proxy keeps open are spread over all threads, whatever their addresses are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_http_2_are_spread_over_all_threads() {
    let node = Node::serve(&guests::ANSWER);
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(h2::connect(node.address()).await);
        let opened = clients.len();
        eventually("it is accepted", || {
            node.plane.connections_by_thread().iter().sum::<usize>() == opened
        });
    }
    assert_eq!(node.plane.connections_by_thread(), [2, 2]);
    // the first and the third are on the same thread, because equal threads take turns
    drop((clients.remove(2), clients.remove(0)));
    eventually("a thread has no connections", || {
        node.plane.connections_by_thread() == [0, 2]
    });
    for _ in 0..2 {
        clients.push(h2::connect(node.address()).await);
    }
    eventually("both are on that thread", || {
        node.plane.connections_by_thread() == [2, 2]
    });
}

/// Connections take turns on equal threads, so every other request meets the instance of the other thread.
#[test]
fn an_instance_answers_requests_on_any_thread() {
    let mut setup = Setup::default();
    setup.reuse.max_requests = 100;
    setup.reuse.idle_timeout = PATIENCE;
    for guest in [
        crate::reuse::counting(""),
        crate::services::reuse::counting(""),
    ] {
        let node = setup.clone().start(&guest);
        for count in 1..=6 {
            assert_eq!(get(node.address(), "/").text(), count.to_string());
            node.has_idle(1);
            eventually("it is closed", || node.plane.open_connections() == 0);
        }
    }
}
