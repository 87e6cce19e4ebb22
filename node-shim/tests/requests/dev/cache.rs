//! Compiled functions in the cache directory of the user, which `dev` and `serve` share.

use std::fs;
use std::process::Command;

use super::program::{Dev, Project, get_from};
use super::{answering, one};
use crate::program::start_as;
use crate::support::program::node_shim;
use crate::support::wire::get;

/// Returns how many functions a line about a loaded version counts: those of the cache, and all.
fn counted(line: &str) -> Option<(u64, u64)> {
    let words = line.split_once(" ms, ")?.1;
    let (reused, rest) = words.split_once(" of ")?;
    let (all, _) = rest.split_once(" functions from the cache)")?;
    Some((reused.parse().unwrap(), all.parse().unwrap()))
}

/// The versions differ in their data only. A few functions are compiled again all the same, depending on what the thread
/// compiled before them.
#[test]
fn later_versions_and_later_processes_reuse_compiled_functions() {
    let caches = tempfile::tempdir().unwrap();
    let of_user = |mut command: Command| {
        command.env("XDG_CACHE_HOME", caches.path());
        command
    };
    let (mut child, address) = start_as(of_user(node_shim()), &answering("v0"), &[]);
    assert_eq!(get(address, "/").text(), "v0");
    child.kill().unwrap();
    child.wait().unwrap();

    let project = Project::new(&one(""), &[("c.wasm", &answering("v1"))]);
    // its namespace is not that of `serve`
    let mut dev = Dev::run(of_user(project.command(&[])));
    let first = dev.line("Serving version 1 ");
    assert_eq!(counted(&first), None, "{first}");
    project.write("c.wasm", &answering("v2"));
    let second = dev.line("Serving version 2 ");
    let (reused, all) = counted(&second).unwrap();
    assert!(reused > all / 2, "{second}");
    assert!(dev.interrupt().success());

    let mut dev = Dev::run(of_user(project.command(&[])));
    let again = dev.line("Serving version 1 ");
    let (reused, all) = counted(&again).unwrap();
    assert!(reused > all / 2, "{again}");
    let files = fs::read_dir(caches.path().join("selvage/node-shim/functions")).unwrap();
    // of two namespaces, each with its HMAC
    assert_eq!(files.count(), 4);
}

#[test]
fn a_cache_that_cannot_be_used_is_reported_and_no_error() {
    let caches = tempfile::tempdir().unwrap();
    fs::write(caches.path().join("selvage"), "a file").unwrap();
    let project = Project::new(&one(""), &[("c.wasm", &answering("v1"))]);
    let mut command = project.command(&[]);
    command.env("XDG_CACHE_HOME", caches.path());
    let mut dev = Dev::run(command);
    dev.line("compiled functions are not kept for later compilations: cannot use ");
    let address = dev.address();
    assert_eq!(get_from(address, "one.example", "/").text(), "v1");
}
