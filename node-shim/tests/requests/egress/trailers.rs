//! Trailers of outbound requests and of their responses. `tls` has those of HTTP/2.

use http_body_util::BodyExt;

use super::origin::{TestNetwork, origin};
use super::{counted, setup};
use crate::support::h2;
use crate::support::node::PATIENCE;
use crate::support::outbound::Call;

/// The connection is used again, which shows that both messages count as complete.
#[tokio::test]
async fn trailers_are_exchanged_over_http_1() {
    let (seen, received) = std::sync::mpsc::channel();
    let seen = parking_lot::Mutex::new(seen);
    let address = origin(move |mut exchange| {
        while let Some(head) = exchange.head() {
            let body = exchange.until("\r\n0\r\nx-sum: 1\r\n\r\n");
            // the test has ended when this fails
            let _ = seen.lock().send((head, body));
            exchange
                .send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n");
            exchange.send("3\r\nfor\r\n0\r\nx-sum: 2\r\n\r\n");
        }
    });
    let network = TestNetwork::to(address);
    let call = Call {
        post: true,
        ..Call::get("api.example")
    };
    let node = setup(&network, &["http://api.example"]).start(&call.exchanging_trailers());
    for _ in 0..2 {
        let response = h2::get(node.address(), "/").await;
        let collected = response.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        assert_eq!(trailers.get("x-sum").unwrap(), "2");
        assert_eq!(collected.to_bytes(), "for");
        let (head, body) = received.recv_timeout(PATIENCE).unwrap();
        assert!(head.contains("trailer: x-sum\r\n"), "{head}");
        assert_eq!(body.unwrap(), "3\r\napi\r\n0\r\nx-sum: 1\r\n\r\n");
    }
    assert_eq!(network.connected().len(), 1);
    assert_eq!(counted(&node), ["requests_total outcome=response 2"]);
    node.is_quiet();
}
