//! Components that are small but very expensive to compile, or damaged, compiled by the real child process.

use std::io::{Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use node_shim::compile::{Compiled, CompilerPool};
use node_shim::disk::{DiskHealth, Draft};
use node_shim_core::desired::{Failure, LoadFailure};

use crate::component::with_handler;

/// Encodes a number as LEB128.
fn number(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        bytes.push(if n == 0 { low } else { low | 0x80 });
        if n == 0 {
            return bytes;
        }
    }
}

fn sized(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], number(content.len()).as_slice(), content].concat()
}

/// Builds a component with one function without parameters.
fn component(locals: usize, code: &[u8]) -> Vec<u8> {
    let locals = match locals {
        0 => vec![0],
        some => [vec![1], number(some), vec![0x7f]].concat(),
    };
    let body = [locals.as_slice(), code, &[0x0b]].concat();
    let bodies = [vec![1], number(body.len()), body].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        sized(1, b"\x01\x60\0\0"),
        sized(3, b"\x01\0"),
        sized(10, &bodies),
    ]
    .concat();
    with_handler(&[b"\0asm\x0d\0\x01\0".to_vec(), sized(1, &module)].concat())
}

/// Builds a component with a loop in which every value stays alive throughout, which makes register allocation slow.
fn entangled(values: usize, operations: usize) -> Vec<u8> {
    let mut code = vec![0x03, 0x40];
    for n in 0..operations {
        code.push(0x20);
        code.extend(number(n % values));
        code.push(0x20);
        code.extend(number(n * 7 % values));
        code.extend([0x6a, 0x21]);
        code.extend(number(n * 13 % values));
    }
    code.extend([0x41, 1, 0x0d, 0, 0x0b]);
    component(values, &code)
}

async fn compile(bytes: &[u8], wall: Duration) -> Result<usize, &'static str> {
    match run(bytes, wall).await {
        Ok(Compiled::Code(draft)) => Ok(draft.handle().unwrap().metadata().unwrap().len() as usize),
        Ok(Compiled::DiskFull) => Err("DiskFull"),
        Err(failure) => Err(failure.reason().name()),
    }
}

async fn run(bytes: &[u8], wall: Duration) -> Result<Compiled, Failure> {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(bytes).unwrap();
    input.rewind().unwrap();
    let draft = Draft::in_memory(&Arc::new(DiskHealth::default())).unwrap();
    let compiler =
        CompilerPool::new(PathBuf::from(env!("CARGO_BIN_EXE_node-shim"))).with_timeout(wall);
    compiler.run(input, draft).await
}

/// HG-8: a compilation ends after its wall-clock time. A busy node can be the reason, so it is tried again; the limit for the
/// component is that of CPU time.
#[tokio::test(flavor = "multi_thread")]
async fn hg_8_a_child_that_exceeds_the_time_limit_is_killed() {
    let bomb = entangled(49_000, 400_000);
    let failure = run(&bomb, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(failure.cause, LoadFailure::CompileStarved);
    assert!(!failure.cause.is_permanent());
}

/// HG-8: one huge function, deep blocks, a huge `br_table`.
#[tokio::test(flavor = "multi_thread")]
async fn hg_8_big_functions_and_deep_nesting_compile_or_fail() {
    let big = component(0, &[0x41, 1, 0x1a].repeat(200_000));
    let nested = component(0, &[[0x02, 0x40].repeat(5_000), vec![0x0b; 5_000]].concat());
    let over = component(0, &[0x41, 1, 0x1a].repeat(3_000_000));
    let mut jumps = [0x02, 0x40].repeat(10);
    jumps.extend([0x41, 0, 0x0e]);
    jumps.extend(number(100_000));
    jumps.extend(vec![0; 100_001]);
    jumps.extend(vec![0x0b; 10]);
    let table = component(0, &jumps);
    let patience = Duration::from_secs(300);
    assert!(compile(&big, patience).await.is_ok());
    assert!(compile(&nested, patience).await.is_ok());
    assert_eq!(compile(&over, patience).await, Err("CompileFailed"));
    assert_eq!(compile(&table, patience).await, Err("CompileFailed"));
}

/// HG-8: segments, functions, chains of types.
#[tokio::test(flavor = "multi_thread")]
async fn hg_8_many_items_of_a_kind_compile_or_fail() {
    let patience = Duration::from_secs(300);
    let module =
        |items: &str| wat::parse_str(format!("(component (core module {items}))")).unwrap();
    let segments = "(data (i32.const 0) \"x\")".repeat(33_000);
    let segments = module(&format!("(memory 1) {segments}"));
    assert!(compile(&with_handler(&segments), patience).await.is_ok());
    let functions = module(&"(func)".repeat(100_000));
    assert_eq!(compile(&functions, patience).await, Err("CompileLimit"));
    // Each type refers to the previous one.
    let mut chain = "(component (type $t0 (list u8))".to_owned();
    for at in 1..60_000 {
        chain += &format!("(type $t{at} (list $t{}))", at - 1);
    }
    let chain = wat::parse_str(chain + ")").unwrap();
    assert_eq!(compile(&chain, patience).await, Err("CompileLimit"));
}

/// HG-9: for any truncated or changed component, the child ends without a crash.
#[tokio::test(flavor = "multi_thread")]
async fn hg_9_cut_and_changed_components_are_errors_or_components() {
    let good = crate::node::ONE.clone();
    let patience = Duration::from_secs(300);
    for part in 1..12 {
        let at = good.len() * part / 12;
        let mut changed = good.clone();
        changed[at] ^= 0x2a;
        for (what, bytes) in [("cut", &good[..at]), ("changed", &changed)] {
            let ended = compile(bytes, patience).await;
            // A component truncated between two sections may be valid.
            assert!(
                matches!(
                    ended,
                    Ok(_)
                        | Err("CompileFailed"
                            | "UnsupportedFeature"
                            | "NotAComponent"
                            | "WorldMismatch")
                ),
                "{what} at {at}: {ended:?}"
            );
        }
    }
}
