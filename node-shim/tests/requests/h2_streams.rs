//! Streams of one HTTP/2 connection do not affect each other.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::time::timeout;

use crate::guests::{self, READ_BODY};
use crate::support::component::guest;
use crate::support::frames::{
    END_HEADERS, END_STREAM, Frames, HEADERS, PROTOCOL_ERROR, RST_STREAM, StreamEvent, fields,
    frame,
};
use crate::support::h2;
use crate::support::node::{Node, PATIENCE, Setup};

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "h.example");
/// `:status: 200` as an index of the HPACK static table.
const OK: StreamEvent = StreamEvent::Response(0x88);

/// Responds to `/` after 200 ms.
fn late() -> Vec<u8> {
    guest(
        r#"(data (i32.const 4096) "hello\n")"#,
        "
        (call $sleep (i64.const 200000000))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 6))",
    )
}

/// Reads the body of a request for `/` and responds. Never reads the body of any other request and waits for
/// days.
fn picky() -> Vec<u8> {
    guest(
        r#"(data (i32.const 4096) "done")"#,
        &format!(
            "
        (call $request-path (local.get $req) (i32.const 64))
        (if (i32.ne (i32.load (i32.const 72)) (i32.const 1)) (then
          (call $sleep (i64.const 1000000000000000))))
        {READ_BODY}
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))"
        ),
    )
}

/// HH-7: a client that cancels all of its requests but one, as a browser does that closes a page, keeps its
/// connection and the remaining request.
#[test]
fn hh_7_many_cancelled_requests_leave_the_others_running() {
    let node = Node::serve(&late());
    let mut frames = Frames::connect(node.address());
    let head = fields(&[METHOD, SCHEME, (":path", "/"), AUTHORITY]);
    let open = |stream: u32| frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
    let cancel = |stream: u32| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let flight = (1..100).flat_map(|n| [open(2 * n + 1), cancel(2 * n + 1)].concat());
    frames.raw(&[open(1), flight.collect::<Vec<_>>()].concat());
    assert_eq!(frames.wait_for(1), OK);
    frames.raw(&open(301));
    assert_eq!(frames.wait_for(301), OK);
    node.is_quiet();
}

/// HH-7: bodies that guests do not read take nothing from the other streams of their connection.
#[tokio::test]
async fn hh_7_unread_bodies_do_not_block_other_streams() {
    let setup = Setup::limits(|l| {
        l.timeout = Duration::from_secs(3_600);
        l.first_byte = Duration::from_secs(3_600);
    });
    let node = setup.start(&picky());
    let sender = h2::connect(node.address()).await;
    let send = |path: &str, size: usize| {
        let mut sender = sender.clone();
        let body = Full::new(Bytes::from(vec![b'x'; size]));
        let request = Request::post(format!("http://h.example{path}"))
            .body(body)
            .unwrap();
        async move { sender.send_request(request).await }
    };
    let unread: Vec<_> = (0..24)
        .map(|_| tokio::spawn(send("/unread", 1 << 20)))
        .collect();
    for _ in 0..3 {
        let response = timeout(PATIENCE, send("/", 10_000))
            .await
            .expect("a response while other bodies are unread")
            .unwrap();
        let error = response.headers().get("selvage-error");
        assert_eq!((response.status().as_u16(), error), (200, None));
    }
    for stream in unread {
        assert!(!stream.is_finished());
        stream.abort();
    }
}

/// HH-7: a stream whose client does not read is reset alone.
#[tokio::test]
async fn hh_7_a_stalled_stream_does_not_end_its_connection() {
    let mut setup = Setup::connections(|c| c.write_stall = Duration::from_millis(300));
    setup.limits.cpu = Duration::from_secs(3_600);
    let node = setup.start(&guests::ENDLESS);
    let mut sender = h2::connect(node.address()).await;
    let request = || Request::get("http://h.example/").body(Full::default());
    let stalled = sender.send_request(request().unwrap()).await.unwrap();
    let node = tokio::task::spawn_blocking(move || {
        assert_eq!(node.outcomes(1), ["client 2xx 1"]);
        node.is_quiet();
        node
    });
    let node = node.await.unwrap();
    let other = sender.send_request(request().unwrap()).await;
    assert_eq!(other.expect("the connection is open").status(), 200);
    let (_, error) = h2::body(stalled).await.unwrap_err();
    assert!(error.contains("CANCEL"), "{error}");
    drop(node);
}

/// HH-16: a target without a path is malformed on HTTP/2.
#[test]
fn hh_16_a_target_without_a_path_is_malformed() {
    let node = Node::serve(&guests::ANSWER);
    let mut frames = Frames::connect(node.address());
    for (stream, path) in [(1, "?x=1"), (3, "?")] {
        let head = fields(&[METHOD, SCHEME, (":path", path), AUTHORITY]);
        frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        assert_eq!(
            frames.wait_for(stream),
            StreamEvent::Reset(PROTOCOL_ERROR),
            "{path}"
        );
    }
    let head = fields(&[METHOD, SCHEME, (":path", "/?x=1"), AUTHORITY]);
    frames.send(HEADERS, END_HEADERS | END_STREAM, 5, &head);
    assert_eq!(frames.wait_for(5), OK);
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
}
