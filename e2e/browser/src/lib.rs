//! Headless Chromium for tests, driven through its DevTools protocol on a pipe.
//!
//! ```no_run
//! # async fn example() {
//! let mut browser = e2e_browser::Browser::start(&[]).await;
//! browser.open("http://127.0.0.1:8080/").await;
//! browser.until("document.querySelector('h1')").await;
//! assert_eq!(browser.value("document.title").await, "Shop");
//! # }
//! ```

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise, and indexing a JSON value answers null"
)]

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Time limit for an answer or an event. A change of a page takes a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// The protocol is on the descriptors 3 and 4. The first argument is the profile, the others are options.
const START: &str = "profile=$0; exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
     --remote-debugging-pipe --user-data-dir=\"$profile\" \"$@\" about:blank 3<&0 4>&1 1>/dev/null 2>\"$profile/log\"";

/// A browser with one page. It ends when it is dropped.
///
/// # Panics
/// Every method panics when Chromium is missing or ends, does not answer for a minute, or answers with an error.
#[derive(Debug)]
pub struct Browser {
    _process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    calls: u64,
    session: Option<String>,
    errors: Vec<String>,
    events: Vec<Value>,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts Chromium with further options and opens an empty page.
    pub async fn start(options: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            .args(["-c", START])
            .arg(profile.path())
            .args(options)
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
            events: Vec::new(),
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

    /// Calls a method of the protocol and returns its result.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
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
            let answer = self.read(&format!("answer to {method} {parameters}")).await;
            if answer["id"] == json!(self.calls) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.keep(answer);
        }
    }

    /// Reads the next message.
    async fn read(&mut self, awaited: &str) -> Value {
        let mut text = Vec::new();
        let read = self.output.read_until(0, &mut text);
        let read = tokio::time::timeout(PATIENCE, read).await;
        let read = read.unwrap_or_else(|_| panic!("no {awaited}"));
        assert!(read.unwrap() > 0, "Chromium does not run: {}", self.log());
        text.pop();
        serde_json::from_slice(&text).unwrap()
    }

    fn keep(&mut self, event: Value) {
        let is_error = event["params"]["entry"]["level"] == "error";
        if is_error || event["method"] == "Runtime.exceptionThrown" {
            self.errors.push(event["params"].to_string());
        }
        self.events.push(event);
    }

    /// Returns the exceptions of scripts so far, and errors such as violations of the Content-Security-Policy.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Waits for an event of the protocol that meets a condition, and returns its parameters. It may have happened before. The
    /// domain of the event must be enabled.
    pub async fn event(&mut self, method: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let mut next = 0;
        loop {
            let found = self.events[next..].iter().find_map(|event| {
                let parameters = &event["params"];
                (event["method"] == method && condition(parameters)).then(|| parameters.clone())
            });
            if let Some(parameters) = found {
                return parameters;
            }
            next = self.events.len();
            let event = self.read(method).await;
            self.keep(event);
        }
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.profile.path().join("log")).unwrap_or_default();
        format!(
            "{log} (the Debian package chromium is needed: cargo run --bin cluster -- packages --tests)"
        )
    }

    /// Returns the value of an expression. If it is a promise, waits for its result.
    pub async fn value(&mut self, expression: &str) -> Value {
        let call = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", call).await;
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until the document meets a condition.
    pub async fn until(&mut self, condition: &str) {
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

    /// Navigates to a URL, without waiting for the document.
    pub async fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
    }

    /// Presses and releases a key, which types `text`.
    pub async fn press(&mut self, key: &str, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "text": if kind == "keyDown" { text } else { "" } });
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }
}
