//! Guests that use `wasi:keyvalue` in unusual ways.

use crate::support::component::guest;
use crate::support::key_value::{DRAFT2, items};

/// Returns a guest that uses one draft.
fn using(draft: &str, body: &str) -> Vec<u8> {
    guest(&items(draft), body)
}

/// Calls every function of the three interfaces once or more. Traps when a result is not the expected one, else
/// responds with 200.
pub(crate) fn tour(draft: &str) -> Vec<u8> {
    let second = draft == DRAFT2;
    let list = if second {
        "(call $kv-list (local.get $b) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)) (call $done)
         (call $check (i32.eq (i32.load (i32.const 72)) (i32.const 1)))
         (call $check (i32.eqz (i32.load8_u (i32.const 76))))
         ;; a cursor that list-keys did not return
         (call $kv-list (local.get $b) (i32.const 1) (i32.const 4112) (i32.const 1) (i32.const 64))
         (call $check (i32.eq (i32.load8_u (i32.const 68)) (i32.const 2)))"
    } else {
        "(call $kv-list (local.get $b) (i32.const 0) (i64.const 0) (i32.const 64)) (call $done)
         (call $check (i32.eq (i32.load (i32.const 76)) (i32.const 1)))
         (call $check (i32.eqz (i32.load8_u (i32.const 80))))"
    };
    // another write between the read and the swap
    let swap = if second {
        "(call $cas-new (local.get $b) (i32.const 4112) (i32.const 1) (i32.const 64)) (call $done)
         (local.set $n (i32.load (i32.const 68)))
         (call $cas-current (local.get $n) (i32.const 64)) (call $done)
         (call $kv-set (local.get $b) (i32.const 4112) (i32.const 1) (i32.const 4128) (i32.const 2) (i32.const 64)) (call $done)
         (call $cas-swap (local.get $n) (i32.const 4128) (i32.const 1) (i32.const 64))
         (call $check (i32.load8_u (i32.const 64)))
         (call $check (i32.eq (i32.load8_u (i32.const 68)) (i32.const 1)))
         (local.set $n (i32.load (i32.const 72)))
         (call $cas-swap (local.get $n) (i32.const 4129) (i32.const 1) (i32.const 64)) (call $done)"
    } else {
        ""
    };
    using(
        draft,
        &format!(
            "
        (local.set $b (call $bucket))
        (call $check (i32.eqz (call $exists (local.get $b) (i32.const 4112))))
        (call $kv-set (local.get $b) (i32.const 4112) (i32.const 1) (i32.const 4128) (i32.const 1) (i32.const 64)) (call $done)
        (call $check (call $exists (local.get $b) (i32.const 4112)))
        (call $kv-increment (local.get $b) (i32.const 4112) (i32.const 1) (i64.const 41) (i32.const 64)) (call $done)
        (call $check (i64.eq (i64.load (i32.const 72)) (i64.const 42)))
        (call $kv-get (local.get $b) (i32.const 4112) (i32.const 1) (i32.const 64)) (call $done)
        (call $check (i32.load8_u (i32.const 68)))
        (call $check (i32.eq (i32.load (i32.const 76)) (i32.const 2)))
        (call $check (i32.eq (i32.load16_u (i32.load (i32.const 72))) (i32.const 0x3234)))
        {list}
        {swap}
        (call $string (i32.const 2048) (i32.const 4113) (i32.const 1))
        (call $string (i32.const 2056) (i32.const 4128) (i32.const 1))
        (call $string (i32.const 2064) (i32.const 4114) (i32.const 1))
        (call $string (i32.const 2072) (i32.const 4129) (i32.const 1))
        (call $kv-set-many (local.get $b) (i32.const 2048) (i32.const 2) (i32.const 64)) (call $done)
        (call $string (i32.const 2048) (i32.const 4114) (i32.const 1))
        (call $string (i32.const 2056) (i32.const 4115) (i32.const 1))
        (call $kv-get-many (local.get $b) (i32.const 2048) (i32.const 2) (i32.const 64)) (call $done)
        (call $check (i32.eq (i32.load (i32.const 72)) (i32.const 2)))
        (local.set $i (i32.load (i32.const 68)))
        (call $check (i32.load8_u (local.get $i)))
        (call $check (i32.eq (i32.load8_u (i32.load offset=12 (local.get $i))) (i32.const 0x32)))
        (call $check (i32.eqz (i32.load8_u offset=20 (local.get $i))))
        (call $kv-delete-many (local.get $b) (i32.const 2048) (i32.const 2) (i32.const 64)) (call $done)
        (call $check (i32.eqz (call $exists (local.get $b) (i32.const 4114))))
        (call $check (call $exists (local.get $b) (i32.const 4113)))
        (call $kv-delete (local.get $b) (i32.const 4112) (i32.const 1) (i32.const 64)) (call $done)
        (call $kv-get (local.get $b) (i32.const 4112) (i32.const 1) (i32.const 64)) (call $done)
        (call $check (i32.eqz (i32.load8_u (i32.const 68))))
        (call $kv-drop (local.get $b))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))"
        ),
    )
}

