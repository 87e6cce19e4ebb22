//! Streams of changes.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use futures::StreamExt;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::access::Access;
use super::Page;
use super::objects::{now, ready, stepping};
use crate::watch::ObjectKey;

/// A client of a stream.
pub(super) struct Client {
    body: axum::body::BodyDataStream,
}

impl Client {
    pub(super) async fn open(page: &Page, path: &str) -> Self {
        let response = page.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: Body::into_data_stream(response.into_body()),
        }
    }

    /// The next event: its name and data.
    pub(super) async fn next(&mut self) -> (String, Value) {
        let chunk = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await;
        let text = chunk.unwrap().unwrap().unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        let field = |name| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
        };
        (
            field("event: ").to_owned(),
            serde_json::from_str(field("data: ")).unwrap(),
        )
    }
}

#[tokio::test]
async fn a_stream_begins_with_the_list_and_sends_changes_only() {
    let page = Page::open();
    for number in 0..300 {
        page.put(ready("many", &format!("f{number}")));
    }
    let mut client = Client::open(&page, "/api/streams").await;
    let (name, list) = client.next().await;
    assert_eq!(
        (
            &*name,
            &list["total"],
            list["rows"].as_array().unwrap().len()
        ),
        ("list", &json!(300), 50)
    );
    page.put(stepping("many", "f7", now(), 30));
    let (name, changes) = client.next().await;
    assert_eq!(
        (&*name, changes["rows"].as_array().unwrap().len()),
        ("changes", 1)
    );
    assert_eq!(
        (
            &changes["rows"][0]["phase"],
            &changes["counts"]["Progressing"]
        ),
        (&json!("Progressing"), &json!(1))
    );
    let gone = ObjectKey::new("many", "f7");
    page.caches.functions.take(&gone);
    page.feed.handle([gone].into(), now());
    let (_, changes) = client.next().await;
    assert_eq!(changes["gone"], json!([["many", "f7"]]));
    // the rows of many changes at once are not sent to every client
    let many = (0..300)
        .map(|number| ObjectKey::new("many", &format!("f{number}")))
        .collect();
    page.feed.handle(many, now());
    assert_eq!(client.next().await, ("many".to_owned(), json!({})));
}

#[tokio::test]
async fn a_stream_of_a_function_is_silent_about_others() {
    let page = Page::open();
    page.put(ready("shop", "checkout"));
    let mut client = Client::open(&page, "/api/streams/shop/checkout").await;
    assert_eq!(client.next().await.1["row"]["phase"], "Ready");
    page.put(ready("shop", "other"));
    page.put(stepping(
        "shop",
        "checkout",
        now() - SignedDuration::from_secs(60),
        30,
    ));
    let (name, view) = client.next().await;
    assert_eq!(
        (&*name, &view["row"]["phase"]),
        ("function", &json!("Progressing"))
    );
    let key = ObjectKey::new("shop", "checkout");
    page.caches.functions.take(&key);
    page.feed.handle([key].into(), now());
    assert_eq!(client.next().await.0, "gone");
}

#[tokio::test]
async fn a_client_that_reads_slowly_reads_the_list_again() {
    let page = Page::open();
    let mut client = Client::open(&page, "/api/streams").await;
    assert_eq!(client.next().await.0, "list");
    for _ in 0..100 {
        page.put(ready("shop", "checkout"));
    }
    assert_eq!(client.next().await.0, "many");
    assert_eq!(client.next().await.0, "changes");
}

#[tokio::test]
async fn the_number_of_streams_is_bounded() {
    let page = Page::new(Access::new(Vec::new(), None), 2);
    page.put(ready("shop", "checkout"));
    let first = Client::open(&page, "/api/streams").await;
    let _second = Client::open(&page, "/api/streams/shop/checkout").await;
    for path in ["/api/streams", "/api/streams/shop/checkout"] {
        let refused = page.get(path).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(refused.headers()["retry-after"], "15");
    }
    assert_eq!(page.get("/api/functions").await.status(), StatusCode::OK);
    // a client that goes away makes room
    drop(first);
    Client::open(&page, "/api/streams").await;
}

/// Changes in the caches reach a stream, and those of half a second reach it together.
#[tokio::test(start_paused = true)]
async fn changes_of_the_caches_are_collected() {
    let page = Page::open();
    let put = |name: &str| {
        page.caches
            .functions
            .put(serde_json::from_value(ready("shop", name)).unwrap())
    };
    put("first");
    let feed = page.feed.clone();
    let follow = tokio::spawn(async move { feed.follow().await });
    while page.data("/api/functions").await["total"] != 1 {
        tokio::task::yield_now().await;
    }
    let mut client = Client::open(&page, "/api/streams").await;
    assert_eq!(client.next().await.0, "list");
    for name in ["a", "b", "c"] {
        put(name);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, changes) = client.next().await;
    assert_eq!(changes["rows"].as_array().unwrap().len(), 3, "{changes}");
    follow.abort();
}
