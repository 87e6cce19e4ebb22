//! Components that are rejected before they get traffic, with a message that names the reason.

use std::io::Write;

use node_shim::engine::{Compiler, LoadError};

use crate::support::component::HANDLER;
use crate::support::node::ENGINE;

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Compiles like the compiler process and maps like a node.
fn load(text: &str) -> Result<(), LoadError> {
    let code = Compiler::new()
        .unwrap()
        .precompile(&component(text))
        .unwrap_or_else(|error| panic!("{error:#}"));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&code).unwrap();
    ENGINE.load(file.path()).map(drop)
}

/// HG-4: a component that exceeds a limit by one is rejected when it is mapped, and the message names the limit.
#[test]
fn hg_4_a_component_above_a_limit_is_rejected_with_the_limit() {
    let times = |times: usize, items: &str| {
        let instances = "(core instance (instantiate $m))".repeat(times);
        format!("(component (core module $m {items}) {instances})")
    };
    let nested = format!(
        "(component (component $c (core module $m) {}) {})",
        "(core instance (instantiate $m))".repeat(33),
        "(instance (instantiate $c))".repeat(2)
    );
    for (what, text, limit) in [
        (
            "memories of one",
            times(1, "(memory 1) (memory 1)"),
            "limit of 1",
        ),
        ("memories", times(9, "(memory 1)"), "maximum of 8"),
        ("table", times(1, "(table 20001 funcref)"), "limit of 20000"),
        (
            "memory",
            times(1, "(memory 16385)"),
            "limit of 0x40000000 bytes",
        ),
        ("instances", times(65, ""), "maximum of 64"),
        ("nested instances", nested, "maximum of 64"),
    ] {
        match load(&text) {
            Err(error @ LoadError::TooLarge(_)) => {
                let message = error.to_string();
                assert!(message.contains(limit), "{what}: {message}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    // a file that is not native code is a different error
    let mut text = tempfile::NamedTempFile::new().unwrap();
    text.write_all(b"(component)").unwrap();
    assert!(matches!(
        ENGINE.load(text.path()),
        Err(LoadError::Incompatible(_))
    ));
}

/// HG-11: the error names the disabled feature.
#[test]
fn hg_11_disabled_features_are_named() {
    let core = |items: &str| format!("(component (core module {items}))");
    let lifted = "(core module $m (func (export \"f\"))) (core instance $i (instantiate $m))";
    for (text, named) in [
        (core("(memory 1 2 shared)"), "threads"),
        (
            core("(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"),
            "threads",
        ),
        (core("(memory i64 1)"), "memory64"),
        (core("(type (struct))"), "gc"),
        (core("(tag)"), "exceptions"),
        (
            core("(type $f (func)) (func (param (ref $f)))"),
            "function references",
        ),
        (
            format!(
                "(component {lifted} (func (export \"f\") async (canon lift (core func $i \"f\") async)))"
            ),
            "async",
        ),
        ("(component (type (stream u8)))".into(), "async"),
        ("(component (type (future u8)))".into(), "async"),
        (
            "(component (core func (canon error-context.drop)))".into(),
            "error",
        ),
    ] {
        let error = Compiler::new().unwrap().precompile(&component(&text));
        let message = format!("{:#}", error.unwrap_err());
        assert!(message.contains(named), "{text}: {message}");
    }
}

/// HG-12: what is imported and not offered is listed; so is a handler or an import of another type.
#[test]
fn hg_12_missing_imports_and_exports_are_listed() {
    let with = |import: &str| {
        format!("(component (import \"{import}\" (instance (export \"f\" (func)))) {HANDLER})")
    };
    for (text, named) in [
        (
            with("wasi:keyvalue/watcher@0.2.0-draft2"),
            "imports wasi:keyvalue/watcher@0.2.0-draft2",
        ),
        (
            with("wasi:sockets/types@0.3.0"),
            "imports wasi:sockets/types@0.3.0",
        ),
        (with("acme:store/all@1.0.0"), "imports acme:store/all@1.0.0"),
        (
            with("wasi:http/types@0.3.0"),
            "imports wasi:http/types@0.3.0",
        ),
        (
            format!(
                "(component (import \"wasi:cli/environment@0.2.0\" (instance
                   (export \"get-environment\" (func (param \"x\" u32))))) {HANDLER})"
            ),
            "environment",
        ),
        (
            format!(
                "(component (import \"wasi:filesystem/preopens@0.2.0\" (instance
                   (export \"get-directories\" (func (result string))))) {HANDLER})"
            ),
            "get-directories",
        ),
        (format!("(component {HANDLER})"), "incoming-handler"),
    ] {
        match load(&text) {
            Err(LoadError::WorldMismatch(list)) => {
                assert!(list.iter().any(|one| one.contains(named)), "{list:?}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}
