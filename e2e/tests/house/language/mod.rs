//! Plain words in what people read: comments, documentation, string literals, Markdown, manifests.
//!
//! `words.rs` lists words and phrases to avoid and what to write instead. The tree still has many of them, so
//! `e2e/tests/language-baseline.txt` records how many each file has; the numbers may only get smaller.

mod baseline;
mod prose;
mod words;

use crate::tree::{files, read};
use prose::{Passage, passages};
use std::collections::BTreeMap;
use words::{ALLOWED, AVOIDED};

/// Something to rewrite, and the line it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    line: usize,
    found: String,
    instead: &'static str,
}

/// Generated from other files, or not prose.
fn is_skipped(path: &str) -> bool {
    let generated = ["crds/yaml/", "charts/selvage/files/", "docs/fields.md"];
    let data = [
        ".lock",
        ".snap",
        ".json",
        ".sum",
        "LICENSE",
        "-baseline.txt",
    ];
    generated.iter().any(|start| path.starts_with(start))
        || data.iter().any(|end| path.ends_with(end))
}

fn findings(path: &str, text: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for passage in passages(path, text) {
        avoided(&passage, &mut found);
        if passage.is_documentation && passage.words().count() < 2 {
            found.push(Finding {
                line: passage.tokens.first().map_or(1, |token| token.line),
                found: "documentation of one word".into(),
                instead: "say in a sentence what it is or does, with unit, range and default",
            });
        }
    }
    found.sort_by_key(|finding| finding.line);
    found
}

fn avoided(passage: &Passage, found: &mut Vec<Finding>) {
    for (phrase, instead) in AVOIDED {
        let parts: Vec<&str> = phrase.split(' ').collect();
        for (at, window) in passage.tokens.windows(parts.len()).enumerate() {
            let follows = passage.tokens.get(at + parts.len());
            // "no more than" is a bound, "no more" alone an old form of "no longer"
            let bound = phrase == "no more" && follows.is_some_and(|token| token.is_word);
            if window
                .iter()
                .map(|token| token.text.as_str())
                .eq(parts.iter().copied())
                && !bound
            {
                found.push(Finding {
                    line: window[0].line,
                    found: phrase.into(),
                    instead,
                });
            }
        }
    }
}

/// What every file has, without what is allowed; and the entries of the list that allow nothing.
fn survey() -> (BTreeMap<String, Vec<Finding>>, Vec<String>) {
    let mut unused: Vec<_> = ALLOWED.iter().collect();
    let mut all = BTreeMap::new();
    for path in files().into_iter().filter(|path| !is_skipped(path)) {
        let Ok(text) = std::fs::read_to_string(crate::tree::root().join(&path)) else {
            continue;
        };
        let mut found = findings(&path, &text);
        found.retain(|finding| {
            let allows = |(file, phrase, _): &&(&str, &str, &str)| {
                *file == path && (*phrase == "*" || *phrase == finding.found)
            };
            unused.retain(|entry| !allows(entry));
            !ALLOWED.iter().any(|entry| allows(&entry))
        });
        if !found.is_empty() {
            all.insert(path, found);
        }
    }
    let unused = unused
        .iter()
        .map(|(file, phrase, _)| format!("{file}: {phrase}"));
    let unused = unused.collect();
    (all, unused)
}

#[test]
fn no_file_gets_more_words_to_avoid_and_the_baseline_is_exact() {
    let (all, unused) = survey();
    let counts: BTreeMap<String, usize> = all
        .iter()
        .map(|(path, found)| (path.clone(), found.len()))
        .collect();
    let mut phrases: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in all.values().flatten() {
        *phrases.entry(&finding.found).or_default() += 1;
    }
    let total: usize = counts.values().sum();
    println!("{total} findings in {} files: {phrases:?}", counts.len());
    assert!(unused.is_empty(), "delete from words.rs: {unused:?}");

    let recorded = baseline::parse(&read(baseline::FILE));
    if std::env::var("LANGUAGE_BASELINE").is_ok_and(|value| value == "write") {
        let before: usize = recorded.values().sum();
        assert!(
            total <= before || recorded.is_empty(),
            "{total} findings, {before} recorded: rewrite the new ones first"
        );
        let file = crate::tree::root().join(baseline::FILE);
        std::fs::write(file, baseline::render(&counts)).unwrap();
        return;
    }
    let mut report = String::new();
    for (path, change) in baseline::changes(&recorded, &counts) {
        report.push_str(&format!("\n{path}: {change}\n"));
        for finding in all.get(&path).into_iter().flatten() {
            let Finding {
                line,
                found,
                instead,
            } = finding;
            report.push_str(&format!("  {path}:{line}: {found} → {instead}\n"));
        }
    }
    assert!(
        report.is_empty(),
        "{report}\n`make language` lowers the numbers of e2e/tests/language-baseline.txt to what is there."
    );
}

#[test]
fn phrases_are_found_in_comments_documentation_and_strings() {
    let source = "//! Nobody knows.\n\
        /// Kept for\n\
        /// ever, in vain.\n\
        fn nobody() {\n    // is told; is\n\n    // told\n    let nobody = \"whoever \\\n        asks\";\n}\n\
        /* of\n * ours */\n\
        const A: &str = r#\"are told\"#;\n";
    let found: Vec<_> = findings("a.rs", source)
        .into_iter()
        .map(|finding| (finding.line, finding.found))
        .collect();
    let expected = [
        (1, "nobody"),
        (2, "for ever"),
        (3, "in vain"),
        (5, "is told"),
        (8, "whoever"),
        (11, "of ours"),
        (13, "are told"),
    ];
    assert_eq!(found, expected.map(|(line, word)| (line, word.to_owned())));
}

#[test]
fn other_words_and_names_are_not_found() {
    let source = "/// Serves forever; no more than 3, no more requests. It is: told.\n\
        fn wish() { let nobody = whoever(); }\n";
    assert_eq!(findings("a.rs", source), []);
    let text = "| is | told |\n\nfor\n\never\n";
    assert_eq!(findings("a.md", text), []);
}

#[test]
fn no_more_is_found_where_it_means_no_longer() {
    let found = findings(
        "a.md",
        "A node that answers no more.\nIt is no\nmore, and so on.\n",
    );
    assert_eq!(found.iter().map(|f| f.line).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn documentation_of_one_word_is_found() {
    let source = "//! Two words.\n\
        /// Events.\nstruct A {\n    /// `When`?\n    a: u8,\n    /// Number of events.\n    b: u8,\n    // Aside.\n    c: u8,\n}\n";
    let lines: Vec<_> = findings("a.rs", source).iter().map(|f| f.line).collect();
    assert_eq!(lines, [2, 4]);
}
