//! The compiler process: reads a component from stdin, writes native code to stdout and exits.

use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use super::{EXIT_OUTPUT_FULL, EXIT_REJECTED, ErrorReport, RejectReason, imports, inspect};
use crate::engine::{Compiler, memory_limit};

const MAX_COMPONENT: u64 = 50 << 20;
/// Maximum address space in bytes, if three quarters of the container's memory are not less.
const ADDRESS_SPACE: u64 = 2 << 30;
const CPU_SECONDS: u64 = 60;
/// CPU time after which the kernel kills the process instead of sending a signal that names the limit.
const KILL_CPU_SECONDS: u64 = CPU_SECONDS + 5;
const MAX_NATIVE: u64 = 1 << 30;
/// Maximum number of characters of a message, which may list the imports of a component.
const MAX_MESSAGE: usize = 4_096;
/// Scheduling priority below that of serving processes.
const NICENESS: i32 = 10;

/// Compiles stdin to stdout. Exits with `EXIT_REJECTED` and an `ErrorReport` on stderr when the input
/// is rejected, and with `EXIT_OUTPUT_FULL` when stdout cannot be written.
#[must_use]
pub fn run() -> ExitCode {
    match limit_resources()
        .map_err(|error| ErrorReport::new(RejectReason::CompileFailed, error))
        .and_then(|()| compile())
    {
        Ok(code) => match write(&code) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(EXIT_OUTPUT_FULL),
        },
        Err(mut report) => {
            report.message = first_lines(&report.message);
            let line = serde_json::to_string(&report).unwrap_or_default();
            let _ = io::stderr().write_all(line.as_bytes());
            ExitCode::from(EXIT_REJECTED)
        }
    }
}

/// Limits the resources of this process irrevocably.
fn limit_resources() -> io::Result<()> {
    let address_space = ADDRESS_SPACE.min(memory_limit() / 4 * 3);
    let limits = [
        (Resource::As, address_space, address_space),
        (Resource::Cpu, CPU_SECONDS, KILL_CPU_SECONDS),
        (Resource::Fsize, MAX_NATIVE, MAX_NATIVE),
        (Resource::Core, 0, 0),
    ];
    for (resource, current, maximum) in limits {
        setrlimit(
            resource,
            Rlimit {
                current: Some(current),
                maximum: Some(maximum),
            },
        )?;
    }
    // when memory runs out all the same, this process ends and not the one that serves
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // compilation works at normal priority too
    let _ = rustix::process::nice(NICENESS);
    Ok(())
}

fn compile() -> Result<Vec<u8>, ErrorReport> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(MAX_COMPONENT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| ErrorReport::new(RejectReason::CompileFailed, error))?;
    if bytes.len() as u64 > MAX_COMPONENT {
        return Err(ErrorReport::new(
            RejectReason::CompileLimit,
            format!("the component is larger than {MAX_COMPONENT} bytes"),
        ));
    }
    inspect::check_magic(&bytes)?;
    inspect::check_sizes(&bytes)?;
    imports::check_world(&bytes)?;
    let compiler =
        Compiler::new().map_err(|error| ErrorReport::new(RejectReason::CompileFailed, error))?;
    compiler.precompile(&bytes).map_err(|error| {
        let refused_by_validation = error
            .downcast_ref::<wasmparser::BinaryReaderError>()
            .is_some();
        let reason = if refused_by_validation && inspect::is_valid_with_all_features(&bytes) {
            RejectReason::UnsupportedFeature
        } else {
            RejectReason::CompileFailed
        };
        ErrorReport::new(reason, format!("{error:#}"))
    })
}

fn write(code: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(code)?;
    stdout.flush()
}

fn first_lines(message: &str) -> String {
    let flat = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty());
    flat.collect::<Vec<_>>()
        .join("; ")
        .chars()
        .take(MAX_MESSAGE)
        .collect()
}
