//! Interfaces that nodes offer: the whole of `wasi:cli/imports`, with nothing behind what a function is not granted.

use std::fmt::Write as _;
use std::fs;

use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, WorldId, WorldItem};

use crate::support::component::{self, WORLD, wit_dir, world_of};
use crate::support::node::{ENGINE, Node};
use crate::support::wire::get;

/// Release of WASI whose WIT files the dependency brings.
const RELEASE: &str = "0.2.12";
/// Position of `access-denied` in `error-code` of `wasi:sockets/network`.
const ACCESS_DENIED: u8 = 1;

/// Returns a component that imports every function of its world, with the interfaces of a release of WASI.
fn with_all_imports(release: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deps")).unwrap();
    for part in [".", "deps"] {
        for file in fs::read_dir(wit_dir().join(part)).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                let text = fs::read_to_string(file.path()).unwrap();
                let copy = folder.path().join(part).join(file.file_name());
                fs::write(copy, of_release(&text, release)).unwrap();
            }
        }
    }
    let mut resolve = Resolve::default();
    resolve.features.insert("network-error-code".to_owned());
    resolve.push_dir(folder.path()).unwrap();
    let wit = world_of(resolve, &WORLD.replace(RELEASE, release));
    let imports = all_imports(&wit);
    for interface in ["filesystem/types", "sockets/udp", "cli/terminal-stdin"] {
        let import = format!("\"wasi:{interface}@{release}\"");
        assert!(imports.contains(&import), "{import}");
    }
    component::wrapped(
        &format!(
            "(module {imports} (memory (export \"memory\") 1)
               (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable)
               (func (export \"wasi:http/incoming-handler@{release}#handle\") (param i32 i32) unreachable))"
        ),
        &wit,
    )
}

/// Returns WIT for another release. The release in which an item appeared is removed: it may be a later one.
fn of_release(wit: &str, release: &str) -> String {
    let appeared = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("@since") || line.starts_with("@deprecated")
    };
    let lines: Vec<&str> = wit.lines().filter(|line| !appeared(line)).collect();
    lines.join("\n").replace(RELEASE, release)
}

/// Returns the imports of a core module that imports every function of the world.
fn all_imports((resolve, world): &(Resolve, WorldId)) -> String {
    let names = |types: &[WasmType]| {
        let name = |kind: &WasmType| match kind {
            WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32 ",
            WasmType::I64 | WasmType::PointerOrI64 => "i64 ",
            WasmType::F32 => "f32 ",
            WasmType::F64 => "f64 ",
        };
        types.iter().map(name).collect::<String>()
    };
    let mut text = String::new();
    for (key, item) in &resolve.worlds[*world].imports {
        let WorldItem::Interface { id, .. } = item else {
            continue;
        };
        let interface = resolve.name_world_key(key);
        for (name, function) in &resolve.interfaces[*id].functions {
            let signature = resolve.wasm_signature(AbiVariant::GuestImport, function);
            let (params, results) = (names(&signature.params), names(&signature.results));
            writeln!(
                text,
                "(import \"{interface}\" \"{name}\" (func (param {params}) (result {results})))"
            )
            .unwrap();
        }
    }
    text
}

/// Toolchains import what their language's library may use, from several releases of WASI.
#[test]
fn components_that_import_everything_are_linked_in_every_release() {
    for release in ["0.2.0", "0.2.9", RELEASE, "0.2.99"] {
        let component = with_all_imports(release);
        if let Err(error) = ENGINE.compile_in_process(&component) {
            panic!("{release}: {error:#}");
        }
    }
}

