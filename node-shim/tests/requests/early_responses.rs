//! Responses that are complete before the client has sent its whole request. The client receives them, and
//! the connection stays in step with its requests.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::guests;
use crate::support::component::guest;
use crate::support::h2;
use crate::support::node::{Node, Setup, eventually};
use crate::support::wire::{Reply, Wire};

/// Size of a request body that no socket buffer holds.
const LARGE: usize = 8 << 20;

/// Returns a request with `length` bytes of body, all of them `#`.
fn upload(head: &str, length: usize) -> Vec<u8> {
    let head = format!("{head}\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + length, b'#');
    bytes
}

/// Checks that the connection ends as announced, or that it can be used again. It can when the guest has not
/// ended yet when its response starts, because the guest may still read the body.
fn ends_or_continues(wire: &mut Wire, reply: &Reply) {
    if reply.header("connection") == Some("close") {
        assert!(wire.is_closed());
    } else {
        wire.send("TRACE / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(wire.read().expect("a second response").status, 405);
    }
}

/// HH-13: a client that sends its whole body before it reads receives the response.
#[test]
fn hh_13_a_response_before_the_end_of_a_large_upload_arrives() {
    let node = Setup::limits(|l| l.request_body = 4 << 20).start(&guests::ANSWER);
    let open = Node::serve(&guests::ANSWER);
    let unread = upload("POST / HTTP/1.1", LARGE);
    let rows: &[(&Node, Vec<u8>, (u16, &str))] = &[
        (&open, unread.clone(), (200, "")),
        (&node, unread, (413, "body_too_large")),
        (
            &open,
            upload("POST /../ HTTP/1.1", LARGE),
            (400, "bad_path"),
        ),
        (&open, upload("TRACE / HTTP/1.1", LARGE), (405, "method")),
        (
            &open,
            upload("POST / HTTP/1.1\r\nexpect: tea", LARGE),
            (417, "expect"),
        ),
        (&open, upload("POST / HTTP/1.0", 1 << 20), (200, "")),
    ];
    for (node, request, expected) in rows {
        for _ in 0..10 {
            let mut wire = Wire::connect(node.address());
            let head = String::from_utf8_lossy(&request[..40]);
            assert!(!wire.send_fails(request), "{head}");
            let reply = wire.read().expect("a response");
            assert_eq!(reply.status_and_error(), *expected, "{head}");
            ends_or_continues(&mut wire, &reply);
        }
    }
    open.is_quiet();
}

/// HH-13: the same for a chunked body, whose length is not known in advance.
#[test]
fn hh_13_a_response_before_the_end_of_a_chunked_upload_arrives() {
    let node = Node::serve(&guests::ANSWER);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..10 {
        let mut wire = Wire::connect(node.address());
        wire.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..128 {
            assert!(!wire.send_fails(&chunk));
        }
        wire.send("0\r\n\r\n");
        let reply = wire.read().expect("a response");
        assert_eq!(reply.status, 200);
        ends_or_continues(&mut wire, &reply);
    }
}

/// HH-13: a small rest of a body is read and discarded, so the next request is answered.
#[test]
fn hh_13_the_next_request_follows_a_small_unread_body() {
    let node = Node::serve(&guests::ANSWER);
    let mut wire = Wire::connect(node.address());
    for _ in 0..30 {
        wire.send(upload("POST / HTTP/1.1", 70_000));
        let reply = wire.read().expect("a response");
        assert_eq!((reply.status, reply.header("connection")), (200, None));
        wire.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(wire.read().expect("a second response").status, 200);
        // a request that is rejected before a guest runs
        wire.send(upload("TRACE / HTTP/1.1", 70_000));
        assert_eq!(wire.read().expect("a third response").status, 405);
    }
}

/// HH-13: bytes of an unread body are not taken for a request line.
#[test]
fn hh_13_an_unread_body_is_not_scanned_as_a_request() {
    let late = guest(
        r#"(data (i32.const 4096) "hello\n")"#,
        "
        (call $sleep (i64.const 1000000000))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 6))",
    );
    let node = Node::serve(&late);
    let mut wire = Wire::connect(node.address());
    for _ in 0..2 {
        wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 12000\r\n\r\n");
        eventually("the guest runs", || {
            node.plane.free_instance_slots() < node.slots()
        });
        // more than hyper reads ahead
        wire.send("#".repeat(12_000));
        assert_eq!(wire.read().expect("a response").status, 200);
    }
}

/// HH-13: the rest of a body is read for a limited time and up to a limited size.
#[test]
fn hh_13_the_rest_of_a_body_is_bounded() {
    let silent = Setup::connections(|c| c.linger_idle = Duration::from_millis(200));
    let node = silent.start(&guests::ANSWER);
    let mut wire = Wire::connect(node.address());
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc");
    assert_eq!(wire.read().unwrap().status, 200);
    eventually("a silent client is dropped", || {
        node.plane.open_connections() == 0
    });

    let slow = Setup::connections(|c| c.linger = Duration::from_millis(300));
    let node = slow.start(&guests::ANSWER);
    let mut wire = Wire::connect(node.address());
    let mut writer = wire.again();
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n");
    assert_eq!(wire.read().unwrap().status_and_error().0, 413);
    let dropped = std::thread::spawn(move || {
        while !writer.send_fails("x") {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    eventually("a slow client is dropped", || {
        node.plane.open_connections() == 0
    });
    dropped.join().unwrap();

    let small = Setup::connections(|c| c.linger_bytes = 1 << 20);
    let node = small.start(&guests::ANSWER);
    let mut wire = Wire::connect(node.address());
    wire.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n");
    assert_eq!(wire.read().unwrap().status_and_error().0, 413);
    let block = vec![b'x'; 1 << 20];
    let sent = (0..900).take_while(|_| !wire.send_fails(&block)).count();
    assert!(sent < 900, "{sent} MiB were accepted");
}

/// HH-13: unread uploads do not end an HTTP/2 connection.
#[tokio::test]
async fn hh_13_unread_uploads_leave_an_http_2_connection_intact() {
    let node = Node::serve(&guests::ANSWER);
    let sender = h2::connect(node.address()).await;
    for _ in 0..20 {
        let uploads = (0..16).map(|_| {
            let mut sender = sender.clone();
            let body = Full::new(Bytes::from(vec![b'x'; 200_000]));
            let request = Request::post("http://h.example/").body(body).unwrap();
            async move {
                let response = sender.send_request(request).await;
                h2::body(response.expect("the connection is open")).await
            }
        });
        for body in futures::future::join_all(uploads.collect::<Vec<_>>()).await {
            assert_eq!(body, Ok(Bytes::from_static(b"hello\n")));
        }
    }
    assert_eq!(node.outcomes(320), ["ok 2xx 320"]);
}
