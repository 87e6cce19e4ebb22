//! What components of WASI 0.3 may call: the log, configuration, stores, and what the host keeps for them.

use super::ANSWER;
use crate::support::node::{Node, Setup, eventually};
use crate::support::service::service;
use crate::support::wire::get;

const PAIR: fn(&str, &str) -> (String, String) = |name, value| (name.to_owned(), value.to_owned());

#[test]
fn a_service_reads_variables_and_configuration() {
    // the value of the first variable, and of the entry `size`
    let items = r#"
        (import "wasi:cli/environment@0.3.0" "get-environment" (func $environment (param i32)))
        (import "wasi:config/store@0.2.0-rc.1" "get" (func $get (param i32 i32 i32)))
        (data (i32.const 4096) "size")"#;
    let body = "
        (call $environment (i32.const 64))
        (local.set $i (i32.load (i32.const 64)))
        (call $get (i32.const 4096) (i32.const 4) (i32.const 128))
        (call $respond (call $fields) (i32.const 200))
        (drop (call $write (i32.load offset=8 (local.get $i)) (i32.load offset=12 (local.get $i))))
        (drop (call $write (i32.load (i32.const 136)) (i32.load (i32.const 140))))
        (call $end (i32.const 0))";
    let setup = Setup {
        env: vec![PAIR("COLOR", "green ")],
        config: vec![PAIR("size", "XL")],
        ..Setup::default()
    };
    let node = setup.start(&service(items, body));
    assert_eq!(get(node.address(), "/").text(), "green XL");
}

#[test]
fn what_a_service_prints_is_in_the_log() {
    let items = r#"
        (import "wasi:cli/stdout@0.3.0" "write-via-stream" (func $print (param i32) (result i32)))
        (import "wasi:cli/stdout@0.3.0" "[stream-new-0]write-via-stream" (func $out-new (result i64)))
        (import "wasi:cli/stdout@0.3.0" "[async-lower][stream-write-0]write-via-stream" (func $out-write-start (param i32 i32 i32) (result i32)))
        (import "wasi:cli/stdout@0.3.0" "[stream-drop-writable-0]write-via-stream" (func $out-drop (param i32)))
        (data (i32.const 4096) "hello\nfrom 0.3")"#;
    let body = format!(
        "(local $out i64)
         (local.set $out (call $out-new))
         (drop (call $print (i32.wrap_i64 (local.get $out))))
         (local.set $i (i32.wrap_i64 (i64.shr_u (local.get $out) (i64.const 32))))
         (drop (call $await (local.get $i) (call $out-write-start (local.get $i) (i32.const 4096) (i32.const 14))))
         (call $out-drop (local.get $i))
         {ANSWER}"
    );
    let node = Node::serve(&service(items, &body));
    assert_eq!(get(node.address(), "/").text(), "hello\n");
    eventually("both lines are written", || node.log().len() == 2);
    let lines = node.log();
    let lines: Vec<_> = lines
        .iter()
        .map(|line| (line["stream"].as_str(), line["msg"].as_str()))
        .collect();
    let stdout = Some("stdout");
    assert_eq!(lines, [(stdout, Some("hello")), (stdout, Some("from 0.3"))]);
}

#[test]
fn a_service_uses_a_key_value_store() {
    // counts its requests in the length of an entry
    let items = r#"
        (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
        (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
        (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
        (data (i32.const 4096) "hits") (data (i32.const 4104) "xxxxxxxx")"#;
    let body = "
        (call $open (i32.const 4096) (i32.const 4) (i32.const 64))
        (if (i32.load8_u (i32.const 64)) (then unreachable))
        (local.set $i (i32.load (i32.const 68)))
        (call $get (local.get $i) (i32.const 4096) (i32.const 4) (i32.const 128))
        (if (i32.load8_u (i32.const 128)) (then unreachable))
        (if (i32.load8_u (i32.const 132)) (then (local.set $n (i32.load (i32.const 140)))))
        (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (call $set (local.get $i) (i32.const 4096) (i32.const 4) (i32.const 4104) (local.get $n) (i32.const 192))
        (call $answer (i32.const 200) (i32.const 4104) (local.get $n))";
    let setup = Setup {
        key_value: vec!["hits"],
        ..Setup::default()
    };
    let node = setup.start(&service(items, body));
    for expected in ["x", "xx", "xxx"] {
        assert_eq!(get(node.address(), "/").text(), expected);
    }
}

/// HG-29: fields count towards the memory limit.
#[test]
fn hg_29_what_the_host_keeps_for_a_service_counts_as_its_memory() {
    let items = r#"
        (import "wasi:http/types@0.3.0" "[method]fields.clone" (func $clone (param i32) (result i32)))"#;
    let append = "(local.set $h (call $fields))
        (call $header (local.get $h) (i32.const 8192) (i32.const 1) (i32.const 8192) (i32.const 50000))";
    let setup = "(memory.fill (i32.const 8192) (i32.const 97) (i32.const 60000))";
    for body in [
        format!("{setup} (loop $on {append} (br $on))"),
        format!("{setup} {append} (loop $on (drop (call $clone (local.get $h))) (br $on))"),
    ] {
        let node = Setup::limits(|l| l.memory = 2 << 20).start(&service(items, &body));
        let reply = get(node.address(), "/");
        assert_eq!(reply.status_and_error(), (500, "out_of_memory"));
        node.outcomes(1);
        assert_eq!(node.failures(), ["memory 1"]);
        node.is_quiet();
    }
}
