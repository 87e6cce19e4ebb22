//! The page in a real browser: headless Chromium.
//!
//! `PAGE_SCREENSHOTS=FOLDER` makes the tests write pictures to a folder that exists. `whole-rollout-1280-light.png` is
//! `docs/images/page.png`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e_browser::Browser;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::super::access::Access;
use super::super::feed::Feed;
use super::super::serve;
use super::objects::{filled, node, node_with_problem, ready, revisions, rolled_back, stepping};
use crate::watch::{Caches, ObjectKey};

/// Height of the window, in pixels.
const HEIGHT: u32 = 1200;
/// Charts of a function with a rollout.
const CHARTS: &str = "document.querySelectorAll('svg[role=img]').length === 5";
/// Text that would run a script if it became HTML.
const HOSTILE: &str = "<img src=x onerror=\"document.title='run'\"><b>bold</b>";

/// Shows the page in a width and in a colour scheme, and checks that everything fits and can be read.
async fn show(browser: &mut Browser, name: &str, width: u32, scheme: &str) {
    let size = json!({ "width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": true });
    browser
        .call("Emulation.setDeviceMetricsOverride", size)
        .await;
    let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
    browser.call("Emulation.setEmulatedMedia", media).await;
    // observers of sizes run before a frame is painted
    browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
        .await;
    let case = format!("{name}-{width}-{scheme}");
    let beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.value(beyond).await, 0, "{case}");
    let faint = browser.value(include_str!("contrast.js")).await;
    assert_eq!(faint, json!([]), "{case}: contrast below 4.5");
    if let Some(folder) = std::env::var_os("PAGE_SCREENSHOTS") {
        let picture = browser
            .call("Page.captureScreenshot", json!({ "format": "png" }))
            .await;
        let bytes = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(&folder).join(format!("{case}.png")), bytes).unwrap();
    }
}

/// Shows the page in all widths and colour schemes.
async fn show_everywhere(browser: &mut Browser, name: &str) {
    for width in [1280, 400] {
        for scheme in ["light", "dark"] {
            show(browser, name, width, scheme).await;
        }
    }
}

fn put(caches: &Caches, function: Value) {
    caches
        .functions
        .put(serde_json::from_value(function).unwrap());
}

fn feed(caches: &Caches) -> Feed {
    Feed::new(
        caches.clone(),
        "selvage-operator-6c9f7d5b8-x2v4k".to_owned(),
    )
}

/// Serves the page on a loopback address until the test ends.
async fn start(feed: Feed, token_file: Option<PathBuf>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let access = Access::new(Vec::new(), token_file);
    tokio::spawn(serve(listener, feed, access));
    address
}

