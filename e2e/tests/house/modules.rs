//! Checks that every Rust file belongs to a module tree and is in its conventional place.

use crate::{
    rust::{Token, code},
    tree::{packages, read, root, rust_files},
};
use ra_ap_rustc_lexer::TokenKind;
use std::collections::BTreeSet;

/// Files that set the path of a module by `#[path]`, and test files outside of their module's folder. Do not add any.
const MISPLACED: [&str; 0] = [];

/// A declaration `mod name;` with the enclosing inline modules and its `#[path]`.
#[derive(Debug, PartialEq, Eq)]
struct Declared {
    inside: Vec<String>,
    name: String,
    path: Option<String>,
}

/// Returns the modules that a file declares and another file defines.
fn declared(source: &str) -> Vec<Declared> {
    let tokens = code(source);
    let text = |at: usize| tokens.get(at).map_or("", |t: &Token<'_>| t.text);
    let (mut found, mut path, mut depth) = (Vec::new(), None, 0_usize);
    let mut inline: Vec<(usize, String)> = Vec::new();
    for at in 0..tokens.len() {
        match text(at) {
            "{" => {
                depth += 1;
                path = None;
            }
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|(opened, _)| *opened <= depth);
            }
            "path" if text(at.wrapping_sub(1)) == "[" && text(at + 1) == "=" => {
                path = Some(text(at + 2).trim_matches('"').to_owned());
            }
            "mod"
                if tokens
                    .get(at + 1)
                    .is_some_and(|t| t.kind == TokenKind::Ident) =>
            {
                let name = text(at + 1).to_owned();
                match text(at + 2) {
                    ";" => found.push(Declared {
                        inside: inline.iter().map(|(_, name)| name.clone()).collect(),
                        name,
                        path: path.take(),
                    }),
                    "{" => inline.push((depth + 1, name)),
                    _ => {}
                }
            }
            ";" => path = None,
            _ => {}
        }
    }
    found
}

/// Returns the files that the compiler reads, starting from `file`.
fn reach(file: &str, owns_folder: bool, reached: &mut BTreeSet<String>) {
    if !reached.insert(file.to_owned()) {
        return;
    }
    let (folder, name) = file.rsplit_once('/').unwrap();
    let stem = name.trim_end_matches(".rs");
    for module in declared(&read(file)) {
        let mut base = folder.to_owned();
        if !owns_folder && module.path.is_none() {
            base = format!("{base}/{stem}");
        }
        for inline in &module.inside {
            base = format!("{base}/{inline}");
        }
        if let Some(path) = &module.path {
            reach(&clean(&format!("{base}/{path}")), true, reached);
            continue;
        }
        let (plain, folded) = (
            format!("{base}/{}.rs", module.name),
            format!("{base}/{}/mod.rs", module.name),
        );
        if root().join(&plain).exists() {
            reach(&plain, false, reached);
        } else if root().join(&folded).exists() {
            reach(&folded, true, reached);
        }
    }
}

/// Returns a path without `..`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A file that no `mod` declares is never compiled, so its tests never run.
#[test]
fn every_rust_file_is_compiled() {
    let mut reached = BTreeSet::new();
    for path in packages().into_iter().flat_map(|package| package.roots) {
        reach(&path, true, &mut reached);
    }
    // workspaces of their own, built for wasm
    for example in ["cart", "gather", "grpc", "hello"] {
        reach(
            &format!("examples/{example}/src/lib.rs"),
            true,
            &mut reached,
        );
    }
    let forgotten: Vec<_> = rust_files().difference(&reached).cloned().collect();
    assert!(forgotten.is_empty(), "no module declares {forgotten:?}");
}

/// Unit tests are inline, or in `tests.rs` or `tests/` of the module's folder, where they need no `#[path]`.
#[test]
fn modules_and_unit_tests_are_in_their_conventional_places() {
    let misplaced: BTreeSet<_> = rust_files()
        .into_iter()
        .filter(|path| path.contains("/src/"))
        .filter(|path| {
            path.ends_with("_tests.rs") || declared(&read(path)).iter().any(|m| m.path.is_some())
        })
        .collect();
    let fresh: Vec<_> = misplaced
        .iter()
        .filter(|path| !MISPLACED.contains(&path.as_str()))
        .collect();
    assert!(fresh.is_empty(), "misplaced: {fresh:?}");
}

#[test]
fn declarations_are_read_with_their_surroundings() {
    let source = r#"
        // mod comment;
        const TEXT: &str = "mod string;";
        #[cfg(test)]
        #[path = "a/b.rs"]
        pub(crate) mod first;
        mod second;
        mod outer { fn f() { {} } mod inner; }
        mod last;
    "#;
    let of = |inside: &[&str], name: &str, path: Option<&str>| Declared {
        inside: inside.iter().map(|&name| name.to_owned()).collect(),
        name: name.to_owned(),
        path: path.map(str::to_owned),
    };
    assert_eq!(
        declared(source),
        [
            of(&[], "first", Some("a/b.rs")),
            of(&[], "second", None),
            of(&["outer"], "inner", None),
            of(&[], "last", None),
        ]
    );
}
