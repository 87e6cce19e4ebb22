//! Tests of `wasi:config/store`, which exposes a revision's `config`.

use crate::support::component;
use crate::support::node::{Node, Setup};
use crate::support::wire::get;

/// Responds with 200 and the value of `key`, or 404 when there is none.
pub(crate) fn reader(interface: &str, key: &str) -> Vec<u8> {
    component::guest(
        &format!(
            r#"(import "{interface}" "get" (func $get (param i32 i32 i32)))
               (data (i32.const 4096) "{key}")"#
        ),
        &format!(
            "(call $get (i32.const 4096) (i32.const {}) (i32.const 64))
             (if (i32.load8_u (i32.const 64)) (then (unreachable)))
             (if (i32.load8_u (i32.const 68))
               (then (call $answer (local.get $out) (i32.const 200) (i32.load (i32.const 72)) (i32.load (i32.const 76))))
               (else (call $answer (local.get $out) (i32.const 404) (i32.const 4096) (i32.const 0))))",
            key.len()
        ),
    )
}

/// Responds with status 200 + the number of entries and the value of the last entry.
fn lister(interface: &str) -> Vec<u8> {
    component::guest(
        &format!(r#"(import "{interface}" "get-all" (func $all (param i32)))"#),
        "(call $all (i32.const 64))
         (if (i32.load8_u (i32.const 64)) (then (unreachable)))
         (local.set $n (i32.load (i32.const 72)))
         (local.set $i (i32.add (i32.load (i32.const 68)) (i32.mul (i32.sub (local.get $n) (i32.const 1)) (i32.const 16))))
         (call $answer (local.get $out) (i32.add (i32.const 200) (local.get $n))
           (i32.load offset=8 (local.get $i)) (i32.load offset=12 (local.get $i)))",
    )
}

fn serve(wasm: &[u8]) -> Node {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let setup = Setup {
        config: vec![pair("color", "green"), pair("size", "XL \u{2713}")],
        ..Setup::default()
    };
    setup.start(wasm)
}

#[test]
fn a_guest_reads_its_configuration_by_name() {
    for interface in node_api::world::CONFIG_STORES {
        let reply = get(serve(&reader(interface, "size")).address(), "/");
        assert_eq!((reply.status, reply.text().as_str()), (200, "XL \u{2713}"));
        let missing = get(serve(&reader(interface, "colour")).address(), "/");
        assert_eq!((missing.status, missing.text().as_str()), (404, ""));
        let last = get(serve(&lister(interface)).address(), "/");
        assert_eq!((last.status, last.text().as_str()), (202, "XL \u{2713}"));
    }
}
