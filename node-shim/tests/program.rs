//! `node-shim serve` as a program.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::guests;
use crate::support::wire::{Wire, get};

pub(crate) fn start(wasm: &[u8], flags: &[&str]) -> (Child, SocketAddr) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(wasm).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_node-shim"))
        .args(["serve", "--addr", "127.0.0.1:0", "--cpu", "5000"])
        .args(flags)
        .arg(file.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
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
fn serve_answers_until_interrupted_and_ends_well() {
    let (mut child, address) = start(&guests::ANSWER, &[]);
    assert_eq!(get(address, "/").text(), "hello\n");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn serve_drains_what_runs_before_it_ends() {
    let flags = ["--timeout", "1500", "--memory", "32"];
    let (mut child, address) = start(&guests::SLEEP_IN_BODY, &flags);
    let mut running = Wire::connect(address);
    running.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(running.line().as_deref(), Some("HTTP/1.1 200 OK"));
    interrupt(&child);
    // the guest meets its own limit, not the drain's
    running.read_to_end();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// What `serve` says of a file that it cannot serve.
fn refusal(bytes: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_node-shim"))
        .args(["serve", "--addr", "127.0.0.1:0"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// HG-10: text is refused in one sentence.
#[test]
fn serve_says_in_a_sentence_what_it_cannot_serve() {
    let told = refusal(b"(component)");
    assert!(
        told.contains("is not a WebAssembly component in binary form"),
        "{told}"
    );
}

/// HG-9, HG-11, HG-12: broken bytes, a feature that is off, no handler.
#[test]
fn serve_tells_what_the_compiler_said_in_one_line() {
    let text = "(component (core module (memory i64 1)))";
    for (bytes, reason) in [
        (b"\0asm\x0d\0\x01\0\x07\xff".to_vec(), "(CompileFailed)"),
        (wat::parse_str(text).unwrap(), "(UnsupportedFeature)"),
        (
            wat::parse_str("(component)").unwrap(),
            "lacks the export wasi:http/incoming-handler@0.2",
        ),
    ] {
        let told = refusal(&bytes);
        assert!(
            told.contains("cannot serve") && told.trim_end().ends_with(reason),
            "{told}"
        );
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    }
}
