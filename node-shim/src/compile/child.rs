//! The compiler process: reads a component, writes native code to stdout and exits.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

use node_shim_core::bounds_checks::BoundsChecks;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use super::{
    EXIT_OUTPUT_FULL, EXIT_REJECTED, ErrorReport, RejectReason, imports, input, inspect, sandbox,
};
use crate::engine::{BacktraceDetail, Compiler, memory_limit};
use crate::function_cache::FunctionStore;

const MAX_COMPONENT: u64 = 50 << 20;
/// Maximum address space in bytes, if three quarters of the container's memory are not less.
const ADDRESS_SPACE: u64 = 2 << 30;
/// CPU time of all threads of a compilation.
pub(super) const CPU_SECONDS: u64 = 60;
/// CPU time after which the kernel kills the process instead of sending a signal that names the limit.
const KILL_CPU_SECONDS: u64 = CPU_SECONDS + 5;
const MAX_NATIVE: u64 = 1 << 30;
/// Maximum number of characters of a message, which may list the imports of a component.
const MAX_MESSAGE: usize = 4_096;
/// Scheduling priority below that of serving processes.
const NICENESS: i32 = 10;
/// Maximum number of functions that are compiled at the same time. Each thread needs memory for its function and 64 MiB of
/// address space for its allocations.
const MAX_THREADS: usize = 4;

/// A process that has everything it needs, and access to nothing else.
struct ConfinedCompiler {
    component: File,
    functions: Option<Arc<FunctionStore>>,
    compiler: Compiler,
    checks: BoundsChecks,
}

/// Compiles the component of stdin to stdout. Exits with `EXIT_REJECTED` and an `ErrorReport` on stderr when the input
/// is rejected, and with `EXIT_OUTPUT_FULL` when stdout cannot be written.
#[must_use]
pub fn run(checks: BoundsChecks, backtraces: BacktraceDetail) -> ExitCode {
    match ConfinedCompiler::prepare(checks, backtraces).and_then(ConfinedCompiler::compile) {
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

impl ConfinedCompiler {
    /// Takes what compilation needs, and gives up access to everything else. Nothing of a tenant has been read then.
    fn prepare(checks: BoundsChecks, backtraces: BacktraceDetail) -> Result<Self, ErrorReport> {
        limit_resources().map_err(unavailable)?;
        let files = input::receive().map_err(unavailable)?;
        let functions = files
            .functions
            .map(|(pack, added)| Arc::new(FunctionStore::new(pack, added)));
        let compiler = Compiler::with(backtraces, functions.as_ref()).map_err(unavailable)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        sandbox::deny_files().map_err(unavailable)?;
        // started here, because the filter forbids new threads
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.min(MAX_THREADS))
            .build_global()
            .map_err(unavailable)?;
        sandbox::filter_system_calls().map_err(unavailable)?;
        Ok(Self {
            component: files.component,
            functions,
            compiler,
            checks,
        })
    }

    fn compile(self) -> Result<Vec<u8>, ErrorReport> {
        let mut bytes = Vec::new();
        self.component
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
        let code = match self.checks {
            BoundsChecks::GuardPages => self.compiler.precompile(&bytes),
            BoundsChecks::Explicit => self.compiler.precompile_explicit(&bytes),
        };
        let code = code.map_err(|error| {
            let refused_by_validation = error
                .downcast_ref::<wasmparser::BinaryReaderError>()
                .is_some();
            let reason = if refused_by_validation && inspect::is_valid_with_all_features(&bytes) {
                RejectReason::UnsupportedFeature
            } else {
                RejectReason::CompileFailed
            };
            ErrorReport::new(reason, format!("{error:#}"))
        })?;
        if let Some(functions) = self.functions {
            let counts = serde_json::to_string(&functions.finish()).unwrap_or_default();
            let _ = io::stderr().write_all(counts.as_bytes());
        }
        Ok(code)
    }
}

/// Returns the report of a process that cannot compile anything, which is not the fault of the component.
fn unavailable(error: impl Display) -> ErrorReport {
    ErrorReport::new(RejectReason::Unavailable, error)
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
