//! What outbound requests pass on: the number of hops, which ends loops through the ingress, and the trace.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use node_shim_core::validation::Rejection;

use super::origin::{Exchange, TestNetwork, origin};
use super::{HELLO, answering, setup};
use crate::guests;
use crate::support::node::{Node, PATIENCE};
use crate::support::outbound::Call;
use crate::support::wire::{get, once};

pub(super) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// HG-21: the nodes do not know that the requests come from their own functions, and the ingress chooses another node for
/// each.
#[test]
fn hg_21_a_loop_through_the_ingress_ends() {
    let nodes: Arc<OnceLock<Vec<std::net::SocketAddr>>> = Arc::default();
    let (behind, passed) = (nodes.clone(), Arc::new(AtomicUsize::new(0)));
    let turns = passed.clone();
    let ingress = origin(move |mut exchange: Exchange| {
        while let Some(head) = exchange.head() {
            let nodes = behind.wait();
            let turn = turns.fetch_add(1, Ordering::Relaxed);
            let status = once(nodes[turn % nodes.len()], head).status;
            exchange.send(&format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let network = TestNetwork::to(ingress);
    let start = || {
        let setup = setup(&network, &["http://api.example"]);
        let node = setup.start(&Call::get("api.example").guest());
        node.plane.set_hop_key(b"of the cluster");
        node
    };
    let pair = [start(), start()];
    nodes.set(pair.iter().map(Node::address).collect()).unwrap();
    assert_eq!(get(pair[0].address(), "/").status, 508);
    assert_eq!(passed.load(Ordering::Relaxed), 9);
    let rejected = |node: &Node| {
        let mut all = node.plane.node_counters().rejections();
        all.find(|(one, _)| *one == Rejection::Loop).unwrap().1
    };
    assert_eq!(pair.iter().map(rejected).sum::<u64>(), 1);
}

/// HH-20: no client can write a number, and no function and no origin can use one.
#[test]
fn hh_20_a_forged_number_has_no_effect() {
    let (address, heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    let node = setup(&network, &["http://api.example"]).start(&Call::get("api.example").guest());
    let request = |hops: &str| {
        let request = format!("GET / HTTP/1.1\r\nhost: h.example\r\nselvage-hops: {hops}\r\n\r\n");
        assert_eq!(once(node.address(), request).status, 201, "{hops}");
        let head = heads.recv_timeout(PATIENCE).unwrap();
        field(&head, "selvage-hops").unwrap().to_owned()
    };
    let first = request("");
    assert!(first.starts_with("1."), "{first}");
    for forged in [
        "8",
        "9.00000000000000000000000000000000",
        &first.replacen('1', "9", 1),
        // valid for the host of the origin only
        &first,
    ] {
        assert_eq!(request(forged), first, "{forged}");
    }
    let mut setup = setup(&network, &[]);
    setup.options.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let node = setup.start(&guests::MIRROR);
    let request = format!("GET / HTTP/1.1\r\nhost: h.example\r\nselvage-hops: {first}\r\n\r\n");
    let text = once(node.address(), request).text();
    assert!(!text.contains("selvage"), "{text}");
}

#[test]
fn an_outbound_request_belongs_to_the_trace_of_its_request() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (address, heads) = answering(HELLO);
    let network = TestNetwork::to(address);
    let request =
        format!("GET / HTTP/1.1\r\nhost: h\r\ntraceparent: {parent}\r\ntracestate: a=1\r\n\r\n");
    let mut seen = Vec::new();
    for trusted in [vec![], vec!["127.0.0.0/8".parse().unwrap()]] {
        let mut setup = setup(&network, &["http://api.example"]);
        setup.options.trusted_proxies = trusted;
        let node = setup.start(&Call::get("api.example").guest());
        assert_eq!(once(node.address(), &request).status, 201);
        let head = heads.recv_timeout(PATIENCE).unwrap();
        let trace = |name| field(&head, name).map(str::to_owned);
        seen.push((trace("traceparent"), trace("tracestate")));
    }
    let started = seen[0].0.as_ref().unwrap();
    assert!(started.ends_with("-00") && started != parent, "{started}");
    assert_eq!(seen[0].1, None);
    let kept = (Some(parent.to_owned()), Some("a=1".to_owned()));
    assert_eq!(seen[1], kept);
}