/// Adds one to the binary number under `k`: reads it, waits for a millisecond, and swaps it, until the swap succeeds.
/// Responds with the four bytes of the new number.
pub(crate) fn swapper() -> Vec<u8> {
    using(
        DRAFT2,
        "
        (call $cas-new (call $bucket) (i32.const 4112) (i32.const 1) (i32.const 64)) (call $done)
        (local.set $n (i32.load (i32.const 68)))
        (loop $again
          (global.set $heap (i32.const 65536))
          (call $cas-current (local.get $n) (i32.const 64)) (call $done)
          (local.set $i (i32.const 0))
          (if (i32.load8_u (i32.const 68)) (then (local.set $i (i32.load (i32.load (i32.const 72))))))
          (i32.store (i32.const 2048) (i32.add (local.get $i) (i32.const 1)))
          (call $sleep (i64.const 1000000))
          (call $cas-swap (local.get $n) (i32.const 2048) (i32.const 4) (i32.const 64))
          (if (i32.load8_u (i32.const 64)) (then
            (call $check (i32.eq (i32.load8_u (i32.const 68)) (i32.const 1)))
            (local.set $n (i32.load (i32.const 72)))
            (br $again))))
        (call $answer (local.get $out) (i32.const 200) (i32.const 2048) (i32.const 4))",
    )
}

/// Opens the store and asks `times` whether a key exists. Responds with 200, or with the first error.
pub(crate) fn asks(times: u32) -> Vec<u8> {
    using(
        DRAFT2,
        &format!(
            "
        (local.set $b (call $bucket))
        (local.set $n (i32.const {times}))
        (loop $more
          (call $kv-exists (local.get $b) (i32.const 4112) (i32.const 1) (i32.const 64))
          (if (i32.load8_u (i32.const 64)) (then (call $fail (local.get $out) (i32.const 68)) (return)))
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br_if $more (local.get $n)))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))"
        ),
    )
}

/// Writes one entry of zero bytes with a key and a value of these lengths. Responds with 200, or with the error.
pub(crate) fn writes(key: u32, value: u32) -> Vec<u8> {
    using(
        DRAFT2,
        &format!(
            "
        (drop (memory.grow (i32.const 40)))
        (call $kv-set (call $bucket) (i32.const 262144) (i32.const {key})
          (i32.const 262144) (i32.const {value}) (i32.const 64))
        (if (i32.load8_u (i32.const 64)) (then (call $fail (local.get $out) (i32.const 68)) (return)))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))"
        ),
    )
}

/// Writes 100 entries of 1 KiB.
pub(crate) fn fills() -> Vec<u8> {
    using(
        DRAFT2,
        "
        (local.set $b (call $bucket))
        (local.set $n (i32.const 100))
        (loop $more
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (i32.store8 (i32.const 2048) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
          (i32.store8 (i32.const 2049) (i32.add (i32.const 48) (i32.div_u (local.get $n) (i32.const 10))))
          (call $kv-set (local.get $b) (i32.const 2048) (i32.const 2) (i32.const 8192) (i32.const 1024) (i32.const 64))
          (call $done)
          (br_if $more (local.get $n)))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))",
    )
}

/// Opens the store 5,000 times and keeps the handles. Responds with the first error.
pub(crate) fn hoards() -> Vec<u8> {
    using(
        DRAFT2,
        "
        (local.set $n (i32.const 5000))
        (loop $more
          (call $kv-open (i32.const 4096) (i32.const 4) (i32.const 64))
          (if (i32.load8_u (i32.const 64)) (then (call $fail (local.get $out) (i32.const 68)) (return)))
          (local.set $n (i32.sub (local.get $n) (i32.const 1)))
          (br_if $more (local.get $n)))
        (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 4))",
    )
}

/// Responds with at most 1,000 bytes of the entry under `k`, with 404 when there is none, or with the error.
pub(crate) fn reads() -> Vec<u8> {
    using(
        DRAFT2,
        "
        (drop (memory.grow (i32.const 40)))
        (call $kv-get (call $bucket) (i32.const 4112) (i32.const 1) (i32.const 64))
        (if (i32.load8_u (i32.const 64)) (then (call $fail (local.get $out) (i32.const 68)) (return)))
        (if (i32.eqz (i32.load8_u (i32.const 68)))
          (then (call $answer (local.get $out) (i32.const 404) (i32.const 4096) (i32.const 0)) (return)))
        (local.set $n (i32.load (i32.const 76)))
        (if (i32.gt_u (local.get $n) (i32.const 1000)) (then (local.set $n (i32.const 1000))))
        (call $answer (local.get $out) (i32.const 200) (i32.load (i32.const 72)) (local.get $n))",
    )
}

/// Reads all pages of `list-keys`. Responds with the four bytes of the number of keys.
pub(crate) fn lists() -> Vec<u8> {
    using(
        "0.2.0-draft",
        "
        (local.set $b (call $bucket))
        (call $kv-list (local.get $b) (i32.const 0) (i64.const 0) (i32.const 64)) (call $done)
        (loop $more
          (local.set $n (i32.add (local.get $n) (i32.load (i32.const 76))))
          (if (i32.load8_u (i32.const 80)) (then
            (global.set $heap (i32.const 65536))
            (call $kv-list (local.get $b) (i32.const 1) (i64.load (i32.const 88)) (i32.const 64)) (call $done)
            (br $more))))
        (i32.store (i32.const 2048) (local.get $n))
        (call $answer (local.get $out) (i32.const 200) (i32.const 2048) (i32.const 4))",
    )
}
