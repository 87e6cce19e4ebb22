//! Functions that a node compiled for one version of a component and reuses for the next one.

use std::path::Path;

use node_api::v1::FunctionRecord;

use crate::node::{Environment, Node, ONE, TWO, files};
use crate::operator::{Operator, definition, function, via_operator};

fn plain(name: &str, wasm: &[u8]) -> FunctionRecord {
    function(name, 1, vec![definition("r1", wasm, via_operator())], 0)
}

/// Starts a node with these functions and waits until all of them are loaded.
async fn start(folder: &Path, operator: &Operator, functions: Vec<FunctionRecord>) -> Node {
    operator.blob(&ONE);
    operator.blob(&TWO);
    let number = functions.len() as u32;
    operator.snapshot(7, functions).await;
    let environment = Environment {
        operator: Some(operator),
        registry: None,
    };
    let node = Node::start(folder, environment).await;
    let all = |report: &node_api::v1::Report| report.functions_loaded == number;
    operator.report("all loaded", all).await;
    node
}

/// Returns the number of functions that were taken from the cache, and that were compiled.
async fn counts(node: &Node) -> (u64, u64) {
    let page = node.metrics().await;
    let count = |source: &str| {
        let series = format!("selvage_compile_functions_total{{source=\"{source}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&series));
        value.unwrap().parse::<u64>().unwrap()
    };
    (count("cached"), count("compiled"))
}

/// Removes the native code of a node that does not run.
fn remove_native(folder: &Path) {
    for file in files(&folder.join("native"), "") {
        std::fs::remove_file(file).unwrap();
    }
}

/// The versions differ in their data only. A few functions are compiled again all the same, depending on what the thread
/// compiled before them.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_version_of_a_component_reuses_compiled_functions() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let node = start(folder.path(), &operator, vec![plain("f", &ONE)]).await;
    let (cached, compiled) = counts(&node).await;
    assert_eq!(cached, 0);
    assert!(compiled > 5, "{compiled}");
    operator.delta(8, vec![plain("g", &TWO)]).await;
    node.answers("g", 200, "two").await;
    let (cached, now) = counts(&node).await;
    assert_eq!(cached + now, 2 * compiled, "all functions are looked up");
    assert!(cached > compiled / 2, "{cached} of {compiled}");
    node.answers("f", 200, "one").await;
    node.drain().await;
    // by the next process too
    remove_native(folder.path());
    let operator = Operator::start().await;
    let functions = vec![plain("f", &ONE), plain("g", &TWO)];
    let node = start(folder.path(), &operator, functions).await;
    let (cached, now) = counts(&node).await;
    assert_eq!(cached + now, 2 * compiled);
    assert!(cached > compiled, "{cached} of 2 × {compiled}");
    node.answers("f", 200, "one").await;
    node.drain().await;
}

/// HG-31: no namespace decides on the code of another one, also when both use the same component.
#[tokio::test(flavor = "multi_thread")]
async fn hg_31_a_component_of_two_namespaces_is_compiled_without_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::start().await;
    let mut other = plain("g", &ONE);
    other.key.as_mut().unwrap().namespace = "other".into();
    let functions = vec![plain("f", &ONE), other];
    let node = start(folder.path(), &operator, functions).await;
    assert_eq!(counts(&node).await, (0, 0));
    assert!(files(&folder.path().join("functions"), "").is_empty());
    node.answers("f", 200, "one").await;
    node.answers("g", 200, "one").await;
    node.drain().await;
}

/// FN-4: functions that were damaged on disk are compiled again and stored again.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_functions_are_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    for harmed in [false, true, false] {
        if harmed {
            for file in files(&folder.path().join("functions"), ".mac") {
                std::fs::write(file, [0; 32]).unwrap();
            }
        }
        let operator = Operator::start().await;
        let node = start(folder.path(), &operator, vec![plain("f", &ONE)]).await;
        found.push(counts(&node).await);
        node.answers("f", 200, "one").await;
        node.drain().await;
        remove_native(folder.path());
    }
    let (_, all) = found[0];
    assert_eq!(found[..2], [(0, all), (0, all)]);
    let (cached, compiled) = found[2];
    assert_eq!(cached + compiled, all);
    assert!(cached > all / 2, "{cached} of {all}: stored again");
}
