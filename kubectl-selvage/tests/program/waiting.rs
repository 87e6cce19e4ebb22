//! `status --wait` and `status --watch` without a terminal: one line for each transition, and the exit code.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::cluster::{Cluster, object};
use crate::fake::FUNCTION;

/// A run whose lines are read as they come.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(cluster: &Cluster, line: &str) -> Self {
        let mut child = cluster.command(line).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Returns the next line without its time.
    async fn line(&mut self) -> String {
        let line = self.lines.next_line().await.unwrap().unwrap();
        let (time, text) = line.split_once("  ").unwrap();
        assert!(time.ends_with('Z'), "{line}");
        text.to_owned()
    }

    async fn code(mut self) -> i32 {
        self.child.wait().await.unwrap().code().unwrap()
    }
}

#[tokio::test]
async fn a_promotion_ends_a_wait_with_0() {
    let cluster = Cluster::with("stepping").await;
    let mut run = Running::start(&cluster, "status checkout --wait");
    assert!(run.line().await.starts_with("Progressing: at 5 %"));
    cluster.fake.put(FUNCTION, object("baking"));
    assert_eq!(run.line().await, "Baking: 99%");
    let mut ready = object("ready");
    let entry = json!({
        "revision": "checkout-7d4c9e21ab", "attempt": 1, "outcome": "Promoted",
        "message": "checkout-7d4c9e21ab is stable instead of checkout-51ab90c3de, promoted after 11 min",
    });
    ready["status"]["history"]
        .as_array_mut()
        .unwrap()
        .insert(0, entry);
    ready["status"]["stable"]["revision"] = "checkout-7d4c9e21ab".into();
    cluster.fake.put(FUNCTION, ready);
    assert_eq!(
        run.line().await,
        "Promoted: checkout-7d4c9e21ab is stable instead of checkout-51ab90c3de, promoted after 11 min"
    );
    assert_eq!(run.line().await, "Ready");
    assert_eq!(run.line().await, "Ready: checkout-7d4c9e21ab is stable");
    assert_eq!(run.code().await, 0);
}

#[tokio::test]
async fn a_rollback_ends_a_wait_with_1() {
    let cluster = Cluster::with("stepping").await;
    let mut run = Running::start(&cluster, "status checkout --wait");
    run.line().await;
    cluster.fake.put(FUNCTION, object("rolled-back"));
    assert!(
        run.line()
            .await
            .starts_with("RolledBack: rolled back from 10 %")
    );
    assert_eq!(run.line().await, "RolledBack");
    assert!(
        run.line()
            .await
            .starts_with("Stalled (RolledBack): not tried again")
    );
    assert_eq!(run.code().await, 1);
}

#[tokio::test]
async fn a_wait_for_a_spec_that_the_operator_has_not_seen_does_not_end_with_the_old_one() {
    let cluster = Cluster::with("ready").await;
    let mut newer = object("ready");
    newer["metadata"]["generation"] = json!(8);
    cluster.fake.put(FUNCTION, newer);
    let mut run = Running::start(&cluster, "status checkout --wait");
    assert!(
        run.line()
            .await
            .starts_with("Ready: checkout-51ab90c3de is stable")
    );
    let mut failed = object("refused");
    failed["status"]["phase"] = "Ready".into();
    cluster.fake.put(FUNCTION, failed);
    while run.line().await
        != "Accepted=False (HostConflict): the host shop.example belongs to the namespace other"
    {
    }
    assert!(run.line().await.starts_with("Stalled (HostConflict)"));
    assert_eq!(run.code().await, 1);
}

#[tokio::test]
async fn a_time_limit_ends_a_wait_with_2() {
    let cluster = Cluster::with("stepping").await;
    let run = cluster.run("status checkout --wait --timeout 1ms").await;
    assert_eq!(run.code, 2, "{run:?}");
    assert!(
        run.out
            .ends_with("the time limit has passed; the rollout goes on\n"),
        "{}",
        run.out
    );
}

#[tokio::test]
async fn a_deleted_function_ends_a_wait_with_1() {
    let cluster = Cluster::with("stepping").await;
    let mut run = Running::start(&cluster, "status checkout --wait");
    run.line().await;
    cluster.fake.watched(1).await;
    cluster.fake.delete(FUNCTION);
    assert_eq!(run.line().await, "the function does not exist any longer");
    assert_eq!(run.code().await, 1);
}

#[tokio::test]
async fn a_watch_goes_on_after_the_rollout() {
    let cluster = Cluster::with("stepping").await;
    let mut run = Running::start(&cluster, "status checkout --watch");
    run.line().await;
    cluster.fake.put(FUNCTION, object("ready"));
    assert_eq!(run.line().await, "Ready");
    cluster.fake.put(FUNCTION, object("loading"));
    assert_eq!(run.line().await, "checkout-7d4c9e21ab is the candidate");
}
