//! Bodies, trailers and the ends of requests on their way through two nodes.

use http_body_util::{BodyExt, Full};
use hyper::Request;
use tokio::sync::mpsc;

use super::{forwarding, forwards, serving};
use crate::grpc;
use crate::guests;
use crate::support::h2;
use crate::support::node::eventually;
use crate::support::wire::{Wire, once};
use crate::trailers;

/// Each event arrives before the next one is sent, so neither node waits for more.
#[test]
fn events_pass_one_by_one_in_both_directions() {
    let server = serving(&guests::ECHO);
    let forwarder = forwarding(&[&server]);
    let mut wire = Wire::connect(forwarder.address());
    wire.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
    wire.send("3\r\none\r\n");
    assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
    while wire.line().is_some_and(|line| !line.is_empty()) {}
    assert_eq!(wire.chunk(), b"one");
    for event in ["two", "six"] {
        wire.send(format!("3\r\n{event}\r\n"));
        assert_eq!(wire.chunk(), event.as_bytes());
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.chunk(), b"");
    assert_eq!(server.outcomes(1), ["ok 2xx 1"]);
    eventually("it is counted", || forwards(&forwarder) == ["answered 1"]);
}

/// A client that reads events, for example in a browser, leaves: the function ends.
#[test]
fn a_client_that_leaves_ends_the_function() {
    let server = serving(&guests::ECHO);
    let forwarder = forwarding(&[&server]);
    let mut wire = Wire::connect(forwarder.address());
    wire.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n");
    assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
    while wire.line().is_some_and(|line| !line.is_empty()) {}
    assert_eq!(wire.chunk(), b"one");
    wire.reset();
    assert_eq!(server.outcomes(1), ["client 2xx 1"]);
    server.is_quiet();
    eventually("it is counted", || forwards(&forwarder) == ["client 1"]);
}

/// The same before the response has begun.
#[tokio::test]
async fn a_client_that_does_not_wait_ends_the_function() {
    let server = serving(&guests::SLEEP);
    let forwarder = forwarding(&[&server]);
    let mut sender = h2::connect(forwarder.address()).await;
    let request = Request::get("http://h.example/")
        .body(Full::default())
        .unwrap();
    let response = sender.send_request(request);
    let started = async {
        while server.plane.free_instance_slots() == server.slots() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = response => panic!("it sleeps"),
        () = started => {}
    }
    let outcomes = tokio::task::spawn_blocking(move || server.outcomes(1));
    assert_eq!(outcomes.await.unwrap(), ["client none 1"]);
}

#[test]
fn large_bodies_pass_in_both_directions() {
    let server = serving(&guests::ECHO);
    let forwarder = forwarding(&[&server]);
    let body: Vec<u8> = (0..5_000_000_u32)
        .map(|at| at.to_le_bytes()[at as usize % 4])
        .collect();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut wire = Wire::connect(forwarder.address());
    let mut writer = wire.again();
    let sent = body.clone();
    let writing = std::thread::spawn(move || writer.send(head).send(sent).is_sent());
    let reply = wire.read().unwrap();
    writing.join().unwrap();
    assert!(reply.status == 200 && reply.whole && reply.body == body);
    assert_eq!(server.outcomes(1), ["ok 2xx 1"]);
}

#[test]
fn a_client_that_expects_100_is_asked_for_its_body() {
    let server = serving(&guests::ECHO);
    let forwarder = forwarding(&[&server]);
    let mut wire = Wire::connect(forwarder.address());
    wire.send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 100 Continue"));
    assert_eq!(wire.line().as_deref(), Some(""));
    let reply = wire.send("hello").read().unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
}

#[test]
fn responses_without_a_body_keep_their_heads() {
    let server = serving(&guests::ANSWER);
    let forwarder = forwarding(&[&server]);
    let head = |address| {
        let mut wire = Wire::connect(address);
        wire.send("HEAD / HTTP/1.1\r\nhost: h\r\n\r\n");
        let reply = wire.read_head_only().unwrap();
        let length = reply.header("content-length").map(str::to_owned);
        // the connection serves another request
        let next = wire
            .send("GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .read()
            .unwrap();
        (reply.status, length, next.status, next.text())
    };
    assert_eq!(head(forwarder.address()), head(server.address()));
    let old = once(forwarder.address(), "GET / HTTP/1.0\r\nhost: h\r\n\r\n");
    assert_eq!((old.status, old.whole), (200, true));
}

/// Clients of HTTP/1.1 receive announced trailers, as from the node itself.
#[test]
fn announced_trailers_pass() {
    for pause in ["", trailers::PAUSE] {
        let server = serving(&trailers::guest(trailers::ANNOUNCED, pause));
        let forwarder = forwarding(&[&server]);
        let ask = |te: &str| {
            let head = format!("GET / HTTP/1.1\r\nhost: h\r\n{te}\r\n");
            let reply = once(forwarder.address(), head);
            assert_eq!((reply.text().as_str(), reply.whole), ("hello\n", true));
            reply.trailers
        };
        let sent = [("grpc-status".to_owned(), "0".to_owned())];
        assert_eq!(ask("te: trailers\r\n"), sent);
        assert_eq!(ask(""), []);
    }
}

#[tokio::test]
async fn trailers_pass_on_http_2() {
    for pause in ["", trailers::PAUSE] {
        let server = serving(&trailers::guest("", pause));
        let forwarder = forwarding(&[&server]);
        let response = h2::get(forwarder.address(), "/").await;
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(collected.to_bytes(), "hello\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_pass_in_turns() {
    let server = serving(&grpc::echo());
    let forwarder = forwarding(&[&server]);
    let (sender, receiver) = mpsc::channel(1);
    sender.send(grpc::message("first")).await.unwrap();
    let mut stream = grpc::streaming(&forwarder, receiver).await;
    assert_eq!(stream.message().await.unwrap().unwrap(), "first");
    for text in ["second", "third"] {
        sender.send(grpc::message(text)).await.unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap(), text);
    }
    drop(sender);
    assert_eq!(stream.message().await.unwrap(), None, "with status 0");
    assert_eq!(server.outcomes(1), ["ok 2xx 1"]);
}

/// What was received before the other node failed must not look complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_is_incomplete() {
    let server = serving(&guests::ECHO);
    let forwarder = forwarding(&[&server]);
    let mut wire = Wire::connect(forwarder.address());
    wire.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n");
    let reply = tokio::task::spawn_blocking(move || wire.read());
    while server.plane.free_instance_slots() == server.slots() {
        tokio::task::yield_now().await;
    }
    let zero = std::time::Duration::ZERO;
    server.plane.drain(zero, zero).await;
    let reply = reply.await.unwrap().unwrap();
    assert!(!reply.whole || reply.status >= 500, "{reply:?}");
    eventually("it is counted", || forwards(&forwarder) == ["failed 1"]);
}