/// Imports of the guests below. Results are written to address 64.
const HOST: &str = r#"
(import "wasi:filesystem/preopens@0.2.12" "get-directories" (func $directories (param i32)))
(import "wasi:cli/environment@0.2.12" "get-arguments" (func $arguments (param i32)))
(import "wasi:cli/environment@0.2.12" "initial-cwd" (func $cwd (param i32)))
(import "wasi:cli/terminal-stdin@0.2.12" "get-terminal-stdin" (func $terminal-stdin (param i32)))
(import "wasi:cli/terminal-stdout@0.2.12" "get-terminal-stdout" (func $terminal-stdout (param i32)))
(import "wasi:cli/terminal-stderr@0.2.12" "get-terminal-stderr" (func $terminal-stderr (param i32)))
(import "wasi:sockets/instance-network@0.2.12" "instance-network" (func $network (result i32)))
(import "wasi:sockets/ip-name-lookup@0.2.12" "resolve-addresses" (func $resolve (param i32 i32 i32 i32)))
(import "wasi:sockets/tcp-create-socket@0.2.12" "create-tcp-socket" (func $tcp (param i32 i32)))
(import "wasi:sockets/udp-create-socket@0.2.12" "create-udp-socket" (func $udp (param i32 i32)))
(import "wasi:sockets/tcp@0.2.12" "[method]tcp-socket.start-connect"
  (func $connect (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
"#;

/// HG-23: a guest gets no directory, argument, working directory or terminal.
#[test]
fn hg_23_what_is_not_granted_is_empty() {
    let guest = component::guest(
        HOST,
        "(call $directories (i32.const 64)) (i32.store8 (i32.const 4096) (i32.load (i32.const 68)))
         (call $arguments (i32.const 64)) (i32.store8 (i32.const 4097) (i32.load (i32.const 68)))
         (call $cwd (i32.const 64)) (i32.store8 (i32.const 4098) (i32.load8_u (i32.const 64)))
         (call $terminal-stdin (i32.const 64)) (i32.store8 (i32.const 4099) (i32.load8_u (i32.const 64)))
         (call $terminal-stdout (i32.const 64)) (i32.store8 (i32.const 4100) (i32.load8_u (i32.const 64)))
         (call $terminal-stderr (i32.const 64)) (i32.store8 (i32.const 4101) (i32.load8_u (i32.const 64)))
         (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 6))",
    );
    let reply = get(Node::serve(&guest).address(), "/");
    assert_eq!((reply.status, reply.body), (200, vec![0; 6]));
}

/// HE-1: sockets are present, so that programs link, and every use of the network is denied before the host does
/// anything.
#[test]
fn he_1_sockets_and_name_lookup_are_denied() {
    let call = |at: u32, call: &str| {
        format!(
            "{call} (i32.store8 (i32.const {at}) (i32.load8_u (i32.const 64)))
             (i32.store8 (i32.const {}) (i32.load8_u (i32.const 68)))",
            at + 1
        )
    };
    let calls = [
        "(call $tcp (i32.const 0) (i32.const 64))",
        "(call $tcp (i32.const 1) (i32.const 64))",
        "(call $udp (i32.const 0) (i32.const 64))",
        "(call $udp (i32.const 1) (i32.const 64))",
        "(call $resolve (call $network) (i32.const 4200) (i32.const 9) (i32.const 64))",
        // an address, for which no resolver is needed
        "(call $resolve (call $network) (i32.const 4216) (i32.const 9) (i32.const 64))",
    ];
    let all: String = (4096..)
        .step_by(2)
        .zip(calls)
        .map(|(at, text)| call(at, text))
        .collect();
    let guest = component::guest(
        &format!(
            "{HOST} (data (i32.const 4200) \"localhost\") (data (i32.const 4216) \"127.0.0.1\")"
        ),
        &format!(
            "{all} (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 12))"
        ),
    );
    let reply = get(Node::serve(&guest).address(), "/");
    let denied = [1, ACCESS_DENIED].repeat(calls.len());
    assert_eq!((reply.status, reply.body), (200, denied));
}

/// HE-1: a guest cannot invent a socket: a number that is no handle ends it.
#[test]
fn he_1_a_handle_cannot_be_invented() {
    for handle in [0, 1, 2, 7] {
        let zeros = "(i32.const 0) ".repeat(12);
        let guest = component::guest(
            HOST,
            &format!(
                "(call $connect (i32.const {handle}) (call $network) {zeros} (i32.const 64))
                 (call $answer (local.get $out) (i32.const 200) (i32.const 4096) (i32.const 0))"
            ),
        );
        let reply = get(Node::serve(&guest).address(), "/");
        assert_eq!(reply.status_and_error(), (500, "trap"), "handle {handle}");
    }
}
