//! The page in a real browser: headless Chromium, driven through its DevTools protocol on a pipe.
//!
//! `PAGE_SCREENSHOTS=FOLDER` makes the tests write pictures to a folder that exists. `whole-rollout-1280-light.png` is
//! `docs/images/page.png`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::super::access::Access;
use super::super::feed::Feed;
use super::super::serve;
use super::objects::{filled, node, node_with_problem, ready, revisions, rolled_back, stepping};
use crate::watch::{Caches, ObjectKey};

/// Time for which the test waits for a change of the page. It takes a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// The protocol is on the descriptors 3 and 4.
const START: &str = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
     --remote-debugging-pipe --user-data-dir=\"$0\" about:blank 3<&0 4>&1 1>/dev/null 2>\"$0/log\"";
/// Height of the window, in pixels.
const HEIGHT: u32 = 1200;
/// Charts of a function with a rollout.
const CHARTS: &str = "document.querySelectorAll('svg[role=img]').length === 5";
/// Text that would run a script if it became HTML.
const HOSTILE: &str = "<img src=x onerror=\"document.title='run'\"><b>bold</b>";

struct Browser {
    _process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    calls: u64,
    session: Option<String>,
    /// Exceptions of scripts, and errors such as violations of the Content-Security-Policy.
    errors: Vec<String>,
    profile: tempfile::TempDir,
}

impl Browser {
    async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            .args(["-c", START])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let mut browser = Self {
            _process: process,
            input: input.unwrap(),
            output: BufReader::new(output.unwrap()),
            calls: 0,
            session: None,
            errors: Vec::new(),
            profile,
        };
        let target = json!({ "url": "about:blank" });
        let target = browser.call("Target.createTarget", target).await["targetId"].clone();
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = attached["sessionId"].as_str().map(ToOwned::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let sent = self
            .input
            .write_all(format!("{message}\0").as_bytes())
            .await;
        sent.unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        loop {
            let mut text = Vec::new();
            let read = self.output.read_until(0, &mut text);
            let read = tokio::time::timeout(PATIENCE, read).await;
            let read = read.unwrap_or_else(|_| panic!("no answer to {method} {parameters}"));
            let read = read.unwrap();
            assert!(read > 0, "Chromium does not run: {}", self.log());
            text.pop();
            let answer: Value = serde_json::from_slice(&text).unwrap();
            if answer["id"] == json!(self.calls) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            let is_error = answer["params"]["entry"]["level"] == "error";
            if is_error || answer["method"] == "Runtime.exceptionThrown" {
                self.errors.push(answer["params"].to_string());
            }
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.profile.path().join("log")).unwrap_or_default();
        format!(
            "{log} (the Debian package chromium is needed: cargo run --bin cluster -- packages --tests)"
        )
    }

    /// Value of an expression.
    async fn value(&mut self, expression: &str) -> Value {
        let call = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", call).await;
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until a condition holds.
    async fn until(&mut self, condition: &str) {
        // an element that the condition reads may not be there yet
        let wait = format!(
            "new Promise((done) => {{ const holds = () => {{ try {{ return {condition} }} catch {{ return false }} }}; \
             const check = () => {{ if (holds()) {{ observer.disconnect(); done(true) }} }}; \
             const observer = new MutationObserver(check); \
             observer.observe(document, {{ subtree: true, childList: true, attributes: true, characterData: true }}); \
             check(); }})"
        );
        assert_eq!(self.value(&wait).await, true);
    }

    async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
    }

    async fn press(&mut self, key: &str, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "text": if kind == "keyDown" { text } else { "" } });
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Shows the page in a width and in a colour scheme, and checks that everything fits and can be read.
    async fn show(&mut self, name: &str, width: u32, scheme: &str) {
        let size =
            json!({ "width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": true });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", media).await;
        // observers of sizes run before a frame is painted
        self.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
            .await;
        let case = format!("{name}-{width}-{scheme}");
        let beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(self.value(beyond).await, 0, "{case}");
        let faint = self.value(include_str!("contrast.js")).await;
        assert_eq!(faint, json!([]), "{case}: contrast below 4.5");
        if let Some(folder) = std::env::var_os("PAGE_SCREENSHOTS") {
            let picture = self
                .call("Page.captureScreenshot", json!({ "format": "png" }))
                .await;
            let bytes = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
            std::fs::write(Path::new(&folder).join(format!("{case}.png")), bytes).unwrap();
        }
    }

    /// Shows the page in all widths and colour schemes.
    async fn show_everywhere(&mut self, name: &str) {
        for width in [1280, 400] {
            for scheme in ["light", "dark"] {
                self.show(name, width, scheme).await;
            }
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
    let mut browser = Browser::start().await;

    // the list, and a change of it
    browser.open(&format!("http://{address}/")).await;
    let row = "document.querySelector('[data-key=\"shop/checkout\"]')";
    let contains = |text| format!("{row}?.textContent.includes('{text}')");
    browser.until(&contains("1/3")).await;
    put(&caches, stepping("shop", "checkout", began, 290));
    browser.until(&contains("2/3")).await;
    browser.show_everywhere("functions").await;

    // a function, by the keyboard: the link has the focus, and then the heading
    let focus = format!("{row}.querySelector('a').focus()");
    browser.value(&focus).await;
    browser.press("Enter", "\r").await;
    browser.until(CHARTS).await;
    let focused = browser.value("document.activeElement.tagName").await;
    assert_eq!(focused, "H1");
    let hash = browser.value("location.hash").await;
    assert_eq!(hash, "#/shop/checkout");
    browser.show_everywhere("checkout").await;

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
    browser.show("rolled-back", 1280, "dark").await;

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
    let mut browser = Browser::start().await;
    let url = format!("http://{address}/#/shop/checkout");
    browser.open(&url).await;
    browser.until(CHARTS).await;
    browser.show("whole-rollout", 1280, "light").await;
    let longest = "Math.max(...[...document.querySelectorAll('svg[role=img] path.line')].map((line) => \
                   line.getAttribute('d').split('L').length))";
    let points = browser.value(longest).await;
    assert!(points.as_u64() >= Some(60), "{points} points");
    assert!(browser.errors.is_empty(), "{:#?}", browser.errors);
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
    let mut browser = Browser::start().await;

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
    browser.show_everywhere("nodes").await;

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
        .errors
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
    assert!(browser.errors.is_empty(), "{:#?}", browser.errors);
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
    let mut browser = Browser::start().await;
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
