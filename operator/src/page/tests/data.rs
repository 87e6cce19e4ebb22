//! What the list and the view of a function contain.

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::super::access::Access;
use super::super::feed::Feed;
use super::super::server::Server;
use super::objects::{now, ready, revisions, rolled_back, stepping};
use super::{Page, text};
use crate::watch::{Caches, ObjectKey};

#[tokio::test]
async fn the_list_has_the_most_urgent_functions_first() {
    let page = Page::open();
    let start = now() - SignedDuration::from_secs(300);
    page.put(ready("shop", "assets"));
    page.put(ready("a", "zebra"));
    page.put(stepping("shop", "search", start, 200));
    page.put(rolled_back("shop", "zones", start, 200));
    let mut held = stepping("shop", "held", start, 200);
    held["status"]["rollout"]["hold"] =
        json!({ "reason": "PrometheusUnavailable", "since": "2026-11-21T13:39:26.000000Z" });
    page.put(held);
    let mut fresh = ready("shop", "fresh");
    fresh["status"] = serde_json::Value::Null;
    page.put(fresh);
    let list = page.data("/api/functions").await;
    let column = |name: &str| -> Vec<String> {
        let rows = list["rows"].as_array().unwrap().iter();
        rows.map(|row| row[name].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        column("name"),
        ["zones", "held", "search", "fresh", "zebra", "assets"]
    );
    assert_eq!(
        column("phase"),
        [
            "RolledBack",
            "Progressing",
            "Progressing",
            "Pending",
            "Ready",
            "Ready"
        ]
    );
    assert_eq!(
        column("verdict"),
        [
            "ErrorsWorse",
            "held: PrometheusUnavailable",
            "66 % of the evidence",
            "",
            "Promoted",
            "Promoted"
        ]
    );
    assert_eq!(column("step"), ["", "2/3", "2/3", "", "", ""]);
    assert_eq!(
        (
            &list["total"],
            &list["counts"]["Ready"],
            &list["counts"]["Failed"]
        ),
        (&json!(6), &json!(2), &json!(0))
    );
    // browsers sort by this text alone
    let mut sorted = column("order");
    sorted.sort();
    assert_eq!(sorted, column("order"));
    let found = page.data("/api/functions?text=shop/&phase=Ready").await;
    assert_eq!(
        (&found["total"], &found["rows"][0]["name"]),
        (&json!(1), &json!("assets"))
    );
    let deleted = ObjectKey::new("shop", "zones");
    page.caches.functions.take(&deleted);
    page.feed.handle([deleted].into(), now());
    let list = page.data("/api/functions").await;
    assert_eq!(
        (&list["total"], &list["counts"]["RolledBack"]),
        (&json!(5), &json!(0))
    );
}

#[tokio::test]
async fn five_thousand_functions_are_shown_in_pages() {
    let page = Page::open();
    for number in 0..5_000 {
        page.put(ready("many", &format!("f{number:04}")));
    }
    let list = page.data("/api/functions").await;
    assert_eq!(
        (&list["total"], list["rows"].as_array().unwrap().len()),
        (&json!(5_000), 50)
    );
    let last = page.data("/api/functions?from=4980").await;
    assert_eq!(
        (
            &last["rows"][0]["name"],
            last["rows"].as_array().unwrap().len()
        ),
        (&json!("f4980"), 20)
    );
    let found = page.data("/api/functions?text=F49&from=90").await;
    assert_eq!(
        (&found["total"], &found["rows"][0]["name"]),
        (&json!(100), &json!("f4990"))
    );
    let beyond = page.data("/api/functions?from=9000000").await;
    assert_eq!(
        (&beyond["total"], beyond["rows"].as_array().unwrap().len()),
        (&json!(5_000), 0)
    );
    assert!(text(page.get("/api/functions").await).await.len() < 32 * 1024);
    for invalid in ["from=-1", "from=x", "other=1"] {
        let response = page.get(&format!("/api/functions?{invalid}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{invalid}");
    }
}

/// A page that has seen the rollout of `shop/checkout` for 180 seconds from `start`.
fn watched(start: Timestamp) -> Page {
    let page = Page::open();
    for revision in revisions("shop", "checkout") {
        page.caches.revisions.put(revision);
    }
    let key = ObjectKey::new("shop", "checkout");
    for seconds in (20..200).step_by(20) {
        let function =
            serde_json::from_value(stepping("shop", "checkout", start, seconds)).unwrap();
        page.caches.functions.put(function);
        page.feed.handle(
            [key.clone()].into(),
            start + SignedDuration::from_secs(seconds),
        );
    }
    page
}

#[tokio::test]
async fn a_function_has_its_rollout_evidence_and_points() {
    let start = now() - SignedDuration::from_secs(300);
    let page = watched(start);
    let view = page.data("/api/functions/shop/checkout").await;
    assert_eq!(view["row"]["step"], "2/3");
    let names: Vec<_> = view["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["role"].as_str().unwrap(), it["source"].as_str().unwrap()))
        .collect();
    assert_eq!(
        names,
        [
            ("stable", "registry.example/shop/checkout:1.3.9"),
            ("candidate", "registry.example/shop/checkout:1.4.0")
        ]
    );
    assert_eq!(
        view["rollout"]["steps"],
        json!([
            { "name": "1 %", "state": "done" }, { "name": "10 %", "state": "current" },
            { "name": "50 %", "state": "ahead" }, { "name": "bake 10m", "state": "ahead" },
        ])
    );
    let evidence = &view["evidence"];
    assert_eq!(
        (
            &evidence["limit"],
            &evidence["metrics"][0]["toleratedIncrease"]
        ),
        (&json!(100.0), &json!(0.005))
    );
    assert_eq!(
        view["chart"]["metrics"],
        json!(["errors", "latency/300ms", "clientErrors"])
    );
    let at = |seconds: i64| (start + SignedDuration::from_secs(seconds)).as_millisecond();
    assert_eq!(
        view["chart"]["weights"],
        json!([[at(-12), 0], [at(0), 100], [at(120), 1000]])
    );
    let points = view["chart"]["points"].as_array().unwrap();
    assert_eq!(
        (points.len(), &points[0]["at"], &points[8]["weight"]),
        (9, &json!(at(20)), &json!(1000))
    );
    assert_eq!(points[0]["rates"].as_array().unwrap().len(), 3);
}

/// The end of a rollout is its last point, and the points stay until the next rollout.
#[tokio::test]
async fn a_rollback_is_shown_with_its_reason_and_the_points_before_it() {
    let start = now() - SignedDuration::from_secs(300);
    let page = watched(start);
    let at = (start + SignedDuration::from_secs(210)).as_millisecond();
    page.put(rolled_back("shop", "checkout", start, 210));
    let view = page.data("/api/functions/shop/checkout").await;
    assert_eq!(
        (&view["row"]["verdict"], &view["rollout"]["isRunning"]),
        (&json!("ErrorsWorse"), &json!(false))
    );
    assert_eq!(
        view["command"],
        "kubectl -n shop annotate ef checkout selvage.dev/retry=checkout-7d4c9e21ab --overwrite"
    );
    let message = view["message"].as_str().unwrap();
    assert!(message.ends_with("limit 100 to 1. To retry"), "{message}");
    let weights = view["chart"]["weights"].as_array().unwrap();
    assert_eq!(weights.last().unwrap(), &json!([at, 0]));
    assert_eq!(
        view["chart"]["points"].as_array().unwrap().last().unwrap()["weight"],
        0
    );
    assert_eq!(
        view["timeline"][0]["text"],
        "checkout-7d4c9e21ab was rejected (ErrorsWorse)"
    );
    assert_eq!(
        page.get("/api/functions/shop/other").await.status(),
        StatusCode::NOT_FOUND
    );
}

/// A page that shows nothing yet must not look like an empty cluster.
#[tokio::test]
async fn nothing_is_shown_before_the_first_lists() {
    let page = Page::open();
    let empty = Feed::new(Caches::default(), "operator-0".to_owned());
    let access = Access::new(Vec::new(), None);
    let page = Page {
        server: Server::new(empty, access, 1),
        ..page
    };
    for path in [
        "/api/functions",
        "/api/nodes",
        "/api/streams",
        "/api/streams/nodes",
    ] {
        assert_eq!(
            page.get(path).await.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "{path}"
        );
    }
    assert_eq!(page.get("/").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn texts_of_users_are_data_and_settings_are_not_shown() {
    let page = Page::open();
    let mut hostile = ready("shop", "checkout");
    hostile["status"]["message"] = json!("<img src=x onerror=alert(1)>");
    hostile["spec"]["env"] = json!([{ "name": "PASSWORD", "value": "hunter2" }]);
    page.put(hostile);
    let response = page.get("/api/functions/shop/checkout").await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let body = text(response).await;
    assert!(body.contains("<img src=x onerror=alert(1)>"));
    assert!(!body.contains("hunter2") && !body.contains("PASSWORD"));
}
