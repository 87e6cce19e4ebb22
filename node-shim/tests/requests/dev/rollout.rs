//! A new version proves itself on real requests before it replaces the running one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::program::{Dev, Project, get_from};
use super::{answering, one};
use crate::support::component::guest;

/// Steps that some hundred requests end, so that a test takes seconds. What is tolerated is far below what it breaks.
const POLICY: &str = "  rollout:
    canary:
      steps:
        - { weight: 20%, minDuration: 0s }
        - { weight: 50%, minDuration: 0s }
    bake: { duration: 0s }
    analysis:
      falsePromotions: 20%
      harmBudget: 20%
      errors: { passIncrease: 30% }
      latency: { maxIncrease: 100%, passIncrease: 100% }
";

/// Answers 500.
fn failing() -> Vec<u8> {
    guest(
        "(data (i32.const 4096) \"broken\")",
        "(call $answer (local.get $out) (i32.const 500) (i32.const 4096) (i32.const 6))",
    )
}

/// Sends requests until `end` returns. Returns its result and the distinct bodies of the answers.
fn under_load<T>(address: SocketAddr, end: impl FnOnce() -> T) -> (T, BTreeSet<String>) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (done, seen) = (AtomicBool::new(false), Mutex::new(BTreeSet::new()));
    let result = thread::scope(|scope| {
        let stop = Stop(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let reply = get_from(address, "localhost", "/");
                    seen.lock().unwrap().insert(reply.text());
                }
            });
        }
        let result = end();
        drop(stop);
        result
    });
    (result, seen.into_inner().unwrap())
}

fn bodies(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_good_version_gets_a_growing_share_and_is_promoted() {
    let project = Project::new(&one(POLICY), &[("c.wasm", &answering("old"))]);
    let (mut dev, address) = Dev::serving(&project, &["--rollout"]);
    assert_eq!(get_from(address, "localhost", "/").text(), "old");
    project.write("c.wasm", &answering("new"));
    let started = dev.line("RolloutStarted: ");
    assert!(
        started.starts_with("RolloutStarted: v2 is to replace v1: 20 %, 50 %, then "),
        "{started}"
    );
    dev.line("StepReached: v2 is at 20 % (step 1 of 2");
    let ((), seen) = under_load(address, || {
        let progress = dev.line("Stepping: v2 at 20 %: ");
        assert!(progress.contains(" requests, errors "), "{progress}");
        assert!(progress.contains("Evidence against it "), "{progress}");
        assert!(progress.ends_with("limit 100 to 1."), "{progress}");
        dev.line("StepReached: v2 is at 50 % (step 2 of 2");
        dev.line("StepReached: v2 bakes at ");
        dev.line("Promoted: v2");
    });
    assert_eq!(seen, bodies(&["new", "old"]));
    for _ in 0..20 {
        assert_eq!(get_from(address, "localhost", "/").text(), "new");
    }
    assert!(dev.interrupt().success());
}

#[test]
fn a_failing_version_is_rolled_back_and_the_next_one_tried() {
    let project = Project::new(&one(POLICY), &[("c.wasm", &answering("old"))]);
    let (mut dev, address) = Dev::serving(&project, &["--rollout"]);
    project.write("c.wasm", &failing());
    dev.line("StepReached: v2 is at 20 %");
    let (line, seen) = under_load(address, || dev.line("RolledBack: "));
    assert!(
        line.starts_with("RolledBack: v2: rolled back from 20 % after "),
        "{line}"
    );
    assert!(line.contains("(ErrorsWorse)"), "{line}");
    assert!(
        line.contains("failed, 0 of ") && line.contains("limit 100 to 1"),
        "{line}"
    );
    assert!(!line.contains("kubectl"), "{line}");
    assert_eq!(seen, bodies(&["broken", "old"]));
    for _ in 0..20 {
        assert_eq!(get_from(address, "localhost", "/").text(), "old");
    }
    // the code that is served again starts nothing, and other code starts at the first step
    project.write("c.wasm", &answering("old"));
    dev.line("Withdrawn: ");
    project.write("c.wasm", &answering("fixed"));
    dev.line("v4 is at 20 % (step 1 of 2");
}

#[test]
fn another_version_supersedes_the_candidate_while_it_waits_for_requests() {
    let project = Project::new(&one(POLICY), &[("c.wasm", &answering("old"))]);
    let (mut dev, address) = Dev::serving(&project, &["--rollout"]);
    project.write("c.wasm", &answering("second"));
    dev.line("StepReached: v2 is at 20 %");
    let waits = dev.line("Stepping: v2 at 20 %: waiting for requests: about ");
    assert!(waits.contains(" to the candidate, which are "), "{waits}");
    project.write("c.wasm", &answering("third"));
    dev.line("v3 replaces v2 as the desired revision; v2 goes from 20 % to 0 %");
    dev.line("StepReached: v3 is at 20 %");
    let (_, seen) = under_load(address, || dev.line("Promoted: v3"));
    assert_eq!(seen, bodies(&["old", "third"]));
    // a file that no node could run changes nothing
    project.write("c.wasm", b"text");
    dev.line("What was served before continues to serve");
    assert_eq!(get_from(address, "localhost", "/").text(), "third");
}

#[test]
fn the_rollout_of_one_function_leaves_the_others_alone() {
    let other = one("")
        .replace("name: one", "name: two")
        .replace("one.example", "two.example")
        .replace("c.wasm", "d.wasm");
    let manifest = format!("{}---\n{other}", one(""));
    let files: [(&str, &[u8]); 2] = [("c.wasm", &answering("one")), ("d.wasm", &answering("two"))];
    let project = Project::new(&manifest, &files);
    let (mut dev, address) = Dev::serving(&project, &["--rollout"]);
    project.write("d.wasm", &answering("newer"));
    // without a policy: a small canary
    let started = dev.line("RolloutStarted: ");
    assert!(
        started.starts_with("two: RolloutStarted: v2 is to replace v1: 10 %, 50 %, then "),
        "{started}"
    );
    dev.line("two: StepReached: v2 is at 10 %");
    for _ in 0..20 {
        assert_eq!(get_from(address, "one.example", "/").text(), "one");
    }
    let answers = bodies(&["newer", "two"]);
    for _ in 0..20 {
        assert!(answers.contains(&get_from(address, "two.example", "/").text()));
    }
}
