//! Checks that `docs/metrics.md` and the programs name the same metrics.

use crate::tree::{read, rust_files};
use std::collections::BTreeSet;

/// Files that define metrics.
pub(crate) const DEFINING: [&str; 7] = [
    "operator/src/metrics/families.rs",
    "operator/src/metrics/function_gauge.rs",
    "operator/src/measure/metrics.rs",
    "operator/src/node_api/metrics.rs",
    "node-shim/src/metrics/mod.rs",
    "node-shim/src/metrics/node.rs",
    "node-shim/src/supervisor/metrics.rs",
];

/// Returns the names of metrics in a text, without the suffixes of histograms.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c == '_';
    text.split(|c| !word(c))
        .filter(|name| name.starts_with("selvage_"))
        .map(|name| {
            let suffixes = ["_bucket", "_count", "_sum"];
            let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            stem.unwrap_or(name).to_owned()
        })
        .collect()
}

fn defined() -> BTreeSet<String> {
    let defined: BTreeSet<_> = DEFINING
        .into_iter()
        .flat_map(|file| names(&read(file)))
        .collect();
    assert!(defined.len() > 40, "{defined:?}");
    defined
}

/// A metric without documentation is not used; an alert on a metric that does not exist never fires.
#[test]
fn the_documentation_names_exactly_the_metrics_that_exist() {
    assert_eq!(names(&read("docs/metrics.md")), defined());
}

#[test]
fn code_names_only_metrics_that_exist() {
    let defined = defined();
    let programs = ["operator/src/", "node-shim/src/"];
    for path in rust_files() {
        if programs.iter().any(|folder| path.starts_with(folder)) {
            let unknown: Vec<_> = names(&read(&path)).difference(&defined).cloned().collect();
            assert!(unknown.is_empty(), "{path}: {unknown:?}");
        }
    }
}
