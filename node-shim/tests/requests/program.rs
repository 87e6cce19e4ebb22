//! Tests of the program `node-shim serve`.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::guests;
use crate::support::component::{self, HANDLER};
use crate::support::descriptors::descriptor_limits;
use crate::support::node::eventually;
use crate::support::program::{node_shim, without_cache};
use crate::support::wire::{Wire, get, once};

pub(crate) fn start(wasm: &[u8], flags: &[&str]) -> (Child, SocketAddr) {
    start_as(node_shim(), wasm, flags)
}

pub(crate) fn start_as(command: Command, wasm: &[u8], flags: &[&str]) -> (Child, SocketAddr) {
    start_logging(command, Stdio::null(), wasm, flags)
}

/// Starts the program, whose standard output has the log of the guest.
pub(crate) fn start_logging(
    mut command: Command,
    log: Stdio,
    wasm: &[u8],
    flags: &[&str],
) -> (Child, SocketAddr) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(wasm).unwrap();
    let mut child = command
        .args(["serve", "--addr", "127.0.0.1:0", "--cpu", "5000"])
        .args(flags)
        .arg(file.path())
        .stderr(Stdio::piped())
        .stdout(log)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .strip_prefix("Serving on http://")
        .expect(&line)
        .parse()
        .unwrap();
    (child, address)
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn serve_runs_until_interrupted_and_exits_with_success() {
    let (mut child, address) = start(&guests::ANSWER, &[]);
    assert_eq!(get(address, "/").text(), "hello\n");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Returns the number of threads of a program whose names start with `prefix`.
fn threads(child: &Child, prefix: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
    // a thread may end meanwhile
    names
        .flatten()
        .filter(|name| name.starts_with(prefix))
        .count()
}

#[test]
fn serve_has_as_many_threads_as_it_is_asked_to() {
    let (mut child, address) = start(&guests::ANSWER, &["--threads", "3"]);
    for _ in 0..6 {
        assert_eq!(get(address, "/").text(), "hello\n");
    }
    assert_eq!(
        (threads(&child, "data-"), threads(&child, "accept")),
        (3, 1)
    );
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn serve_reuses_instances_when_it_is_asked_to() {
    let flags = ["--reuse-requests", "2", "--reuse-idle", "60000"];
    let (mut child, address) = start(&crate::reuse::counting(""), &flags);
    assert_eq!(get(address, "/").text(), "1");
    // an instance that has not returned when its response arrives is not idle yet
    eventually("a used instance responds", || {
        get(address, "/").text() == "2"
    });
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (mut child, address) = start(&crate::reuse::counting(""), &[]);
    for _ in 0..5 {
        assert_eq!(get(address, "/").text(), "1");
    }
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn serve_drains_requests_before_it_exits() {
    let flags = ["--timeout", "1500", "--memory", "32"];
    let (mut child, address) = start(&guests::SLEEP_IN_BODY, &flags);
    let mut running = Wire::connect(address);
    running.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(running.line().as_deref(), Some("HTTP/1.1 200 OK"));
    interrupt(&child);
    // the guest is stopped by its own limit and not by the drain
    running.read_to_end();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The first process of a container gets no signal that it does not handle, and its compiler process must not stay.
#[test]
fn serve_ends_with_success_when_it_is_interrupted_while_it_compiles() {
    let module = format!("(component (core module {}))", "(func)".repeat(90_000));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let slow = component::with_handler(&wat::parse_str(module).unwrap());
    file.write_all(&slow).unwrap();
    let mut child = node_shim()
        .args(["serve", "--addr", "127.0.0.1:0"])
        .arg(file.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = child.id();
    let children = || {
        let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        list.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    eventually("the compiler process runs", || !children().is_empty());
    let compiler = children().remove(0);
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // a zombie has no memory mappings
    eventually("the compiler process has ended", || {
        std::fs::read(format!("/proc/{compiler}/maps")).map_or(true, |maps| maps.is_empty())
    });
}

/// HH-17: load balancers see that `serve` drains before it stops accepting connections.
#[test]
fn serve_fails_its_readiness_probe_before_it_stops() {
    const PROBE: &str = "GET /.well-known/selvage/ready HTTP/1.0\r\n\r\n";
    let flags = ["--drain-propagation", "3600000"];
    let (mut child, address) = start(&guests::ANSWER, &flags);
    assert_eq!(once(address, PROBE).status, 200);
    interrupt(&child);
    eventually("the probe fails", || once(address, PROBE).status == 503);
    assert_eq!(once(address, PROBE).status_and_error(), (503, "not_ready"));
    let last = get(address, "/");
    assert_eq!(
        (last.status, last.header("connection")),
        (200, Some("close"))
    );
    // a second signal ends it
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn serve_uses_as_many_descriptors_as_it_may() {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -S -n 256 && exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_node-shim"));
    let (mut child, address) = start_as(without_cache(shell), &guests::ANSWER, &[]);
    assert_eq!(get(address, "/").status, 200);
    let [soft, hard] = descriptor_limits(&child);
    assert_ne!(soft, "256");
    assert_eq!(soft, hard);
    interrupt(&child);
    assert!(child.wait().unwrap().success());
}

/// Returns the error message of `serve` for a file that it cannot serve.
fn refusal(bytes: &[u8], flags: &[&str]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let output = node_shim()
        .args(["serve", "--addr", "127.0.0.1:0"])
        .args(flags)
        .arg(file.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// HG-10: a text file is rejected with one sentence.
#[test]
fn serve_rejects_files_that_are_not_components() {
    let message = refusal(b"(component)", &[]);
    assert!(
        message.contains("is not a WebAssembly component in binary form"),
        "{message}"
    );
}

/// HG-10: a core module, which `cargo build` writes for older targets, is named as such with the way to mend it.
#[test]
fn serve_names_the_way_from_a_core_module_to_a_component() {
    let message = refusal(b"\0asm\x01\0\0\0", &[]);
    assert!(
        message
            .contains("is a core module, not a component: build it for the target wasm32-wasip2"),
        "{message}"
    );
}

/// HG-4: tables count before traffic too, and the message contains both numbers.
#[test]
fn serve_rejects_components_that_start_with_more_memory_than_allowed() {
    let message = refusal(&guests::ANSWER, &["--memory", "0"]);
    assert!(message.contains("cannot serve"), "{message}");
    let numbers = message.split_once("starts with ").unwrap().1;
    let (needs, limit) = numbers
        .split_once(" bytes of memories and tables, but limits.memory is ")
        .unwrap();
    let needs: u64 = needs.parse().unwrap();
    assert!(needs > 256 << 10, "{message}");
    assert_eq!(limit.trim_end(), "0 bytes");
}

/// HG-9, HG-11, HG-12: invalid bytes, a disabled feature, no handler.
#[test]
fn serve_reports_compiler_errors_in_one_line() {
    let memory64 = wat::parse_str("(component (core module (memory i64 1)))").unwrap();
    for (bytes, reason) in [
        (b"\0asm\x0d\0\x01\0\x07\xff".to_vec(), "(CompileFailed)"),
        (component::with_handler(&memory64), "(UnsupportedFeature)"),
        (
            wat::parse_str("(component)").unwrap(),
            "lacks the export wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3 (WorldMismatch)",
        ),
    ] {
        let message = refusal(&bytes, &[]);
        assert!(
            message.contains("cannot serve") && message.trim_end().ends_with(reason),
            "{message}"
        );
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    }
}

/// HG-12: the module would be refused by the compiler for another reason, so it did not run. The message lists all
/// imports.
#[test]
fn hg_12_serve_refuses_unknown_imports_before_it_compiles() {
    let imports = (0..40)
        .map(|n| format!("(import \"acme:store/part{n}@1.0.0\" (instance (export \"f\" (func))))"));
    let imports: String = imports.collect();
    let text = format!("(component {imports} {HANDLER} (core module (memory i64 1)))");
    let message = refusal(&wat::parse_str(text).unwrap(), &[]);
    assert!(
        message
            .trim_end()
            .ends_with("which no node offers (WorldMismatch)"),
        "{message}"
    );
    for n in 0..40 {
        assert!(
            message.contains(&format!("acme:store/part{n}@1.0.0,")),
            "{message}"
        );
    }
}
