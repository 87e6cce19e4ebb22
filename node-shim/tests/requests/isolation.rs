//! Isolation between tenants: no data of previous guests is visible, and clocks are coarse.

use node_shim::counters::CounterTable;
use node_shim::engine::{Engine, EngineOptions};
use node_shim_core::bounds_checks::BoundsChecks;
use node_shim_core::table::{FunctionKey, Route};

use crate::support::component::guest;
use crate::support::node::{Setup, served};
use crate::support::wire::{Wire, get};

/// A memory of 40 pages, more than stays resident, and a large table. `$marked` counts the words and elements
/// that differ from a fresh instance, except for the first 8 KiB, which the guest uses itself.
const MARKER: &str = r#"
(table $t 1000 20000 funcref)
(elem declare func $mark)
(func $mark)
(func $marked (result i32)
  (local $at i32) (local $n i32)
  (local.set $at (i32.const 8192))
  (loop $words
    (local.set $n (i32.add (local.get $n) (i64.ne (i64.load (local.get $at)) (i64.const 0))))
    (local.set $at (i32.add (local.get $at) (i32.const 8)))
    (br_if $words (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
  (local.set $at (i32.const 0))
  (loop $elements
    (local.set $n (i32.add (local.get $n) (i32.eqz (ref.is_null (table.get $t (local.get $at))))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $elements (i32.lt_u (local.get $at) (table.size $t))))
  (local.get $n))
"#;

/// Responds with two numbers: the differences found at the start and after the guest has filled everything.
const FIND_AND_MARK: &str = "
    (drop (memory.grow (i32.const 36)))
    (drop (table.grow $t (ref.null func) (i32.const 9000)))
    (i32.store (i32.const 2048) (call $marked))
    (memory.fill (i32.const 8192) (i32.const 0xa5) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8192)))
    (table.fill $t (i32.const 0) (ref.func $mark) (i32.const 10000))
    (i32.store (i32.const 2052) (call $marked))
    (call $answer (local.get $out) (i32.const 200) (i32.const 2048) (i32.const 8))";

/// Number of words of memory and elements of the table that one guest fills.
const FILLED: u32 = (40 * 65_536 - 8_192) / 8 + 10_000;

/// More tenants than the pool has memories, so that slots are reused.
const TENANTS: usize = 24;

/// HG-22: memory and table, with and without resident memory. WebAssembly cannot read the stack.
#[test]
fn hg_22_guests_do_not_see_data_of_previous_guests() {
    let wasm = guest(MARKER, FIND_AND_MARK);
    for (keep_resident, checks) in [
        (true, BoundsChecks::GuardPages),
        (false, BoundsChecks::GuardPages),
        (true, BoundsChecks::Explicit),
    ] {
        let options = EngineOptions {
            max_slots: 8,
            keep_resident,
            ..EngineOptions::small()
        };
        let setup = Setup {
            engine: Engine::new(&options).unwrap(),
            checks,
            ..Setup::default()
        };
        assert!(keep_resident || !setup.engine.pagemap_scan());
        let counters = CounterTable::new();
        let node = setup.start_empty(counters.clone());
        let tenant = |n: usize| {
            let function = FunctionKey::new(format!("ns{n}"), "f");
            let revision = setup.revision_of(function, "r1", &wasm, &counters);
            let route = Route {
                hosts: vec![format!("h{n}.example")],
                ..Route::default()
            };
            served(&revision, vec![route])
        };
        node.publish((0..TENANTS).map(tenant).collect());
        let mut wire = Wire::connect(node.address());
        for turn in 0..TENANTS * 10 {
            let host = turn % TENANTS;
            wire.send(format!("GET / HTTP/1.1\r\nhost: h{host}.example\r\n\r\n"));
            let reply = wire.read().unwrap();
            assert_eq!(reply.status, 200, "{:?}", node.log().last());
            let (found, filled) = reply.body.split_at(4);
            assert_eq!(u32_of(filled), FILLED);
            assert_eq!(u32_of(found), 0, "turn {turn}, {keep_resident}, {checks:?}");
        }
        node.is_quiet();
    }
}

/// Instructions that trap when the code checks what it has to.
const TRAPS: [(&str, &str); 6] = [
    (
        "the byte after the memory",
        "(drop (i32.load8_u (i32.mul (memory.size) (i32.const 65536))))",
    ),
    (
        "a word that begins in the memory",
        "(drop (i64.load (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1))))",
    ),
    (
        "a write by a constant offset",
        "(i32.store8 offset=1048576 (i32.const 0) (i32.const 1))",
    ),
    (
        "the end of the address space",
        "(i32.store8 offset=4294967295 (i32.const -1) (i32.const 1))",
    ),
    (
        "a division by zero",
        "(drop (i32.div_u (i32.const 1) (i32.sub (memory.size) (memory.size))))",
    ),
    (
        "a call of no function",
        "(call_indirect $empty (i32.const 0))",
    ),
];

/// HG-22: with explicit checks, pages that a guest's memory has grown by stay open for the next guest of the slot.
#[test]
fn hg_22_guests_cannot_leave_their_memory() {
    const GROWS: &str = "
        (drop (memory.grow (i32.const 36)))
        (memory.fill (i32.const 8192) (i32.const 0xa5) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8192)))
        (call $answer (local.get $out) (i32.const 200) (i32.const 0) (i32.const 0))";
    let answers = "(call $answer (local.get $out) (i32.const 200) (i32.const 0) (i32.const 0))";
    for checks in [BoundsChecks::GuardPages, BoundsChecks::Explicit] {
        let setup = Setup {
            engine: Engine::new(&EngineOptions::small()).unwrap(),
            checks,
            ..Setup::default()
        };
        let counters = CounterTable::new();
        let node = setup.start_empty(counters.clone());
        let function = |host: &str, wasm: &[u8]| {
            let revision = setup.revision_of(FunctionKey::new("ns", host), "r1", wasm, &counters);
            let route = Route {
                hosts: vec![format!("{host}.example")],
                ..Route::default()
            };
            served(&revision, vec![route])
        };
        let guests = TRAPS.iter().enumerate().map(|(n, (_, instructions))| {
            let table = "(table $empty 1 funcref)";
            let wasm = guest(table, &format!("{instructions} {answers}"));
            function(&format!("trap{n}"), &wasm)
        });
        let mut functions = vec![function("grows", &guest("", GROWS))];
        functions.extend(guests);
        node.publish(functions);
        let status = |host: &str| {
            let mut wire = Wire::connect(node.address());
            wire.send(format!("GET / HTTP/1.1\r\nhost: {host}.example\r\n\r\n"));
            wire.read().unwrap().status_and_error().0
        };
        for (n, (what, _)) in TRAPS.iter().enumerate() {
            assert_eq!(status("grows"), 200);
            assert_eq!(status(&format!("trap{n}")), 500, "{what}, {checks:?}");
        }
        node.outcomes(2 * TRAPS.len() as u64);
        assert_eq!(node.failures(), ["trap 1"; TRAPS.len()], "{checks:?}");
        node.is_quiet();
    }
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

const CLOCKS: &str = r#"
(import "wasi:clocks/monotonic-clock@0.2.12" "now" (func $now (result i64)))
(import "wasi:clocks/monotonic-clock@0.2.12" "resolution" (func $resolution (result i64)))
(import "wasi:clocks/wall-clock@0.2.12" "now" (func $wall (param i32)))
(import "wasi:clocks/wall-clock@0.2.12" "resolution" (func $wall-resolution (param i32)))
"#;

/// Responds with four numbers: how many of 1,000 readings are finer than 10 µs (monotonic clock) and than 1 ms
/// (wall clock), and the reported resolutions in ns.
const READ_CLOCKS: &str = "
    (loop $more
      (local.set $i (i32.add (local.get $i) (i64.ne (i64.rem_u (call $now) (i64.const 10000)) (i64.const 0))))
      (call $wall (i32.const 64))
      (local.set $s (i32.add (local.get $s) (i32.ne (i32.rem_u (i32.load (i32.const 72)) (i32.const 1000000)) (i32.const 0))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $n) (i32.const 1000))))
    (i32.store (i32.const 2048) (local.get $i))
    (i32.store (i32.const 2052) (local.get $s))
    (i32.store (i32.const 2056) (i32.wrap_i64 (call $resolution)))
    (call $wall-resolution (i32.const 64))
    (i32.store (i32.const 2060) (i32.load (i32.const 72)))
    (call $answer (local.get $out) (i32.const 200) (i32.const 2048) (i32.const 16))";

/// HG-24: the clocks have resolutions of 10 µs and 1 ms. Threads, which could serve as a clock, are rejected
/// (HG-11).
#[test]
fn hg_24_clocks_are_coarse() {
    let node = Setup::default().start(&guest(CLOCKS, READ_CLOCKS));
    let reply = get(node.address(), "/");
    assert_eq!(reply.status, 200);
    let numbers: Vec<u32> = reply.body.chunks(4).map(u32_of).collect();
    assert_eq!(numbers, [0, 0, 10_000, 1_000_000]);
}
