//! Hostile input in large numbers: many header fields, many clients that disconnect.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::guests::READ_BODY;
use crate::support::component::guest;
use crate::support::h2;
use crate::support::node::Setup;
use crate::support::wire::{Wire, get};

/// Appends `set-cookie` 5,000 times; responds with 418 when the host rejects one.
fn cookies(value: &str) -> Vec<u8> {
    guest(
        &format!(r#"(data (i32.const 4096) "set-cookie") (data (i32.const 4128) "{value}")"#),
        &format!(
            "
        (local.set $i (call $fields))
        (local.set $n (i32.const 5000))
        (block $refused
          (loop $more
            (br_if $refused (call $header (local.get $i) (i32.const 4096) (i32.const 10) (i32.const 4128) (i32.const {})))
            (local.set $n (i32.sub (local.get $n) (i32.const 1)))
            (br_if $more (local.get $n))))
        (local.set $r (call $response (local.get $i)))
        (if (local.get $n) (then (drop (call $set-status (local.get $r) (i32.const 418)))))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (drop (call $finish (local.get $b)))",
            value.len()
        ),
    )
}

/// HG-18: the total size of header fields is bounded, and the connection stays usable.
#[test]
fn hg_18_five_thousand_cookies_are_rejected() {
    for value in ["", "a", "a=1; path=/; secure; httponly; samesite=lax"] {
        let node = Setup::default().start(&cookies(value));
        let mut wire = Wire::connect(node.address());
        for _ in 0..2 {
            wire.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
            let reply = wire.read().unwrap();
            assert_eq!(reply.status_and_error(), (500, "trap"), "{value:?}");
            assert_eq!(reply.header("set-cookie"), None);
        }
        assert_eq!(node.outcomes(2), ["trap 5xx 2"]);
        assert_eq!(node.failures(), ["host_limit 2"]);
        node.is_quiet();
    }
}

/// Reads its request, sends a head, then some data every millisecond in an endless loop.
fn endless() -> Vec<u8> {
    guest(
        r#"(data (i32.const 4096) "a part")"#,
        &format!(
            "
        {READ_BODY}
        (local.set $r (call $make (i32.const 200)))
        (local.set $b (call $body (local.get $r)))
        (call $set (local.get $out) (local.get $r))
        (local.set $s (call $open (local.get $b)))
        (loop $on
          (drop (call $write (local.get $s) (i32.const 4096) (i32.const 6)))
          (call $sleep (i64.const 1000000))
          (br $on))"
        ),
    )
}

/// Sends part of a request, reads part of its response, and disconnects.
fn leave(address: SocketAddr, dice: &mut fastrand::Rng) {
    let request = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nabcde";
    let mut wire = Wire::connect(address);
    match dice.u8(..4) {
        0 => wire.send(&request[..dice.usize(..request.len())]).is_sent(),
        1 => wire.send(request).is_sent(),
        2 => assert!(wire.send(request).line().is_some()),
        _ => {
            wire.send(request);
            while wire.line().is_some_and(|line| !line.contains("a part")) {}
        }
    }
}

/// Resets streams of one connection at random times.
async fn reset(address: SocketAddr, times: usize, mut dice: fastrand::Rng) {
    let mut sender = h2::connect(address).await;
    for _ in 0..times {
        if sender.ready().await.is_err() {
            sender = h2::connect(address).await;
        }
        let body = Full::new(Bytes::from_static(b"abcde"));
        let request = Request::post("http://h.example/").body(body).unwrap();
        let exchange = async {
            let mut answer = sender.send_request(request).await?.into_body();
            while let Some(frame) = answer.frame().await {
                frame?;
            }
            Ok::<_, hyper::Error>(())
        };
        let patience = Duration::from_micros(dice.u64(..5_000));
        let _ = tokio::time::timeout(patience, exchange).await;
    }
}

/// HG-19: ten thousand clients disconnect at random times. They count as `client`, and all slots are freed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hg_19_ten_thousand_disconnecting_clients_leak_nothing() {
    let setup = Setup::limits(|l| {
        l.concurrency = 16;
        l.queue_length = 1_000;
        l.queue_timeout = Duration::from_secs(60);
        l.timeout = Duration::from_secs(60);
        l.first_byte = Duration::from_secs(60);
    });
    let node = setup.start(&endless());
    let address = node.address();
    let mut dice = fastrand::Rng::with_seed(19);
    let resets = (0..8).map(|_| reset(address, 1_000, dice.fork()));
    futures::future::join_all(resets.collect::<Vec<_>>()).await;
    let leaves = (0..4).map(|_| {
        let mut dice = dice.fork();
        std::thread::spawn(move || (0..500).for_each(|_| leave(address, &mut dice)))
    });
    for thread in leaves.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
    node.is_quiet();
    let outcomes = node.outcomes(1);
    assert!(
        outcomes
            .iter()
            .all(|outcome| outcome.starts_with("client ")),
        "{outcomes:?}"
    );
    let failures = node.failures();
    assert!(
        failures
            .iter()
            .all(|one| one.starts_with("client_gone ") || one.starts_with("bad_framing ")),
        "{failures:?}"
    );
    let probe = get(address, "/.well-known/selvage/ready");
    assert_eq!(probe.status, 200);
}
