//! Bodies that stream in both directions: what one side sends reaches the other before more follows.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpStream;

use crate::guests;
use crate::support::component::guest;
use crate::support::h2 as hyper_h2;
use crate::support::node::Node;
use crate::support::wire::Wire;

const EVENTS: [&str; 3] = ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"];

/// The guest sends an event when it receives one, so each event has arrived before the next one exists.
#[test]
fn events_arrive_one_by_one_on_http_1() {
    let node = Node::serve(&guests::ECHO);
    let mut wire = Wire::connect(node.address());
    wire.send("POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n");
    wire.send("9\r\ndata: 1\n\n\r\n");
    assert_eq!(wire.line().as_deref(), Some("HTTP/1.1 200 OK"));
    while wire.line().is_some_and(|line| !line.is_empty()) {}
    assert_eq!(received(&mut wire), EVENTS[0]);
    for event in &EVENTS[1..] {
        wire.send(format!("9\r\n{event}\r\n"));
        assert_eq!(received(&mut wire), *event);
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.chunk(), b"");
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// Reads an event, which the way may divide into chunks.
fn received(wire: &mut Wire) -> String {
    let mut event = Vec::new();
    while !event.ends_with(b"\n\n") {
        event.extend(wire.chunk());
    }
    String::from_utf8(event).unwrap()
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn post() -> Request<()> {
    Request::post("http://h.example/").body(()).unwrap()
}

/// Returns the next data of a body; none at its end.
async fn next(body: &mut RecvStream) -> Bytes {
    let Some(data) = body.data().await else {
        return Bytes::new();
    };
    let data = data.unwrap();
    body.flow_control().release_capacity(data.len()).unwrap();
    data
}

async fn event(body: &mut RecvStream) -> Vec<u8> {
    let mut event = Vec::new();
    while !event.ends_with(b"\n\n") {
        let data = next(body).await;
        assert!(!data.is_empty(), "the body ended in an event");
        event.extend_from_slice(&data);
    }
    event
}

fn send(stream: &mut SendStream<Bytes>, text: &'static str) {
    let data = Bytes::from_static(text.as_bytes());
    stream.send_data(data, false).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one_on_http_2() {
    let node = Node::serve(&guests::ECHO);
    let mut client = connect(node.address()).await;
    let (response, mut stream) = client.send_request(post(), false).unwrap();
    send(&mut stream, EVENTS[0]);
    let mut body = response.await.unwrap().into_body();
    assert_eq!(event(&mut body).await, EVENTS[0].as_bytes());
    for sent in &EVENTS[1..] {
        send(&mut stream, sent);
        assert_eq!(event(&mut body).await, sent.as_bytes());
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(next(&mut body).await, "");
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// A body that exceeds every window on its way, in both directions at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_echo_streams_through_all_windows_of_http_2() {
    let node = Node::serve(&guests::ECHO);
    let sent: Bytes = (0..6_u32 << 20).map(|at| (at % 251) as u8).collect();
    let request = Request::post("http://h.example/")
        .body(Full::new(sent.clone()))
        .unwrap();
    let mut client = hyper_h2::connect(node.address()).await;
    let response = client.send_request(request).await.unwrap();
    let received = response.into_body().collect().await.unwrap().to_bytes();
    assert!(received == sent, "{} bytes", received.len());
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}

/// Trailers of a request reach the guest after its body, without those that are not allowed.
#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_a_request_reach_the_guest() {
    const SUM: &str = r#"
        (import "wasi:http/types@0.2.12" "[static]incoming-body.finish" (func $incoming-finish (param i32) (result i32)))
        (import "wasi:http/types@0.2.12" "[method]future-trailers.subscribe" (func $trailers-ready (param i32) (result i32)))
        (import "wasi:http/types@0.2.12" "[method]future-trailers.get" (func $trailers-get (param i32 i32)))
        (import "wasi:http/types@0.2.12" "[method]fields.get" (func $fields-get (param i32 i32 i32 i32)))
        (import "wasi:http/types@0.2.12" "[method]fields.has" (func $fields-has (param i32 i32 i32) (result i32)))
        (import "wasi:io/streams@0.2.12" "[resource-drop]input-stream" (func $input-drop (param i32)))
        (data (i32.const 4096) "x-sum") (data (i32.const 4104) "x-forwarded-for")"#;
    // layout of `get`: option, result, result, option, handle
    let sum = guest(
        SUM,
        "
        (call $consume (local.get $req) (i32.const 16))
        (local.set $b (i32.load (i32.const 20)))
        (call $incoming-stream (local.get $b) (i32.const 16))
        (local.set $i (i32.load (i32.const 20)))
        (loop $more
          (global.set $heap (i32.const 65536))
          (call $blocking-read (local.get $i) (i64.const 4096) (i32.const 16))
          (br_if $more (i32.eqz (i32.load8_u (i32.const 16)))))
        (call $input-drop (local.get $i))
        (local.set $n (call $incoming-finish (local.get $b)))
        (call $block (call $trailers-ready (local.get $n)))
        (call $trailers-get (local.get $n) (i32.const 64))
        (if (i32.eqz (i32.load8_u (i32.const 64))) (then (unreachable)))
        (if (i32.or (i32.load8_u (i32.const 72)) (i32.load8_u (i32.const 80))) (then (unreachable)))
        (if (i32.eqz (i32.load8_u (i32.const 88))) (then (unreachable)))
        (local.set $n (i32.load (i32.const 92)))
        (if (call $fields-has (local.get $n) (i32.const 4104) (i32.const 15)) (then (unreachable)))
        (call $fields-get (local.get $n) (i32.const 4096) (i32.const 5) (i32.const 64))
        (local.set $n (i32.load (i32.const 64)))
        (call $answer (local.get $out) (i32.const 200) (i32.load (local.get $n)) (i32.load offset=4 (local.get $n)))",
    );
    let node = Node::serve(&sum);
    let mut client = connect(node.address()).await;
    let (response, mut stream) = client.send_request(post(), false).unwrap();
    send(&mut stream, "body");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    trailers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
    stream.send_trailers(trailers).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(next(&mut body).await, "42");
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}
