//! Guests that use `wasi:keyvalue`.

use super::component::guest;

/// Draft that has compare-and-swap.
pub(crate) const DRAFT2: &str = "0.2.0-draft2";

/// Imports of a draft, constants and helper functions. The label `cart` is at 4096; the keys `k`, `a`, `b` and `z` from
/// 4112; the values `1` and `2` from 4128. Results of the interface are at 64.
pub(crate) fn items(draft: &str) -> String {
    let store = format!("wasi:keyvalue/store@{draft}");
    let atomics = format!("wasi:keyvalue/atomics@{draft}");
    let batch = format!("wasi:keyvalue/batch@{draft}");
    let (cursor, swaps) = if draft == DRAFT2 {
        let swaps = format!(
            r#"(import "{atomics}" "[static]cas.new" (func $cas-new (param i32 i32 i32 i32)))
            (import "{atomics}" "[method]cas.current" (func $cas-current (param i32 i32)))
            (import "{atomics}" "swap" (func $cas-swap (param i32 i32 i32 i32)))"#
        );
        ("i32 i32 i32", swaps)
    } else {
        ("i32 i64", String::new())
    };
    format!(
        r#"
        (import "{store}" "open" (func $kv-open (param i32 i32 i32)))
        (import "{store}" "[method]bucket.get" (func $kv-get (param i32 i32 i32 i32)))
        (import "{store}" "[method]bucket.set" (func $kv-set (param i32 i32 i32 i32 i32 i32)))
        (import "{store}" "[method]bucket.delete" (func $kv-delete (param i32 i32 i32 i32)))
        (import "{store}" "[method]bucket.exists" (func $kv-exists (param i32 i32 i32 i32)))
        (import "{store}" "[method]bucket.list-keys" (func $kv-list (param i32 {cursor} i32)))
        (import "{store}" "[resource-drop]bucket" (func $kv-drop (param i32)))
        (import "{atomics}" "increment" (func $kv-increment (param i32 i32 i32 i64 i32)))
        (import "{batch}" "get-many" (func $kv-get-many (param i32 i32 i32 i32)))
        (import "{batch}" "set-many" (func $kv-set-many (param i32 i32 i32 i32)))
        (import "{batch}" "delete-many" (func $kv-delete-many (param i32 i32 i32 i32)))
        {swaps}
        (data (i32.const 4096) "cart") (data (i32.const 4112) "kabz") (data (i32.const 4128) "12")
        (func $check (param $holds i32) (if (i32.eqz (local.get $holds)) (then (unreachable))))
        (func $done (call $check (i32.eqz (i32.load8_u (i32.const 64)))))
        ;; answers with the error at $at: 404 for no-such-store, else 500 and its text
        (func $fail (param $out i32) (param $at i32)
          (if (i32.load8_u (local.get $at))
            (then (call $answer (local.get $out) (i32.const 500)
              (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at))))
            (else (call $answer (local.get $out) (i32.const 404) (i32.const 4096) (i32.const 0)))))
        (func $bucket (result i32)
          (call $kv-open (i32.const 4096) (i32.const 4) (i32.const 64))
          (call $done)
          (i32.load (i32.const 68)))
        (func $exists (param $bucket i32) (param $key i32) (result i32)
          (call $kv-exists (local.get $bucket) (local.get $key) (i32.const 1) (i32.const 64))
          (call $done)
          (i32.load8_u (i32.const 68)))
        ;; writes a string at $at
        (func $string (param $at i32) (param $text i32) (param $n i32)
          (i32.store (local.get $at) (local.get $text))
          (i32.store offset=4 (local.get $at) (local.get $n)))
        "#
    )
}

/// Adds `delta` to the number under `k` of the store `cart`, and responds with the text of the entry or with the error.
pub(crate) fn counter(draft: &str, delta: i64) -> Vec<u8> {
    counter_in("cart", draft, delta)
}

/// Is [`counter`] with the store of any label.
pub(crate) fn counter_in(label: &str, draft: &str, delta: i64) -> Vec<u8> {
    let items = format!(r#"{} (data (i32.const 4160) "{label}")"#, items(draft));
    let length = label.len();
    guest(
        &items,
        &format!(
            "
        (call $kv-open (i32.const 4160) (i32.const {length}) (i32.const 64))
        (if (i32.load8_u (i32.const 64)) (then (call $fail (local.get $out) (i32.const 68)) (return)))
        (local.set $b (i32.load (i32.const 68)))
        (call $kv-increment (local.get $b) (i32.const 4112) (i32.const 1) (i64.const {delta}) (i32.const 64))
        (if (i32.load8_u (i32.const 64)) (then (call $fail (local.get $out) (i32.const 72)) (return)))
        (call $kv-get (local.get $b) (i32.const 4112) (i32.const 1) (i32.const 64)) (call $done)
        (call $answer (local.get $out) (i32.const 200) (i32.load (i32.const 72)) (i32.load (i32.const 76)))"
        ),
    )
}