/// Functions of a small shop; `checkout` has a rollout.
fn shop(caches: &Caches) {
    let now = Timestamp::now();
    for name in [
        "assets",
        "geo-redirect",
        "images",
        "landing",
        "login",
        "robots",
        "search",
        "sitemap",
        "status",
    ] {
        put(caches, ready("web", name));
    }
    put(
        caches,
        rolled_back("shop", "payment", now - SignedDuration::from_mins(30), 600),
    );
    let mut cart = stepping("shop", "cart", now - SignedDuration::from_mins(9), 200);
    cart["status"]["phase"] = json!("Paused");
    cart["status"]["rollout"]["paused"] =
        json!({ "since": "2026-11-21T13:40:22.123456Z", "by": "kubectl-annotate" });
    put(caches, cart);
    let mut hostile = ready("web", "hostile");
    hostile["status"]["message"] = json!(HOSTILE);
    put(caches, hostile);
    for revision in revisions("shop", "checkout") {
        caches.revisions.put(revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_works_in_a_browser() {
    let caches = filled();
    shop(&caches);
    let began = Timestamp::now() - SignedDuration::from_secs(300);
    put(&caches, stepping("shop", "checkout", began, 60));
    let address = start(feed(&caches), None).await;
    let mut browser = Browser::start(&[]).await;

    // the list, and a change of it
    browser.open(&format!("http://{address}/")).await;
    let row = "document.querySelector('[data-key=\"shop/checkout\"]')";
    let contains = |text| format!("{row}?.textContent.includes('{text}')");
    browser.until(&contains("1/3")).await;
    put(&caches, stepping("shop", "checkout", began, 290));
    browser.until(&contains("2/3")).await;
    show_everywhere(&mut browser, "functions").await;

    // a function, by the keyboard: the link has the focus, and then the heading
    let focus = format!("{row}.querySelector('a').focus()");
    browser.value(&focus).await;
    browser.press("Enter", "\r").await;
    browser.until(CHARTS).await;
    let focused = browser.value("document.activeElement.tagName").await;
    assert_eq!(focused, "H1");
    let hash = browser.value("location.hash").await;
    assert_eq!(hash, "#/shop/checkout");
    show_everywhere(&mut browser, "checkout").await;

    // a rollback is announced to screen readers
    put(&caches, rolled_back("shop", "checkout", began, 295));
    let heading = "document.querySelector('h1').textContent.includes('RolledBack')";
    browser.until(heading).await;
    let announcement = "document.getElementById('announcement').textContent";
    let announced = browser.value(announcement).await;
    let announced = announced.as_str().unwrap();
    assert!(
        announced.starts_with("checkout: RolledBack."),
        "{announced}"
    );
    show(&mut browser, "rolled-back", 1280, "dark").await;

    texts_stay_texts(&mut browser).await;
}

/// The charts of a replica that has seen a rollout from its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_charts_show_a_whole_rollout() {
    let caches = filled();
    shop(&caches);
    let feed = feed(&caches);
    let began = Timestamp::now() - SignedDuration::from_secs(300);
    let key = ObjectKey::new("shop", "checkout");
    for seconds in (0..=300).step_by(5) {
        put(&caches, stepping("shop", "checkout", began, seconds));
        let at = began + SignedDuration::from_secs(seconds);
        feed.handle([key.clone()].into(), at);
    }
    let address = start(feed, None).await;
    let mut browser = Browser::start(&[]).await;
    let url = format!("http://{address}/#/shop/checkout");
    browser.open(&url).await;
    browser.until(CHARTS).await;
    show(&mut browser, "whole-rollout", 1280, "light").await;
    let longest = "Math.max(...[...document.querySelectorAll('svg[role=img] path.line')].map((line) => \
                   line.getAttribute('d').split('L').length))";
    let points = browser.value(longest).await;
    assert!(points.as_u64() >= Some(60), "{points} points");
    assert!(browser.errors().is_empty(), "{:#?}", browser.errors());
}

/// The list of nodes, a change of it, and the way from a problem to its function.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_are_shown_in_a_browser() {
    let caches = filled();
    shop(&caches);
    let put_node = |node: Value| {
        let node = serde_json::from_value(node).unwrap();
        caches.edge_nodes.put(node);
    };
    for number in 1..6 {
        put_node(node(
            &format!("edge-{number}.eu-west-1.example"),
            "Serving",
            true,
        ));
    }
    put_node(node("edge-6.eu-west-1.example", "Serving", false));
    put_node(node_with_problem("edge-7.eu-west-1.example"));
    put_node(node("edge-8.eu-west-1.example", "NoContact", true));
    let address = start(feed(&caches), None).await;
    let mut browser = Browser::start(&[]).await;

    // by the path, then by the keyboard from the list of functions
    browser.open(&format!("http://{address}/nodes")).await;
    let rows = "document.querySelectorAll('table[aria-label=Nodes] tbody tr').length === 8";
    browser.until(rows).await;
    let current = "document.querySelector('#views [aria-current=page]').textContent";
    assert_eq!(browser.value(current).await, "Nodes");
    assert_eq!(browser.value("document.title").await, "Nodes · Selvage");
    browser
        .value("document.querySelector('#views a[href=\"#/\"]').click()")
        .await;
    browser
        .until("document.querySelector('table[aria-label=Functions]')")
        .await;
    assert_eq!(browser.value(current).await, "Functions");
    browser
        .value("document.querySelector('#views a[href=\"#/nodes\"]').focus()")
        .await;
    browser.press("Enter", "\r").await;
    browser.until(rows).await;
    assert_eq!(
        browser.value("document.activeElement.textContent").await,
        "Nodes",
        "the heading has the focus"
    );
    show_everywhere(&mut browser, "nodes").await;

    // a change arrives and is announced; a filter and a link
    put_node(node("edge-1.eu-west-1.example", "NoContact", true));
    let row = "document.querySelector('[data-key=\"edge-1.eu-west-1.example\"]')";
    browser
        .until(&format!("{row}.textContent.includes('NoContact')"))
        .await;
    let announcement = "document.getElementById('announcement').textContent";
    assert_eq!(
        browser.value(announcement).await,
        "edge-1.eu-west-1.example: NoContact."
    );
    browser
        .value("location.hash = '#/nodes?state=HasProblems'")
        .await;
    browser
        .until("document.querySelectorAll('table[aria-label=Nodes] tbody tr').length === 1")
        .await;
    browser
        .value("document.querySelector('.problems a').click()")
        .await;
    browser
        .until("location.hash === '#/shop/checkout-0' && document.querySelector('.notice')")
        .await;
    // the function of this problem is not in the cache, which the browser reports as a failed request for nothing else
    let unexpected: Vec<_> = browser
        .errors()
        .iter()
        .filter(|error| !error.contains("404"))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

/// Texts of users do not become HTML, and the browser refuses what the scripts do not even try.
async fn texts_stay_texts(browser: &mut Browser) {
    browser.value("location.hash = '#/web/hostile'").await;
    let message = "document.querySelector('.message')";
    browser.until(message).await;
    let shown = browser.value(&format!("{message}.textContent")).await;
    assert_eq!(shown, HOSTILE);
    let elements = "document.querySelectorAll('main img, main b').length";
    assert_eq!(browser.value(elements).await, 0);
    let title = browser.value("document.title").await;
    assert_eq!(title, "Ready · hostile · Selvage");
    assert!(browser.errors().is_empty(), "{:#?}", browser.errors());
    let inject = "try { document.body.innerHTML = '<b>x</b>'; 'possible' } catch { 'refused' }";
    assert_eq!(browser.value(inject).await, "refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_asks_for_the_token() {
    let caches = filled();
    put(&caches, ready("shop", "checkout"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef").unwrap();
    let address = start(feed(&caches), Some(file)).await;
    let mut browser = Browser::start(&[]).await;
    browser.open(&format!("http://{address}/")).await;
    for (token, outcome) in [
        (
            "wrong",
            "document.querySelector('main').textContent.includes('not the one of the page')",
        ),
        (
            "0123456789abcdef",
            "document.querySelector('[data-key=\"shop/checkout\"]')",
        ),
    ] {
        browser
            .until("document.querySelector('#token input')")
            .await;
        browser.value("{ const field = document.querySelector('#token input'); field.value = ''; field.focus(); }").await;
        browser
            .call("Input.insertText", json!({ "text": token }))
            .await;
        browser.press("Enter", "\r").await;
        browser.until(outcome).await;
    }
}
