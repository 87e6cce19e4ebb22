//! Guests that make the host hold memory for them.

use node_shim_core::table::Limits;

use crate::program;
use crate::support::component::guest;
use crate::support::node::Setup;
use crate::support::wire::get;

const IMPORTS: &str = r#"
(import "wasi:http/types@0.2.12" "[static]fields.from-list" (func $from-list (param i32 i32 i32)))
(import "wasi:http/types@0.2.12" "[method]fields.set" (func $fields-set (param i32 i32 i32 i32 i32 i32)))
(import "wasi:http/types@0.2.12" "[method]fields.clone" (func $fields-clone (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-method" (func $set-method (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.set-path-with-query" (func $set-path (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-request.body" (func $request-body (param i32 i32)))
(import "wasi:io/poll@0.2.12" "poll" (func $poll (param i32 i32 i32)))
"#;

/// Memory: a list of one field at 8192, whose value is also a list of one value at 8200; text of one letter from 65536,
/// with a slash before it.
const SETUP: &str = "
    (i32.store (i32.const 8192) (i32.const 65536))
    (i32.store (i32.const 8196) (i32.const 1))
    (i32.store (i32.const 8200) (i32.const 65536))
    (i32.store (i32.const 8204) (i32.const 60000))
    (i32.store8 (i32.const 65535) (i32.const 47))
    (memory.fill (i32.const 65536) (i32.const 97) (i32.const 60000))";

/// Returns a guest that does `step` in an endless loop.
fn endless(step: &str) -> Vec<u8> {
    guest(IMPORTS, &format!("{SETUP} (loop $on {step} (br $on))"))
}

fn append(fields: &str, length: u32) -> String {
    format!(
        "(drop (call $header {fields} (i32.const 65536) (i32.const 1) (i32.const 65536) (i32.const {length})))"
    )
}

/// HG-29: fields, methods, URLs and queues of bodies count towards the memory limit, however the guest creates them.
#[test]
fn hg_29_what_the_host_keeps_for_a_guest_counts_as_its_memory() {
    let new_request = "(call $request (call $fields))";
    let cloned = format!(
        "(local.set $i (call $fields)) {}
         (loop $copies (local.set $b (call $fields-clone (local.get $i))) {} (br $copies))",
        append("(local.get $i)", 60_000),
        append("(local.get $b)", 1),
    );
    let steps = [
        append("(call $fields)", 60_000),
        "(call $from-list (i32.const 8192) (i32.const 1) (i32.const 16))".to_owned(),
        "(call $fields-set (call $fields) (i32.const 65536) (i32.const 1) (i32.const 8200) (i32.const 1) (i32.const 16))"
            .to_owned(),
        cloned,
        format!("(drop (call $set-method {new_request} (i32.const 9) (i32.const 65536) (i32.const 60000)))"),
        format!("(drop (call $set-authority {new_request} (i32.const 1) (i32.const 65536) (i32.const 60000)))"),
        format!("(drop (call $set-path {new_request} (i32.const 1) (i32.const 65535) (i32.const 60000)))"),
        format!("(call $request-body {new_request} (i32.const 16))"),
        "(drop (call $body (call $response (call $fields))))".to_owned(),
    ];
    for step in steps {
        let small = |limits: &mut Limits| limits.memory = 16 << 20;
        let node = Setup::limits(small).start(&endless(&step));
        let reply = get(node.address(), "/");
        assert_eq!(reply.status_and_error(), (500, "out_of_memory"), "{step}");
        assert_eq!(node.outcomes(1), ["oom 5xx 1"]);
        assert_eq!(node.failures(), ["memory 1"], "{step}");
        node.is_quiet();
    }
}

/// HG-29: a guest that waits does not make the host hold a long list: each resource in it counts as a handle.
#[test]
fn hg_29_a_guest_cannot_poll_more_resources_than_can_exist() {
    for (count, failures) in [(3_000, vec![]), (4_001, vec!["host_limit 1"])] {
        let poll = format!(
            "(local.set $i (call $after (i64.const 0)))
             (loop $more
               (i32.store (i32.add (i32.const 65536) (local.get $n)) (local.get $i))
               (local.set $n (i32.add (local.get $n) (i32.const 4)))
               (br_if $more (i32.lt_u (local.get $n) (i32.const {bytes}))))
             (global.set $heap (i32.const 131072))
             (call $poll (i32.const 65536) (i32.const {count}) (i32.const 16))
             (call $answer (local.get $out) (i32.const 200) (i32.const 8192) (i32.const 4))",
            bytes = 4 * count
        );
        let node = Setup::default().start(&guest(IMPORTS, &poll));
        let status = get(node.address(), "/").status;
        assert_eq!(status, if failures.is_empty() { 200 } else { 500 });
        node.outcomes(1);
        assert_eq!(node.failures(), failures, "{count}");
        node.is_quiet();
    }
}

/// HG-29: the process holds no more than what counts. Empty values cost the most in relation to their length.
#[test]
fn hg_29_the_memory_of_the_process_stays_bounded() {
    let names = "
        (i32.store16 (i32.const 65536) (i32.add (i32.const 0x6161) (i32.rem_u (local.get $n) (i32.const 20))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))";
    let step = format!(
        "(local.set $i (call $fields))
         (local.set $s (i32.const 800))
         (loop $fill {names} {} (local.set $s (i32.sub (local.get $s) (i32.const 1))) (br_if $fill (local.get $s)))",
        append("(local.get $i)", 0),
    );
    let (mut child, address) = program::start(&endless(&step), &["--memory", "16"]);
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() >> 10
    };
    let before = peak();
    let reply = get(address, "/");
    assert_eq!(reply.status_and_error(), (500, "out_of_memory"));
    let more = peak() - before;
    assert!(more < 40, "{more} MiB for a limit of 16 MiB");
    child.kill().unwrap();
    child.wait().unwrap();
}
