//! Builds components from WebAssembly text, so that tests need no tools and no binaries.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

pub(crate) const WORLD: &str = "
package selvage:guests;
world guest {
    import wasi:http/types@0.2.12;
    import wasi:http/outgoing-handler@0.2.12;
    include wasi:cli/imports@0.2.12;
    import wasi:config/store@0.2.0-rc.1;
    import wasi:config/store@0.2.0-draft;
    import wasi:keyvalue/store@0.2.0-draft;
    import wasi:keyvalue/atomics@0.2.0-draft;
    import wasi:keyvalue/batch@0.2.0-draft;
    import wasi:keyvalue/store@0.2.0-draft2;
    import wasi:keyvalue/atomics@0.2.0-draft2;
    import wasi:keyvalue/batch@0.2.0-draft2;
    export wasi:http/incoming-handler@0.2.12;
}
package wasi:config@0.2.0-rc.1 {
    interface store {
        variant error { upstream(string), io(string) }
        get: func(key: string) -> result<option<string>, error>;
        get-all: func() -> result<list<tuple<string, string>>, error>;
    }
}
package wasi:config@0.2.0-draft {
    interface store {
        variant error { upstream(string), io(string) }
        get: func(key: string) -> result<option<string>, error>;
        get-all: func() -> result<list<tuple<string, string>>, error>;
    }
}
package wasi:keyvalue@0.2.0-draft {
    interface store {
        variant error { no-such-store, access-denied, other(string) }
        record key-response { keys: list<string>, cursor: option<u64> }
        open: func(identifier: string) -> result<bucket, error>;
        resource bucket {
            get: func(key: string) -> result<option<list<u8>>, error>;
            set: func(key: string, value: list<u8>) -> result<_, error>;
            delete: func(key: string) -> result<_, error>;
            exists: func(key: string) -> result<bool, error>;
            list-keys: func(cursor: option<u64>) -> result<key-response, error>;
        }
    }
    interface atomics {
        use store.{bucket, error};
        increment: func(bucket: borrow<bucket>, key: string, delta: u64) -> result<u64, error>;
    }
    interface batch {
        use store.{bucket, error};
        get-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
        set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>) -> result<_, error>;
        delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
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
    interface atomics {
        use store.{bucket, error};
        variant cas-error { store-error(error), cas-failed(cas) }
        resource cas {
            new: static func(bucket: borrow<bucket>, key: string) -> result<cas, error>;
            current: func() -> result<option<list<u8>>, error>;
        }
        increment: func(bucket: borrow<bucket>, key: string, delta: s64) -> result<s64, error>;
        swap: func(cas: cas, value: list<u8>) -> result<_, cas-error>;
    }
    interface batch {
        use store.{bucket, error};
        get-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<list<option<tuple<string, list<u8>>>>, error>;
        set-many: func(bucket: borrow<bucket>, key-values: list<tuple<string, list<u8>>>) -> result<_, error>;
        delete-many: func(bucket: borrow<bucket>, keys: list<string>) -> result<_, error>;
    }
}";

pub(crate) static WIT: LazyLock<(Resolve, WorldId)> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    resolve.push_dir(wit_dir()).unwrap();
    world_of(resolve, WORLD)
});

/// Adds a package with the world `guest` to the packages of WASI, and returns the world.
pub(crate) fn world_of(mut resolve: Resolve, world: &str) -> (Resolve, WorldId) {
    let package = resolve.push_str("guest.wit", world).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    (resolve, world)
}

/// Returns the directory of the WIT files of WASI 0.2.
pub(crate) fn wit_dir() -> PathBuf {
    wasi_http_dir().join("wit")
}

/// Returns the directory of the `wasmtime-wasi-http` dependency.
pub(crate) fn wasi_http_dir() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        // only dependencies of this platform are downloaded on a fresh machine
        .args(["--filter-platform", "host-tuple"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|package| package["name"] == "wasmtime-wasi-http")
        .unwrap();
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().to_owned()
}

/// Wraps a core module that uses the canonical ABI into a component.
pub(crate) fn from_module(wat: &str) -> Vec<u8> {
    wrapped(wat, &WIT)
}

/// Wraps a core module into a component of another world.
pub(crate) fn wrapped(wat: &str, world: &(Resolve, WorldId)) -> Vec<u8> {
    let module = wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}"));
    encoded(module, world)
}

/// Wraps a core module in binary form.
pub(crate) fn encoded(mut module: Vec<u8>, (resolve, world): &(Resolve, WorldId)) -> Vec<u8> {
    embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap()
        .encode()
        .unwrap_or_else(|error| panic!("{error:#}"))
}

