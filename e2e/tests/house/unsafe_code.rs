//! Checks where unsafe code is used. The workspace denies it, but an attribute can permit it; this file lists the
//! files that do so.

use crate::{
    rust::{Token, code},
    tree::{packages, read, rust_files},
};
use ra_ap_rustc_lexer::TokenKind;
use std::collections::BTreeSet;

/// Files with unsafe code, and why it cannot be avoided there.
const ALLOWED: [(&str, &str); 3] = [
    (
        "bench/src/first/bare.rs",
        "maps native code that it compiled itself, to measure the engine without the node-shim",
    ),
    (
        "examples/hello/src/arena.rs",
        "an allocator for a guest without the standard one; runs inside the sandbox",
    ),
    (
        "node-shim/src/engine/native.rs",
        "maps native code, which wasmtime cannot check; the cache authenticates each file before",
    ),
];

/// Returns whether a file has unsafe code or an attribute that permits it.
fn has_unsafe_code(source: &str) -> bool {
    const LEVELS: [&str; 5] = ["allow", "expect", "warn", "deny", "forbid"];
    let tokens = code(source);
    let word = |token: &Token<'_>, text: &str| token.kind == TokenKind::Ident && token.text == text;
    tokens.iter().enumerate().any(|(at, token)| {
        let before = &tokens[..at];
        let in_attribute = before.last().is_some_and(|t| matches!(t.text, "(" | ","));
        let level = || before.iter().rev().find(|t| LEVELS.contains(&t.text));
        let permits = |level: &Token<'_>| !matches!(level.text, "deny" | "forbid");
        word(token, "unsafe")
            || (word(token, "unsafe_code") && in_attribute && level().is_some_and(permits))
    })
}

#[test]
fn unsafe_code_is_only_in_the_listed_files() {
    let found: BTreeSet<_> = rust_files()
        .into_iter()
        .filter(|path| has_unsafe_code(&read(path)))
        .collect();
    let listed = ALLOWED.map(|(path, _)| path.to_owned());
    assert_eq!(
        found,
        BTreeSet::from(listed),
        "left: files with unsafe code; right: files that may have it"
    );
}

/// An attribute can override `deny` but not `forbid`, so crates without a listed file must forbid unsafe code.
#[test]
fn crates_without_unsafe_code_forbid_it() {
    for package in packages() {
        let inside = |path: &str| path.starts_with(&format!("{}/src/", package.folder));
        let of_a_core = |path: &str| path.starts_with(&format!("{}/core/", package.folder));
        if ALLOWED
            .iter()
            .any(|(path, _)| inside(path) && !of_a_core(path))
        {
            continue;
        }
        for path in package.roots.iter().filter(|path| inside(path)) {
            let source: String = code(&read(path)).iter().map(|t| t.text).collect();
            assert!(
                source.contains("#![forbid(unsafe_code)]"),
                "{path} lacks #![forbid(unsafe_code)]"
            );
        }
    }
}

#[test]
fn an_attribute_is_found_in_any_form() {
    for source in [
        "#[allow(unsafe_code, reason = \"x\")] fn f() {}",
        "#![allow(\n    dead_code,\n    unsafe_code,\n    reason = \"x\"\n)]",
        "#[cfg_attr(test, expect(unsafe_code))] fn f() {}",
        "#![deny(missing_docs)] #[allow( /* why */ unsafe_code)] fn f() {}",
        "macro_rules! m { () => { unsafe { f() } } }",
        "unsafe impl Sync for A {}",
    ] {
        assert!(has_unsafe_code(source), "{source}");
    }
}

#[test]
fn comments_strings_and_prohibitions_are_no_unsafe_code() {
    for source in [
        "#![forbid(unsafe_code)]",
        "#![allow(dead_code)]\n#![deny(\n    unsafe_code\n)]",
        "// unsafe { f() }\n/* allow(unsafe_code) */ fn f() {}",
        "#![allow(dead_code)]\nmod unsafe_code;\nuse unsafe_code::f;",
        "const A: &str = \"unsafe\"; const B: &str = r#\"#[allow(unsafe_code)]\"#;",
    ] {
        assert!(!has_unsafe_code(source), "{source}");
    }
}
