//! The program in a pseudo-terminal, as a person types. The program `script` of util-linux provides the terminal.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::cluster::{Cluster, object};
use crate::fake::FUNCTION;
use crate::node::{Node, error};

/// A program in a terminal.
struct Session {
    child: Child,
    /// What the terminal showed and no test has read yet.
    unread: Vec<u8>,
}

impl Session {
    fn start(cluster: &Cluster, line: &str, variables: &[(&str, &str)]) -> Self {
        let program = env!("CARGO_BIN_EXE_kubectl-selvage");
        let child = Command::new("script")
            .args([
                "--quiet",
                "--flush",
                "--command",
                &format!("'{program}' {line}"),
                "/dev/null",
            ])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh")
            .env("KUBECONFIG", cluster.folder().join("config"))
            .env("TERM", "xterm-256color")
            .envs(variables.iter().copied())
            .current_dir(cluster.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the tests need the program `script` (Debian package bsdutils)");
        Self {
            child,
            unread: Vec::new(),
        }
    }

    /// Waits until the terminal shows a text, and returns what it showed before.
    async fn expect(&mut self, text: &str) -> String {
        loop {
            let shown = String::from_utf8_lossy(&self.unread).into_owned();
            if let Some((before, after)) = shown.split_once(text) {
                self.unread = after.as_bytes().to_vec();
                return before.to_owned();
            }
            let out = self.child.stdout.as_mut().unwrap();
            let count = out.read_buf(&mut self.unread).await.unwrap();
            assert!(count > 0, "the terminal ended without {text:?}: {shown}");
        }
    }

    async fn type_line(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_watch_redraws_its_tree() {
    let cluster = Cluster::with("stepping").await;
    let mut session = Session::start(&cluster, "status checkout --watch", &[]);
    session.expect("step 2 of 2").await;
    cluster.fake.put(FUNCTION, object("baking"));
    let between = session.expect("Baking").await;
    assert!(
        between.contains("\x1b[2K"),
        "nothing was erased: {between:?}"
    );
    assert!(
        between.contains("\x1b[33m"),
        "nothing is coloured: {between:?}"
    );
}

#[tokio::test]
async fn colours_can_be_switched_off() {
    let cluster = Cluster::with("stepping").await;
    let mut session = Session::start(&cluster, "status checkout", &[("NO_COLOR", "1")]);
    let shown = session.expect("serve the current weights").await;
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

#[tokio::test]
async fn a_tree_stays_when_a_wait_ends() {
    let cluster = Cluster::with("stepping").await;
    let mut session = Session::start(&cluster, "status checkout --watch --wait", &[]);
    session.expect("step 2 of 2").await;
    cluster.fake.put(FUNCTION, object("ready"));
    let between = session.expect("Ready: checkout-51ab90c3de is stable").await;
    let (_, after) = between.rsplit_once("serve the current weights").unwrap();
    assert!(!after.contains("\x1b[2K"), "{between:?}");
}

#[tokio::test]
async fn a_person_is_asked_before_an_action() {
    let cluster = Cluster::with("stepping").await;
    for answer in ["n", ""] {
        let mut session = Session::start(&cluster, "abort checkout", &[]);
        let question = session.expect("Continue? [y/N] ").await;
        let effect = "sends all requests to checkout-51ab90c3de";
        assert!(question.contains(effect), "{question}");
        session.type_line(answer).await;
        session.expect("nothing was written. Not confirmed.").await;
    }
    assert!(cluster.fake.writes().is_empty());
    let record = |object: &serde_json::Value| {
        let value = object["metadata"]["annotations"].get("selvage.dev/abort")?;
        Some(json!({ "status": { "rollout": { "actions": [{
            "action": "abort", "value": value, "at": "2026-11-21T13:41:00.000000Z", "result": "Done",
        }] } } }))
    };
    cluster.fake.operator(Box::new(record));
    let mut session = Session::start(&cluster, "abort checkout", &[]);
    session.expect("Continue? [y/N] ").await;
    session.type_line("y").await;
    session.expect("abort: done.").await;
    let mut session = Session::start(&cluster, "abort checkout --yes", &[]);
    let shown = session.expect("abort: done.").await;
    assert!(!shown.contains("Continue?"), "{shown}");
}

#[tokio::test]
async fn a_person_sees_body_and_reason_of_a_response() {
    let cluster = Cluster::with("ready").await;
    Node::start(&cluster.fake, "a", |_, _| error(503, "suspended")).await;
    let mut session = Session::start(&cluster, "invoke checkout --host shop.example", &[]);
    session
        .expect("the node a answers itself: 503 Service Unavailable (suspended)")
        .await;
    session.expect("of the node").await;
}

#[tokio::test]
async fn many_plays_show_how_far_they_are() {
    let cluster = crate::replay::folder().await;
    let line = "replay -f policy.yaml --recording good.csv --same --stable v1 --every 10m";
    let mut session = Session::start(&cluster, line, &[]);
    session.expect("played 1 of 9 rollouts").await;
    session.expect("\x1b[2K").await;
    session.expect("would have been rolled back (0 %)").await;
}