/// Text of a handler that does nothing, for components in WebAssembly text.
pub(crate) const HANDLER: &str = "(component $handler) (instance $handles (instantiate $handler))
    (export \"wasi:http/incoming-handler@0.2.12\" (instance $handles))";

/// Adds a handler that does nothing to a component in binary form without components and instances of its own.
pub(crate) fn with_handler(component: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"wasi:http/incoming-handler@0.2.12";
    let inner = b"\x04\x08\0asm\x0d\0\x01\0";
    let instance = b"\x05\x04\x01\0\0\0";
    let length = u8::try_from(NAME.len()).unwrap();
    let export = [&[11, length + 6, 1, 0, length], NAME, &[5, 0, 0]].concat();
    [component, inner, instance, &export].concat()
}

/// Returns a guest whose handler is `body`: WAT instructions that use the locals `$req` and `$out` and the
/// helpers of `PRELUDE`. `items` are further items of the module, imports first.
pub(crate) fn guest(items: &str, body: &str) -> Vec<u8> {
    from_module(&guest_text(items, body))
}

/// Returns the text of [`guest`].
pub(crate) fn guest_text(items: &str, body: &str) -> String {
    format!(
        "(module {IMPORTS} {items} {PRELUDE}
           (func (export \"wasi:http/incoming-handler@0.2.12#handle\") (param $req i32) (param $out i32)
             (local $r i32) (local $b i32) (local $s i32) (local $i i32) (local $n i32)
             {body}))"
    )
}

const IMPORTS: &str = r#"
(import "wasi:http/types@0.2.12" "[constructor]fields" (func $fields (result i32)))
(import "wasi:http/types@0.2.12" "[method]fields.append" (func $fields-append (param i32 i32 i32 i32 i32 i32)))
(import "wasi:http/types@0.2.12" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-response.set-status-code" (func $set-status (param i32 i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-response.body" (func $response-body (param i32 i32)))
(import "wasi:http/types@0.2.12" "[method]outgoing-body.write" (func $body-write (param i32 i32)))
(import "wasi:http/types@0.2.12" "[static]outgoing-body.finish" (func $body-finish (param i32 i32 i32 i32)))
(import "wasi:http/types@0.2.12" "[static]response-outparam.set" (func $outparam-set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
(import "wasi:http/types@0.2.12" "[resource-drop]response-outparam" (func $outparam-drop (param i32)))
(import "wasi:http/types@0.2.12" "[method]incoming-request.consume" (func $consume (param i32 i32)))
(import "wasi:http/types@0.2.12" "[method]incoming-request.headers" (func $request-headers (param i32) (result i32)))
(import "wasi:http/types@0.2.12" "[method]incoming-request.path-with-query" (func $request-path (param i32 i32)))
(import "wasi:http/types@0.2.12" "[method]incoming-request.authority" (func $request-authority (param i32 i32)))
(import "wasi:http/types@0.2.12" "[method]fields.entries" (func $fields-entries (param i32 i32)))
(import "wasi:http/types@0.2.12" "[method]incoming-body.stream" (func $incoming-stream (param i32 i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.blocking-write-and-flush" (func $write-flush (param i32 i32 i32 i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.check-write" (func $check-write (param i32 i32)))
(import "wasi:io/streams@0.2.12" "[method]output-stream.write" (func $stream-write (param i32 i32 i32 i32)))
(import "wasi:io/streams@0.2.12" "[method]input-stream.blocking-read" (func $blocking-read (param i32 i64 i32)))
(import "wasi:io/streams@0.2.12" "[resource-drop]output-stream" (func $stream-drop (param i32)))
(import "wasi:io/poll@0.2.12" "[method]pollable.block" (func $block (param i32)))
(import "wasi:clocks/monotonic-clock@0.2.12" "subscribe-duration" (func $after (param i64) (result i32)))
"#;

/// Helper functions. Memory layout: results of host calls at 0–1023, unused at 1024–4095, constants from
/// 4096, heap from 65536.
const PRELUDE: &str = r#"
(memory (export "memory") 4)
(global $heap (mut i32) (i32.const 65536))
(func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $new i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
  (global.set $heap (i32.add (local.get $at) (local.get $new)))
  (block $fits
    (br_if $fits (i32.le_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536))))
    (drop (memory.grow (i32.const 4))))
  (local.get $at))
(func $make (param $status i32) (result i32)
  (local $r i32)
  (local.set $r (call $response (call $fields)))
  (drop (call $set-status (local.get $r) (local.get $status)))
  (local.get $r))
(func $body (param $r i32) (result i32)
  (call $response-body (local.get $r) (i32.const 16))
  (i32.load (i32.const 20)))
(func $open (param $b i32) (result i32)
  (call $body-write (local.get $b) (i32.const 16))
  (i32.load (i32.const 20)))
(func $set (param $out i32) (param $r i32)
  (call $outparam-set (local.get $out) (i32.const 0) (local.get $r) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
(func $write (param $s i32) (param $at i32) (param $n i32) (result i32)
  (call $write-flush (local.get $s) (local.get $at) (local.get $n) (i32.const 16))
  (i32.load8_u (i32.const 16)))
(func $finish (param $b i32) (result i32)
  (call $body-finish (local.get $b) (i32.const 0) (i32.const 0) (i32.const 32))
  (i32.load8_u (i32.const 32)))
(func $header (param $f i32) (param $name i32) (param $nlen i32) (param $value i32) (param $vlen i32) (result i32)
  (call $fields-append (local.get $f) (local.get $name) (local.get $nlen) (local.get $value) (local.get $vlen) (i32.const 16))
  (i32.load8_u (i32.const 16)))
;; answers $status with $n bytes at $at, whole
(func $answer (param $out i32) (param $status i32) (param $at i32) (param $n i32)
  (local $r i32) (local $b i32) (local $s i32)
  (local.set $r (call $make (local.get $status)))
  (local.set $b (call $body (local.get $r)))
  (call $set (local.get $out) (local.get $r))
  (local.set $s (call $open (local.get $b)))
  (drop (call $write (local.get $s) (local.get $at) (local.get $n)))
  (call $stream-drop (local.get $s))
  (drop (call $finish (local.get $b))))
(func $sleep (param $ns i64) (call $block (call $after (local.get $ns))))
"#;
