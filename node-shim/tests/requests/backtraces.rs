//! Files and lines of the functions that were running when a guest trapped: shown by `serve` and `dev`, not by nodes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;

use wat::GenerateDwarf;

use crate::dev::{Dev, Project, get_from, one};
use crate::program::start_logging;
use crate::support::component::{WIT, encoded, from_module, guest_text};
use crate::support::node::{Node, eventually};
use crate::support::program::node_shim;
use crate::support::wire::get;

/// Text of a guest that traps in a function with the name of one in Rust, which another one calls.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let render = "$_ZN5guest6render17h0123456789abcdefE";
    let items = format!("(func {render}\n unreachable) (func $respond\n (call {render}))");
    guest_text(&items, "(call $respond)")
});

/// The guest with debug information.
static WITH_LINES: LazyLock<Vec<u8>> = LazyLock::new(|| with_lines(&TEXT));

/// Returns the guest with debug information that refers to its text as a file.
fn with_lines(text: &str) -> Vec<u8> {
    let parsed = wat::Parser::new()
        .generate_dwarf(GenerateDwarf::Lines)
        .parse_str(Some(Path::new("guest.wat")), text);
    encoded(parsed.unwrap(), &WIT)
}

/// Returns the place of a part of the text, as a backtrace shows it.
fn place(part: &str) -> String {
    let before = TEXT.split_once(part).unwrap().0;
    format!("guest.wat:{}:", before.lines().count())
}

/// Returns what `serve` logs of a guest that traps.
fn logged_by_serve(wasm: &[u8]) -> String {
    let (mut child, address) = start_logging(node_shim(), Stdio::piped(), wasm, &[]);
    assert_eq!(get(address, "/").status_and_error(), (500, "trap"));
    let mut line = String::new();
    let mut log = BufReader::new(child.stdout.take().unwrap());
    log.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    record["msg"].as_str().unwrap().to_owned()
}

/// Returns what a node logs of a guest that traps.
fn logged_by_node(wasm: &[u8]) -> String {
    let node = Node::serve(wasm);
    assert_eq!(get(node.address(), "/").status_and_error(), (500, "trap"));
    eventually("the reason is written", || !node.log().is_empty());
    node.log()[0]["msg"].as_str().unwrap().to_owned()
}

#[test]
fn serve_shows_file_and_line_of_each_function_with_debug_information() {
    let text = logged_by_serve(&WITH_LINES);
    let found = |part: &str| {
        let at = text.lines().position(|line| line.contains(part));
        at.unwrap_or_else(|| panic!("{part} in {text}"))
    };
    let [innermost, caller] = [place("unreachable"), place("(call $_ZN")];
    // below the name of each function
    assert_eq!(found("guest::render") + 1, found(&innermost), "{text}");
    assert_eq!(found("respond") + 1, found(&caller), "{text}");
    assert!(found(&innermost) < found(&caller), "{text}");
}

#[test]
fn dev_shows_file_and_line_of_each_function_with_debug_information() {
    let project = Project::new(&one(""), &[("c.wasm", &WITH_LINES)]);
    let (mut dev, address) = Dev::serving(&project, &[]);
    assert_eq!(get_from(address, "localhost", "/").status, 500);
    for part in [&place("unreachable"), &place("(call $_ZN"), "GET / 500"] {
        dev.line(part);
    }
}

/// The debug information of a hostile component would be parsed in the process that serves all functions of a node.
#[test]
fn nodes_do_not_read_debug_information() {
    let text = logged_by_node(&WITH_LINES);
    assert!(text.contains("!guest::render"), "{text}");
    assert_eq!(text, logged_by_node(&from_module(&TEXT)));
}

#[test]
fn serve_logs_the_same_as_a_node_of_a_guest_without_debug_information() {
    let wasm = from_module(&TEXT);
    assert_eq!(logged_by_serve(&wasm), logged_by_node(&wasm));
}
