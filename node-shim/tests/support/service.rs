//! Builds components of WASI 0.3 from WebAssembly text.

use std::sync::LazyLock;

use wit_parser::{Resolve, WorldId};

use super::component::{wasi_http_dir, world_of, wrapped};

const WORLD: &str = "
package selvage:guests;
world guest {
    import wasi:http/types@0.3.0;
    import wasi:http/client@0.3.0;
    include wasi:cli/imports@0.3.0;
    import wasi:config/store@0.2.0-rc.1;
    import wasi:keyvalue/store@0.2.0-draft2;
    export wasi:http/handler@0.3.0;
}
package wasi:config@0.2.0-rc.1 {
    interface store {
        variant error { upstream(string), io(string) }
        get: func(key: string) -> result<option<string>, error>;
        get-all: func() -> result<list<tuple<string, string>>, error>;
    }
}
package wasi:keyvalue@0.2.0-draft2 {
    interface store {
        variant error { no-such-store, access-denied, other(string) }
        record key-response { keys: list<string>, cursor: option<string> }
        open: func(identifier: string) -> result<bucket, error>;
        resource bucket {
            get: func(key: string) -> result<option<list<u8>>, error>;
            set: func(key: string, value: list<u8>) -> result<_, error>;
            delete: func(key: string) -> result<_, error>;
            exists: func(key: string) -> result<bool, error>;
            list-keys: func(cursor: option<string>) -> result<key-response, error>;
        }
    }
}";

static WIT: LazyLock<(Resolve, WorldId)> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    resolve
        .push_dir(wasi_http_dir().join("src/p3/wit"))
        .unwrap();
    world_of(resolve, WORLD)
});

