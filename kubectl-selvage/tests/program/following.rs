//! `logs --follow`: lines that are written while the command runs.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::cluster::Cluster;

/// Time limit for a line, so that a line that is not printed fails a test.
const LIMIT: Duration = Duration::from_secs(60);
const PODS: &str = "/api/v1/namespaces/selvage-system/pods";

fn log(pod: &str) -> String {
    format!("{PODS}/{pod}/log")
}

/// A line of a function, with the time and text `second`.
fn line(function: &str, second: u32) -> String {
    let line = json!({
        "ts": format!("2026-11-21T13:40:{second:02}Z"), "level": "info", "stream": "stdout", "function_namespace": "shop",
        "function": function, "revision": "checkout-1", "node": "node-a", "msg": format!("line {second}"),
    });
    format!("{line}\n")
}

fn printed(second: u32) -> String {
    format!("2026-11-21T13:40:{second:02}Z node-a checkout-1 stdout info line {second}")
}

/// Starts a pod whose container runs.
fn start(cluster: &Cluster, pod: &str) {
    let container = json!({ "name": "node-shim", "state": { "running": {} } });
    let object =
        json!({ "metadata": { "name": pod }, "status": { "containerStatuses": [container] } });
    cluster.fake.put(&format!("{PODS}/{pod}"), object);
}

/// The command while it runs. It is ended when this is dropped.
struct Following {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Following {
    fn start(cluster: &Cluster, line: &str) -> Self {
        let mut child = cluster.command(line).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        Self {
            lines: BufReader::new(out).lines(),
            _child: child,
        }
    }

    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
        let next = next.expect("no line is printed").unwrap();
        next.expect("the command has ended")
    }
}

#[tokio::test]
async fn new_lines_are_printed_as_they_are_written() {
    let cluster = Cluster::with("ready").await;
    start(&cluster, "shim-a");
    cluster
        .fake
        .log(&log("shim-a"), &format!("started\n{}", line("checkout", 1)));
    let mut following = Following::start(&cluster, "logs checkout --follow");
    assert_eq!(following.next().await, printed(1));
    for second in [2, 3] {
        cluster.fake.log(&log("shim-a"), &line("other", second));
        cluster.fake.log(&log("shim-a"), &line("checkout", second));
        assert_eq!(following.next().await, printed(second));
    }
}

#[tokio::test]
async fn a_pod_that_starts_later_is_followed_too() {
    let cluster = Cluster::with("ready").await;
    start(&cluster, "shim-a");
    cluster.fake.log(&log("shim-a"), &line("checkout", 1));
    let mut following = Following::start(&cluster, "logs checkout -f");
    assert_eq!(following.next().await, printed(1));
    cluster.fake.log(&log("shim-b"), &line("checkout", 2));
    // it is created before its container runs
    cluster.fake.put(
        &format!("{PODS}/shim-b"),
        json!({ "metadata": { "name": "shim-b" } }),
    );
    start(&cluster, "shim-b");
    assert_eq!(following.next().await, printed(2));
}

/// The API server ends a connection when a container ends or after some hours. The log of the next connection begins with
/// lines that were printed.
#[tokio::test]
async fn a_log_that_ends_is_opened_again_and_no_line_is_printed_twice() {
    let cluster = Cluster::with("ready").await;
    start(&cluster, "shim-a");
    cluster.fake.log(&log("shim-a"), &line("checkout", 1));
    let mut following = Following::start(&cluster, "logs checkout --follow");
    assert_eq!(following.next().await, printed(1));
    cluster.fake.end_log(&log("shim-a"));
    // written while no connection follows
    cluster.fake.log(&log("shim-a"), &line("checkout", 2));
    assert_eq!(following.next().await, printed(2));
    cluster.fake.log_followed(&log("shim-a"), 2).await;
    cluster.fake.log(&log("shim-a"), &line("checkout", 3));
    assert_eq!(following.next().await, printed(3));
}

/// Several threads of a node write lines, so one may have an earlier time than the line before it, or the same.
#[tokio::test]
async fn lines_are_printed_in_the_order_in_which_they_are_written() {
    let cluster = Cluster::with("ready").await;
    start(&cluster, "shim-a");
    let seconds = [2, 1, 1, 3];
    let lines: String = seconds.map(|second| line("checkout", second)).concat();
    cluster.fake.log(&log("shim-a"), &lines);
    let mut following = Following::start(&cluster, "logs checkout --follow");
    for second in seconds {
        assert_eq!(following.next().await, printed(second));
    }
}

#[tokio::test]
async fn a_restriction_to_a_revision_holds_for_new_lines() {
    let cluster = Cluster::with("ready").await;
    start(&cluster, "shim-a");
    cluster.fake.log(&log("shim-a"), "started\n");
    let line_of = |revision: &str, second| line("checkout", second).replace("checkout-1", revision);
    let mut following = Following::start(&cluster, "logs checkout --follow --revision checkout-2");
    cluster.fake.log_followed(&log("shim-a"), 1).await;
    cluster.fake.log(&log("shim-a"), &line_of("checkout-1", 1));
    cluster.fake.log(&log("shim-a"), &line_of("checkout-2", 2));
    assert_eq!(
        following.next().await,
        printed(2).replace("checkout-1", "checkout-2")
    );
}
