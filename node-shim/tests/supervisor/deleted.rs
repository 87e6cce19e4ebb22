//! Deletion of a function.

use std::collections::BTreeMap;
use std::time::Duration;

use node_api::v1::Report;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::component::guest;
use crate::node::{Environment, Node, ONE, TIMEOUT};
use crate::operator::{Operator, definition, function, via_operator};

/// Component that reads the whole request body and then responds with "done".
pub(crate) fn reader() -> Vec<u8> {
    guest(
        r#"(data (i32.const 4096) "done")"#,
        "
        (call $consume (local.get $req) (i32.const 16))
        (call $incoming-stream (i32.load (i32.const 20)) (i32.const 16))
        (local.set $i (i32.load (i32.const 20)))
        (loop $more
          (call $blocking-read (local.get $i) (i64.const 4096) (i32.const 16))
          (br_if $more (i32.eqz (i32.load8_u (i32.const 16)))))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))",
    )
}

/// Sums the counter frames of one stream, as an operator does.
#[derive(Default)]
struct CounterTotals(BTreeMap<String, u64>);

impl CounterTotals {
    fn take(&mut self, report: &Report) {
        let Some(frame) = &report.counters else {
            return;
        };
        if frame.absolute {
            self.0.clear();
        }
        for row in &frame.revisions {
            let count: u64 = row.outcomes.iter().map(|one| one.count).sum();
            *self.0.entry(row.revision.clone()).or_default() += count;
        }
    }
}

/// Returns the number of finished requests of the first revision.
fn requests(page: &str) -> u64 {
    let lines = page.lines().filter(|line| {
        line.starts_with("selvage_requests_total{") && line.contains("revision=\"r1\"")
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

/// Polls the metrics page until it satisfies `wanted`.
async fn page(node: &Node, what: &str, wanted: impl Fn(&str) -> bool) {
    let found = tokio::time::timeout(TIMEOUT, async {
        while !wanted(&node.metrics().await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(found.await.is_ok(), "the metrics page never showed: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_function_loses_its_metrics_but_running_requests_finish_and_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let reader = reader();
    operator.blob(&reader);
    operator.blob(&ONE);
    let definitions = vec![
        definition("r1", &reader, via_operator()),
        definition("r2", &ONE, via_operator()),
    ];
    operator
        .snapshot(7, vec![function("f", 1, definitions, 0)])
        .await;
    let environment = Environment {
        operator: Some(&operator),
        registry: None,
    };
    let node = Node::start(folder.path(), environment).await;
    node.answers("f", 200, "done").await;
    let mut under_way = TcpStream::connect(node.supervisor.data_address())
        .await
        .unwrap();
    let head = "POST / HTTP/1.1\r\nhost: f.test\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
    under_way.write_all(head.as_bytes()).await.unwrap();
    let named = |page: &str| page.contains("function=\"f\"");
    let running =
        |line: &str| line.starts_with("selvage_in_flight_requests{") && line.ends_with(" 1");
    page(&node, "the request", |page| page.lines().any(running)).await;

    page(&node, "the first request", |page| requests(page) >= 1).await;
    let ended = requests(&node.metrics().await);
    operator.remove(500, "f").await;
    page(&node, "the end of its series", |page| !named(page)).await;
    assert_eq!(node.get("f").await.0, 404);
    under_way.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    under_way.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut totals = CounterTotals::default();
    operator
        .report("the last request", |report| {
            totals.take(report);
            report.applied_version == 500 && totals.0.get("r1") == Some(&(ended + 1))
        })
        .await;
    assert!(!named(&node.metrics().await), "the metrics appeared again");
    node.drain().await;
}