/// Returns a guest whose handler is `body`: WAT instructions that use the local `$req` and the helpers of `PRELUDE`. `items`
/// are further items of the module, imports first.
pub(crate) fn service(items: &str, body: &str) -> Vec<u8> {
    let module = format!(
        "(module {IMPORTS} {items} {PRELUDE}
           (func (export \"[async-lift]wasi:http/handler@0.3.0#handle\") (param $req i32) (result i32)
             (local $h i32) (local $i i32) (local $n i32)
             {body}
             (i32.const 0))
           (func (export \"[callback][async-lift]wasi:http/handler@0.3.0#handle\") (param i32 i32 i32) (result i32)
             unreachable))"
    );
    wrapped(&module, &WIT)
}

const IMPORTS: &str = r#"
(import "wasi:http/types@0.3.0" "[constructor]fields" (func $fields (result i32)))
(import "wasi:http/types@0.3.0" "[method]fields.append" (func $fields-append (param i32 i32 i32 i32 i32 i32)))
(import "wasi:http/types@0.3.0" "[static]response.new" (func $response-new (param i32 i32 i32 i32 i32)))
(import "wasi:http/types@0.3.0" "[method]response.set-status-code" (func $set-status (param i32 i32) (result i32)))
(import "wasi:http/types@0.3.0" "[stream-new-0][static]response.new" (func $body-new (result i64)))
(import "wasi:http/types@0.3.0" "[async-lower][stream-write-0][static]response.new" (func $body-write-start (param i32 i32 i32) (result i32)))
(import "wasi:http/types@0.3.0" "[stream-drop-writable-0][static]response.new" (func $body-drop (param i32)))
(import "wasi:http/types@0.3.0" "[future-new-1][static]response.new" (func $trailers-new (result i64)))
(import "wasi:http/types@0.3.0" "[async-lower][future-write-1][static]response.new" (func $trailers-write-start (param i32 i32) (result i32)))
(import "wasi:http/types@0.3.0" "[future-drop-writable-1][static]response.new" (func $trailers-drop (param i32)))
(import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]response.new" (func $sent-drop (param i32)))
(import "wasi:http/types@0.3.0" "[static]request.consume-body" (func $consume (param i32 i32 i32)))
(import "wasi:http/types@0.3.0" "[future-new-0][static]request.consume-body" (func $consumed-new (result i64)))
(import "wasi:http/types@0.3.0" "[async-lower][stream-read-1][static]request.consume-body" (func $read-start (param i32 i32 i32) (result i32)))
(import "wasi:http/types@0.3.0" "[async-lower][future-read-2][static]request.consume-body" (func $received-start (param i32 i32) (result i32)))
(import "$root" "[waitable-set-new]" (func $set-new (result i32)))
(import "$root" "[waitable-set-wait]" (func $set-wait (param i32 i32) (result i32)))
(import "$root" "[waitable-set-drop]" (func $set-drop (param i32)))
(import "$root" "[waitable-join]" (func $join (param i32 i32)))
(import "wasi:clocks/monotonic-clock@0.3.0" "wait-for" (func $sleep (param i64)))
(import "[export]wasi:http/handler@0.3.0" "[task-return]handle" (func $return (param i32 i32 i32 i64 i32 i32 i32 i32)))
"#;

/// Helper functions. Memory layout: results of host calls at 0–1023, zeros at 2048–4095, constants from 4096, buffer of
/// the request body at 32768, heap from 65536.
const PRELUDE: &str = r#"
(memory (export "memory") 4)
(global $heap (mut i32) (i32.const 65536))
(global $body (mut i32) (i32.const 0))
(global $trailers (mut i32) (i32.const 0))
(global $received-trailers (mut i32) (i32.const 0))
(func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $new i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
  (global.set $heap (i32.add (local.get $at) (local.get $new)))
  (local.get $at))
;; waits for the result of an operation on one end of a stream or future, if it is not there yet
(func $await (param $end i32) (param $result i32) (result i32)
  (local $set i32)
  (if (i32.ne (local.get $result) (i32.const -1)) (then (return (local.get $result))))
  (local.set $set (call $set-new))
  (call $join (local.get $end) (local.get $set))
  (drop (call $set-wait (local.get $set) (i32.const 96)))
  (call $join (local.get $end) (i32.const 0))
  (call $set-drop (local.get $set))
  (i32.load (i32.const 100)))
(func $body-write (param $end i32) (param $at i32) (param $n i32) (result i32)
  (call $await (local.get $end) (call $body-write-start (local.get $end) (local.get $at) (local.get $n))))
(func $trailers-write (param $end i32) (param $at i32) (result i32)
  (call $await (local.get $end) (call $trailers-write-start (local.get $end) (local.get $at))))
(func $read (param $end i32) (param $at i32) (param $n i32) (result i32)
  (call $await (local.get $end) (call $read-start (local.get $end) (local.get $at) (local.get $n))))
(func $received (param $end i32) (param $at i32) (result i32)
  (call $await (local.get $end) (call $received-start (local.get $end) (local.get $at))))
;; returns a response whose body and trailers follow
(func $respond (param $headers i32) (param $status i32)
  (local $b i64) (local $t i64)
  (local.set $b (call $body-new))
  (local.set $t (call $trailers-new))
  (global.set $body (i32.wrap_i64 (i64.shr_u (local.get $b) (i64.const 32))))
  (global.set $trailers (i32.wrap_i64 (i64.shr_u (local.get $t) (i64.const 32))))
  (call $response-new (local.get $headers) (i32.const 1) (i32.wrap_i64 (local.get $b)) (i32.wrap_i64 (local.get $t)) (i32.const 16))
  (call $sent-drop (i32.load (i32.const 20)))
  (drop (call $set-status (i32.load (i32.const 16)) (local.get $status)))
  (call $return (i32.const 0) (i32.load (i32.const 16)) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
;; writes all bytes; returns 0 if the reader has gone
(func $write (param $at i32) (param $n i32) (result i32)
  (local $r i32)
  (block $gone
    (loop $more
      (if (i32.eqz (local.get $n)) (then (return (i32.const 1))))
      (local.set $r (call $body-write (global.get $body) (local.get $at) (local.get $n)))
      (br_if $gone (i32.and (local.get $r) (i32.const 15)))
      (local.set $r (i32.shr_u (local.get $r) (i32.const 4)))
      (local.set $at (i32.add (local.get $at) (local.get $r)))
      (local.set $n (i32.sub (local.get $n) (local.get $r)))
      (br $more)))
  (i32.const 0))
;; ends the body with the trailers whose handle is $fields, or without if it is 0
(func $end (param $fields i32)
  (call $body-drop (global.get $body))
  (i32.store (i32.const 64) (i32.const 0))
  (i32.store (i32.const 72) (i32.ne (local.get $fields) (i32.const 0)))
  (i32.store (i32.const 76) (local.get $fields))
  (drop (call $trailers-write (global.get $trailers) (i32.const 64)))
  (call $trailers-drop (global.get $trailers)))
(func $header (param $f i32) (param $name i32) (param $nlen i32) (param $value i32) (param $vlen i32)
  (call $fields-append (local.get $f) (local.get $name) (local.get $nlen) (local.get $value) (local.get $vlen) (i32.const 16))
  (if (i32.load8_u (i32.const 16)) (then unreachable)))
;; answers $status with $n bytes at $at, whole
(func $answer (param $status i32) (param $at i32) (param $n i32)
  (call $respond (call $fields) (local.get $status))
  (drop (call $write (local.get $at) (local.get $n)))
  (call $end (i32.const 0)))
;; returns the stream of the request body
(func $body-of (param $req i32) (result i32)
  (call $consume (local.get $req) (i32.wrap_i64 (call $consumed-new)) (i32.const 16))
  (global.set $received-trailers (i32.load (i32.const 20)))
  (i32.load (i32.const 16)))
;; returns 0 if the request body was complete
(func $broken (result i32)
  (drop (call $received (global.get $received-trailers) (i32.const 128)))
  (i32.load8_u (i32.const 128)))
"#;
