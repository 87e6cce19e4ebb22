//! Checks that the documentation quotes the labels of commands as the messages of rollouts have them.

use crate::tree::{read, rust_files};
use std::collections::BTreeSet;

/// Returns the labels of commands in a page: quoted alone (`To resume:`), or before a command (`To retry: kubectl …`).
fn labels(page: &str) -> BTreeSet<String> {
    // the command of the plugin and the one without it have one label
    let page = page.replace(", or: kubectl -n ", " ");
    let quoted = page.split('`').skip(1).step_by(2);
    let alone = quoted.filter(|text| text.starts_with(char::is_uppercase) && text.ends_with(':'));
    let mut before: Vec<&str> = page.split(": kubectl").collect();
    before.pop();
    let starts = |text: &&str| {
        let label = text.rsplit(['\n', '`', '.']).next().unwrap_or_default();
        format!("{}:", label.trim())
    };
    alone
        .map(ToOwned::to_owned)
        .chain(before.iter().map(starts))
        .collect()
}

#[test]
fn the_documentation_quotes_the_labels_of_commands_that_messages_have() {
    let code: String = rust_files()
        .iter()
        .filter(|path| path.starts_with("delivery/src/rollout/"))
        .map(|path| read(path))
        .collect();
    let pages = ["docs/rollouts.md", "docs/operating.md"];
    let quoted: BTreeSet<String> = pages.iter().flat_map(|page| labels(&read(page))).collect();
    assert!(quoted.len() >= 4, "{quoted:?}");
    for label in quoted {
        assert!(code.contains(&format!("{label} {{")), "{label}");
    }
}

#[test]
fn labels_are_found_alone_and_before_commands() {
    let page = "after `Go on:`.\n\nWorse.\nAgain: kubectl x, or: kubectl -n y\n| `lost (A). Change it, or: kubectl …` | `held: …` |";
    let found = ["Again:", "Change it, or:", "Go on:"].map(str::to_owned);
    assert_eq!(labels(page), BTreeSet::from(found));
}
