//! The list of nodes: what it contains, its order, filters, pages and changes.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Page;
use super::live::Client;
use super::objects::{node, node_with_problem};
use crate::watch::ObjectKey;

impl Page {
    /// Puts a report of a node into the cache, and takes it over as the watch would.
    fn put_node(&self, node: Value) {
        let node: crds::EdgeNode = serde_json::from_value(node).unwrap();
        let key = ObjectKey::of(&node);
        self.caches.edge_nodes.put(node);
        self.feed.handle_nodes(&[key].into());
    }
}

fn names(list: &Value) -> Vec<(&str, &str)> {
    let rows = list["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        (
            row["name"].as_str().unwrap(),
            row["state"].as_str().unwrap(),
        )
    })
    .collect()
}

#[tokio::test]
async fn nodes_with_problems_come_first() {
    let page = Page::open();
    for name in ["node-2", "node-1"] {
        page.put_node(node(name, "Serving", true));
    }
    page.put_node(node("node-3", "Serving", false));
    page.put_node(node("node-4", "NotReady", true));
    page.put_node(node_with_problem("node-5"));
    page.put_node(node("node-6", "NoContact", true));
    let mut fresh = node("node-7", "Serving", true);
    fresh["status"] = Value::Null;
    page.put_node(fresh);
    let list = page.data("/api/nodes").await;
    let expected = [
        ("node-6", "NoContact"),
        ("node-4", "NotReady"),
        ("node-5", "HasProblems"),
        ("node-3", "Loading"),
        ("node-7", "Unknown"),
        ("node-1", "Serving"),
        ("node-2", "Serving"),
    ];
    assert_eq!(names(&list), expected);
    assert_eq!(
        (&list["total"], &list["counts"]["Serving"]),
        (&json!(7), &json!(2))
    );
    // browsers sort by this text alone
    let order = |row: &Value| row["order"].as_str().unwrap().to_owned();
    let orders: Vec<String> = list["rows"].as_array().unwrap().iter().map(order).collect();
    assert!(orders.is_sorted(), "{orders:?}");

    page.put_node(node("node-6", "Serving", true));
    page.caches.edge_nodes.take(&ObjectKey::new("", "node-4"));
    page.feed
        .handle_nodes(&[ObjectKey::new("", "node-4")].into());
    let list = page.data("/api/nodes?state=Serving").await;
    let serving = ["node-1", "node-2", "node-6"].map(|name| (name, "Serving"));
    assert_eq!(names(&list), serving);
    assert_eq!(
        (&list["counts"]["NotReady"], &list["counts"]["NoContact"]),
        (&json!(0), &json!(0))
    );
    let found = page.data("/api/nodes?text=NODE-3").await;
    assert_eq!(names(&found), [("node-3", "Loading")]);
}

/// The recorded contact of a connected node is up to ten minutes old, so it would mislead.
#[tokio::test]
async fn a_node_has_its_versions_functions_and_problems() {
    let page = Page::open();
    page.put_node(node_with_problem("node-5"));
    page.put_node(node("node-6", "NoContact", true));
    let list = page.data("/api/nodes").await;
    let (away, problem) = (&list["rows"][0], &list["rows"][1]);
    assert_eq!(away["lastContact"], json!(1_795_268_422_000_i64));
    assert_eq!(away["problems"], json!([]));
    assert_eq!(problem["lastContact"], Value::Null);
    assert_eq!(problem["version"], "0.1.0");
    assert_eq!(problem["place"], "eu-west-1 / eu-west-1a");
    assert_eq!(
        (&problem["desired"], &problem["loaded"], &problem["failed"]),
        (&json!(12), &json!(11), &json!(1))
    );
    let problems = problem["problems"].as_array().unwrap();
    assert_eq!((problems.len(), &problem["problemCount"]), (3, &json!(4)));
    assert_eq!(
        problems[0],
        json!({ "namespace": "shop", "function": "checkout-0", "revision": "checkout-7d4c9e21ab", "reason": "PullFailed",
                "message": "the registry refused access" })
    );
}

#[tokio::test]
async fn five_thousand_nodes_are_shown_in_pages() {
    let page = Page::open();
    for number in 0..5_000 {
        page.put_node(node(&format!("n{number:04}"), "Serving", true));
    }
    let list = page.data("/api/nodes").await;
    assert_eq!(
        (&list["total"], list["rows"].as_array().unwrap().len()),
        (&json!(5_000), 50)
    );
    let last = page.data("/api/nodes?from=4980").await;
    assert_eq!(names(&last)[0].0, "n4980");
    let found = page.data("/api/nodes?text=n49&from=90").await;
    assert_eq!(
        (&found["total"], names(&found)[0].0),
        (&json!(100), "n4990")
    );
    for invalid in ["from=-1", "state=Tired", "phase=Ready"] {
        let response = page.get(&format!("/api/nodes?{invalid}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{invalid}");
    }
}

#[tokio::test]
async fn a_stream_of_nodes_sends_changes_of_nodes_only() {
    let page = Page::open();
    page.put_node(node("node-1", "Serving", true));
    let mut client = Client::open(&page, "/api/streams/nodes").await;
    let (name, list) = client.next().await;
    assert_eq!(
        (&*name, names(&list)),
        ("list", vec![("node-1", "Serving")])
    );
    page.put(super::objects::ready("shop", "checkout"));
    page.put_node(node("node-1", "NoContact", true));
    let (name, changes) = client.next().await;
    assert_eq!(
        (&*name, names(&changes)),
        ("changes", vec![("node-1", "NoContact")])
    );
    assert_eq!(changes["counts"]["NoContact"], 1);
    let gone = ObjectKey::new("", "node-1");
    page.caches.edge_nodes.take(&gone);
    page.feed.handle_nodes(&[gone].into());
    let (_, changes) = client.next().await;
    assert_eq!(changes["gone"], json!([["node-1"]]));
    let many = (0..101).map(|number| ObjectKey::new("", &format!("n{number}")));
    page.feed.handle_nodes(&many.collect());
    assert_eq!(client.next().await, ("many".to_owned(), json!({})));
}
