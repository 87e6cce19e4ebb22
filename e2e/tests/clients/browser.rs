//! Chromium as a client: the version of HTTP that it agrees on, and server-sent events.

use base64::{Engine, engine::general_purpose::STANDARD};
use e2e::cluster::{Purpose, install};
use e2e_browser::Browser;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::server::Server;

/// Reads three events, each with the state of the connection. An error is the result when the stream ends.
const EVENTS: &str = "new Promise((done, failed) => {
    const source = new EventSource('/events');
    const events = [];
    source.onmessage = ({ data }) => {
        events.push({ data, open: source.readyState === EventSource.OPEN });
        if (events.length === 3) done(events);
    };
    source.onerror = () => failed(new Error(`the stream ended after ${JSON.stringify(events)}`));
})";

/// The function sends events without end, so a response that anything collects never arrives.
#[tokio::test]
async fn chromium_reads_events_while_the_response_continues() {
    install(&[Purpose::Tests]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), "gather.wasm", &["UPSTREAMS=denied.example"]);
    // Chromium verifies any other certificate
    let key = STANDARD.encode(Sha256::digest(&server.public_key));
    let option = format!("--ignore-certificate-errors-spki-list={key}");
    let mut browser = Browser::start(&[&option]).await;
    browser.call("Network.enable", json!({})).await;
    for (scheme, port, protocol) in [
        ("https", server.tls.port(), "h2"),
        ("http", server.plain.port(), "http/1.1"),
    ] {
        let page = format!("{scheme}://localhost:{port}/");
        browser.open(&page).await;
        browser
            .until("document.body.textContent.startsWith('denied.example ')")
            .await;
        let agreed = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
        assert_eq!(browser.value(agreed).await, protocol, "{scheme}");

        let events = browser.value(EVENTS).await;
        for event in events.as_array().unwrap() {
            let data = event["data"].as_str().unwrap();
            assert!(data.starts_with("denied.example "), "{scheme}: {events}");
            assert_eq!(event["open"], true, "{scheme}: {events}");
        }
        let stream = format!("{page}events");
        let received = browser
            .event("Network.responseReceived", |received| {
                received["response"]["url"] == *stream
            })
            .await;
        assert_eq!(received["response"]["protocol"], protocol, "{received}");
    }
}
