//! A node with more components than may be mapped at once.

use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use node_api::v1::FunctionRecord;
use node_shim::supervisor::Supervisor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::component::guest;
use crate::deleted::reader;
use crate::node::{Environment, Node, ONE, TIMEOUT, TWO, files, options};
use crate::operator::{Operator, definition, function, via_operator};

/// Component that responds with "three".
static THREE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    guest(
        r#"(data (i32.const 4096) "three")"#,
        "(call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 5))",
    )
});

/// Returns a function with one revision of this component.
fn plain(name: &str, wasm: &[u8]) -> FunctionRecord {
    function(name, 1, vec![definition("r1", wasm, via_operator())], 0)
}

/// Starts a node that may map `cap` components, and waits until it has loaded all of these functions.
async fn start(
    folder: &Path,
    operator: &Operator,
    cap: usize,
    functions: Vec<FunctionRecord>,
) -> Node {
    for wasm in [&*ONE, &*TWO, &*THREE, &reader()] {
        operator.blob(wasm);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let number = functions.len() as u32;
    operator.snapshot(7, functions).await;
    let environment = Environment {
        operator: Some(operator),
        registry: None,
    };
    let mut options = options(folder, &environment);
    options.max_loaded = Some(cap);
    let supervisor = Supervisor::start(options).await.unwrap();
    let all = |report: &node_api::v1::Report| report.functions_loaded == number;
    operator.report("all loaded", all).await;
    Node { supervisor }
}

/// Returns the sum of all series of a metric whose labels contain all of `labels`.
async fn metric(node: &Node, name: &str, labels: &[&str]) -> u64 {
    let page = node.metrics().await;
    let lines = page.lines().filter(|line| {
        let named = line.split(['{', ' ']).next() == Some(name);
        named && labels.iter().all(|label| line.contains(label))
    });
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

async fn mapped(node: &Node) -> u64 {
    metric(node, "selvage_loaded_components", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_functions_are_served_with_two_mapped_components() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let functions = vec![plain("a", &ONE), plain("b", &TWO), plain("c", &THREE)];
    let node = start(folder.path(), &operator, 2, functions).await;
    assert_eq!(
        metric(&node, "selvage_loaded_components_limit", &[]).await,
        2
    );
    let expected = [("a", "one"), ("b", "two"), ("c", "three")];
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let watch = async {
        while !over.load(Ordering::Relaxed) {
            most.fetch_max(mapped(&node).await, Ordering::Relaxed);
        }
    };
    let ask = async {
        for _ in 0..10 {
            for (name, body) in expected {
                assert_eq!(node.get(name).await, (200, body.to_string()));
            }
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(watch, ask);
    assert_eq!(most.load(Ordering::Relaxed), 2);
    // The functions are called in turn, so each call finds its code unmapped, except the first two.
    let requests = "selvage_requests_total";
    let counted = tokio::time::timeout(TIMEOUT, async {
        while metric(&node, requests, &["outcome=\"ok\""]).await < 30 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(counted.await.is_ok(), "all requests are counted");
    let cold = metric(&node, requests, &["start=\"cold\"", "outcome=\"ok\""]).await;
    assert!(cold >= 28, "{cold}");
    assert_eq!(metric(&node, requests, &["outcome=\"ok\""]).await, 30);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_code_stays_mapped_and_is_unmapped_when_idle() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let functions = vec![plain("a", &reader()), plain("b", &TWO)];
    let node = start(folder.path(), &operator, 1, functions).await;
    let mut under_way = TcpStream::connect(node.supervisor.data_address())
        .await
        .unwrap();
    let head = "POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
    under_way.write_all(head.as_bytes()).await.unwrap();
    let taken = ["kind=\"instance\"", "state=\"taken\""];
    let runs = tokio::time::timeout(TIMEOUT, async {
        while metric(&node, "selvage_pool_slots", &taken).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(runs.await.is_ok(), "the first function runs");
    assert_eq!(node.get("b").await, (200, "two".into()));
    assert_eq!(
        mapped(&node).await,
        2,
        "more components than the limit are in use"
    );
    under_way.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    under_way.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let trimmed = tokio::time::timeout(TIMEOUT, async {
        while mapped(&node).await > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(
        trimmed.await.is_ok(),
        "idle code beyond the limit is unmapped"
    );
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_with_traffic_stays_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let in_rollout = function(
        "a",
        1,
        vec![
            definition("r1", &ONE, via_operator()),
            definition("r2", &TWO, via_operator()),
        ],
        10_000,
    );
    let functions = vec![in_rollout, plain("c", &THREE)];
    let node = start(folder.path(), &operator, 1, functions).await;
    let candidate = "function=\"a\",revision=\"r2\"";
    let cold = [candidate, "start=\"cold\""];
    let requests = "selvage_requests_total";
    node.answers("a", 200, "two").await;
    let before = metric(&node, requests, &cold).await;
    for _ in 0..5 {
        assert_eq!(node.get("c").await.1, "three");
        assert_eq!(node.get("a").await.1, "two");
    }
    assert_eq!(metric(&node, requests, &cold).await, before);
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_native_code_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let functions = vec![plain("a", &ONE), plain("b", &TWO)];
    let node = start(folder.path(), &operator, 1, functions).await;
    assert_eq!(node.get("a").await.1, "one");
    assert_eq!(node.get("b").await.1, "two");
    let hex = crate::operator::digest(&ONE);
    let hex = hex.strip_prefix("sha256:").unwrap();
    let native = folder.path().join("native");
    let code = files(&native, hex);
    assert!(!code.is_empty());
    for file in code {
        std::fs::remove_file(file).unwrap();
    }
    node.answers("a", 200, "one").await;
    assert!(!files(&native, hex).is_empty());
    node.drain().await;
}
