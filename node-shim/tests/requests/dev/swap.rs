//! Builds, and replacement of a running function.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::program::{Dev, Project, get_from};
use super::{annotated, answering, one};
use crate::guests;
use crate::support::node::eventually;
use crate::support::wire::Wire;

const SWAPS: usize = 20;

/// Ends the clients, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns a project whose build copies `source` to `c.wasm`.
fn copying(source: &[u8], build: &str) -> Project {
    let annotations = format!("selvage.dev/component: c.wasm\n    selvage.dev/build: '{build}'");
    Project::new(&annotated(&annotations, ""), &[("source", source)])
}

#[test]
fn no_request_fails_while_versions_replace_each_other() {
    let project = copying(&answering("v0"), "cp source c.wasm");
    let (mut dev, address) = Dev::serving(&project, &[]);
    let (done, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ask_on = || {
        let mut kept = Wire::connect(address);
        while !done.load(Ordering::Relaxed) {
            let fresh = get_from(address, "localhost", "/");
            kept.send("GET / HTTP/1.1\r\nhost: one.example\r\n\r\n");
            let again = kept.read().expect("the connection stays open");
            if again.header("connection") == Some("close") {
                kept = Wire::connect(address);
            }
            for reply in [fresh, again] {
                assert_eq!(reply.status, 200);
                assert!(reply.whole && reply.text().starts_with('v'));
                requests.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        let stop = Stop(&done);
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(ask_on)).collect();
        for swap in 1..=SWAPS {
            project.write("source", &answering(&format!("v{swap}")));
            dev.line(&format!("Serving version {} ", swap + 1));
            let reply = get_from(address, "localhost", "/");
            assert_eq!(reply.text(), format!("v{swap}"));
        }
        drop(stop);
        for client in clients {
            client.join().unwrap();
        }
    });
    assert!(requests.into_inner() > SWAPS);
    assert!(dev.interrupt().success());
}

/// A request during the first build had the answer of a node without functions.
#[test]
fn connections_are_refused_until_the_first_version_is_served() {
    let outside = tempfile::tempdir().unwrap();
    let (pipe, end) = (outside.path().join("pipe"), outside.path().join("end"));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let (wait, end) = (pipe.display(), end.display());
    let build = format!("test -e {end} || cat {wait}; touch {end}; cp source c.wasm");
    let project = copying(&answering("built"), &build);
    // an address of its own, whose ports no other test uses
    let free = TcpListener::bind("127.0.0.91:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut dev = Dev::start_on(&project, address);
    // returns when the build reads
    let builds = File::options().write(true).open(&pipe).unwrap();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    drop(builds);
    dev.line("Serving on http://");
    assert_eq!(get_from(address, "localhost", "/").text(), "built");
    assert!(dev.interrupt().success());
}

#[test]
fn a_request_that_has_begun_is_finished_by_the_version_that_began_it() {
    let project = copying(&guests::SINK, "cp source c.wasm");
    let (mut dev, address) = Dev::serving(&project, &[]);
    let mut slow = Wire::connect(address);
    slow.send(
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n",
    );
    // the guest asks for the body, so it runs
    assert_eq!(slow.line().as_deref(), Some("HTTP/1.1 100 Continue"));
    assert_eq!(slow.line().as_deref(), Some(""));
    project.write("source", &answering("new"));
    dev.line("Serving version 2 ");
    assert_eq!(get_from(address, "localhost", "/").text(), "new");
    slow.send("body");
    assert_eq!(slow.read().unwrap().text(), "done");
}

#[test]
fn a_failing_build_leaves_the_last_version() {
    let project = copying(&answering("good"), "sh build.sh");
    project.write("build.sh", b"cp source c.wasm");
    let (mut dev, address) = Dev::serving(&project, &[]);
    project.write("build.sh", b"echo it broke >&2; exit 3");
    dev.lines(&[
        "it broke",
        "the build failed (exit status 3): sh build.sh",
        "Version 1 continues to serve",
    ]);
    assert_eq!(get_from(address, "localhost", "/").text(), "good");
    project.write("source", &answering("better"));
    project.write("build.sh", b"cp source c.wasm");
    dev.line("Serving version 2 ");
    assert_eq!(get_from(address, "localhost", "/").text(), "better");
}

/// Otherwise a build that writes between the sources would never come to rest.
#[test]
fn output_of_a_build_does_not_start_another_build() {
    let build = "date +%N > log; echo >> count; cp source c.wasm";
    let project = copying(&answering("a"), build);
    let (mut dev, _) = Dev::serving(&project, &[]);
    let builds = || std::fs::read(project.path().join("count")).unwrap().len();
    // the second one shows which files each build writes
    assert_eq!(builds(), 2);
    project.write("source", &answering("b"));
    dev.line("Serving version 2 ");
    project.write("f.yaml", b"no mapping");
    dev.line("Version 2 continues to serve");
    assert_eq!(builds(), 3);
}

#[test]
fn a_manifest_that_becomes_wrong_leaves_the_last_version() {
    let project = Project::new(&one(""), &[("c.wasm", &answering("a"))]);
    let (mut dev, address) = Dev::serving(&project, &[]);
    project.write(
        "f.yaml",
        one("  limits: { cpu: 5s, memory: 64MB }\n").as_bytes(),
    );
    let line = dev.line("f.yaml:10:");
    assert!(
        line.ends_with("spec.limits.memory: \"64MB\": write a size such as 64Mi, 1.5Gi or 500k"),
        "{line}"
    );
    dev.line("Version 1 continues to serve");
    assert_eq!(get_from(address, "one.example", "/").status, 200);
    // a change of routes needs no other revision
    let moved = one("").replace("one.example", "two.example");
    project.write("f.yaml", moved.as_bytes());
    dev.line("Serving version 2 ");
    assert_eq!(get_from(address, "one.example", "/").status, 404);
    assert_eq!(get_from(address, "two.example", "/").text(), "a");
    project.write("c.wasm", b"\0asm\x0d\0\x01\0\x07\xff");
    dev.line("cannot serve c.wasm");
    dev.line("Version 2 continues to serve");
    assert_eq!(get_from(address, "localhost", "/").text(), "a");
}

#[test]
fn an_interrupt_ends_the_build_and_what_it_started() {
    let project = copying(b"", "echo $$ > .pid; sleep 1000; true");
    let mut dev = Dev::start(&project, &[]);
    let pid = || std::fs::read_to_string(project.path().join(".pid")).unwrap_or_default();
    eventually("the build runs", || pid().ends_with('\n'));
    let shell = pid().trim().to_owned();
    let list = format!("/proc/{shell}/task/{shell}/children");
    let children = || std::fs::read_to_string(&list).unwrap();
    eventually("the build has started another process", || {
        !children().trim().is_empty()
    });
    let sleep = children().trim().to_owned();
    assert_ne!(shell, dev.id().to_string());
    assert!(dev.interrupt().success());
    for process in [shell, sleep] {
        // a zombie has no memory mappings
        eventually("the processes of the build have ended", || {
            std::fs::read(format!("/proc/{process}/maps")).map_or(true, |maps| maps.is_empty())
        });
    }
}
