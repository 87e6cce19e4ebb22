//! How many findings each file has, as committed.

use std::{collections::BTreeMap, fmt::Write};

pub(super) const FILE: &str = "e2e/tests/language-baseline.txt";

/// Reads lines of a number and a path.
pub(super) fn parse(text: &str) -> BTreeMap<String, usize> {
    let entry = |line: &str| {
        let (count, path) = line.trim().split_once(' ').unwrap();
        (path.to_owned(), count.parse().unwrap())
    };
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(entry)
        .collect()
}

/// The inverse of [`parse`].
pub(super) fn render(counts: &BTreeMap<String, usize>) -> String {
    let mut text = "# Findings of e2e/tests/house/language in each file. The total may only decrease; `make language` writes this file.\n".to_owned();
    for (path, count) in counts {
        writeln!(text, "{count:4} {path}").unwrap();
    }
    text
}

/// Files whose number is not the recorded one, and what to do about it.
pub(super) fn changes(
    recorded: &BTreeMap<String, usize>,
    found: &BTreeMap<String, usize>,
) -> Vec<(String, String)> {
    let mut paths: Vec<_> = recorded.keys().chain(found.keys()).collect();
    paths.sort();
    paths.dedup();
    let change = |path: &String| {
        let before = recorded.get(path).copied().unwrap_or(0);
        let now = found.get(path).copied().unwrap_or(0);
        let advice = match now.cmp(&before) {
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Greater => "rewrite what this change added",
            std::cmp::Ordering::Less => "lower the number in the baseline",
        };
        Some((
            path.clone(),
            format!("{now} findings, {before} recorded: {advice}"),
        ))
    };
    paths.into_iter().filter_map(change).collect()
}

#[test]
fn more_and_fewer_findings_are_changes() {
    let counts = |entries: &[(&str, usize)]| -> BTreeMap<String, usize> {
        let owned = entries
            .iter()
            .map(|(path, count)| ((*path).to_owned(), *count));
        owned.collect()
    };
    let recorded = counts(&[("gone", 1), ("less", 3), ("more", 1), ("same", 2)]);
    let found = counts(&[("less", 2), ("more", 2), ("new", 1), ("same", 2)]);
    let changes = changes(&recorded, &found);
    let advice: Vec<_> = changes
        .iter()
        .map(|(path, advice)| (path.as_str(), advice.contains("lower")))
        .collect();
    assert_eq!(
        advice,
        [
            ("gone", true),
            ("less", true),
            ("more", false),
            ("new", false)
        ]
    );
}

#[test]
fn a_baseline_survives_writing_and_reading() {
    let counts = BTreeMap::from([("a b.md".to_owned(), 7), ("c.rs".to_owned(), 12)]);
    assert_eq!(parse(&render(&counts)), counts);
}
