//! Compilation of untrusted components, each in a process of its own that has no access except to its
//! standard streams.
//!
//! The process gets the component as stdin and an empty file as stdout. It has at most 60 s of CPU time and reports
//! an error as one line on stderr. It limits its own resources and its access to the system before it reads any
//! input ([`child`], `sandbox`). Component bytes are parsed nowhere else.

mod cached;
pub mod child;
mod imports;
mod input;
mod inspect;
mod sandbox;

use std::fmt::Display;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use child::CPU_SECONDS;
use node_shim_core::bounds_checks::BoundsChecks;
use node_shim_core::desired::{Failure, LoadFailure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::disk::Draft;
use crate::engine::BacktraceDetail;
use crate::function_cache::FunctionExchange;

/// Path of the running program, which is also the compiler program. It stays valid when the file is replaced.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Longest wall-clock time of a compilation. What a component may need is limited as CPU time by the process itself, so only a
/// machine that has little CPU time for it takes so long. The engine of a language, such as that of JavaScript, takes 15 s of CPU
/// time, and everything else comes first.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(600);
const MAX_REPORT: u64 = 64 << 10;

/// Exit code with an [`ErrorReport`] on stderr.
const EXIT_REJECTED: u8 = 65;
/// Exit code when stdout cannot be written.
const EXIT_OUTPUT_FULL: u8 = 74;

/// Why the compiler process rejected its input, as one line of JSON on stderr.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
struct ErrorReport {
    reason: RejectReason,
    message: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum RejectReason {
    NotAComponent,
    UnsupportedFeature,
    WorldMismatch,
    CompileLimit,
    CompileFailed,
    /// The process cannot compile any component.
    Unavailable,
}

impl ErrorReport {
    fn new(reason: RejectReason, message: impl Display) -> Self {
        Self {
            reason,
            message: message.to_string(),
        }
    }
}

impl From<RejectReason> for LoadFailure {
    fn from(reason: RejectReason) -> Self {
        match reason {
            RejectReason::NotAComponent => Self::NotAComponent,
            RejectReason::UnsupportedFeature => Self::UnsupportedFeature,
            RejectReason::WorldMismatch => Self::WorldMismatch,
            RejectReason::CompileLimit => Self::CompileLimit,
            RejectReason::CompileFailed => Self::CompileRejected,
            RejectReason::Unavailable => Self::CompilerUnavailable,
        }
    }
}

/// Result of a compilation.
#[derive(Debug)]
pub enum Compiled {
    /// The draft contains native code and is positioned at its end.
    Code(Draft),
    /// The disk of the draft is full. The caller can retry with a draft in memory.
    DiskFull,
}

/// Runs compiler processes, at most one per CPU core at the same time.
#[derive(Clone, Debug)]
pub struct CompilerPool {
    program: PathBuf,
    permits: Arc<Semaphore>,
    timeout: Duration,
    checks: BoundsChecks,
    backtraces: BacktraceDetail,
}

impl CompilerPool {
    /// Returns a pool that starts `program`, which must be the running program, because native code of
    /// another build does not fit the engine.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            program,
            permits: Arc::new(Semaphore::new(cores)),
            timeout: COMPILE_TIMEOUT,
            checks: BoundsChecks::default(),
            backtraces: BacktraceDetail::default(),
        }
    }

    /// Returns the same pool for code with other bounds checks.
    #[must_use]
    pub(crate) fn with_checks(self, checks: BoundsChecks) -> Self {
        Self { checks, ..self }
    }

    /// Returns the same pool for code of an engine with other backtraces.
    #[must_use]
    pub(crate) fn with_backtraces(self, backtraces: BacktraceDetail) -> Self {
        Self { backtraces, ..self }
    }

    /// Replaces the limit of the wall-clock time of a compilation. Default: 600 s.
    #[must_use]
    pub fn with_timeout(self, wall: Duration) -> Self {
        Self {
            timeout: wall,
            ..self
        }
    }

    /// Compiles a component into a draft.
    ///
    /// # Errors
    /// Returns the reason, which is permanent when the component is at fault.
    pub async fn run(&self, component: File, draft: Draft) -> Result<Compiled, Failure> {
        let (compiled, _) = self.start(Stdio::from(component), draft).await?;
        Ok(compiled)
    }

    /// Compiles a component into a draft and reuses functions of earlier compilations. The exchange receives the
    /// functions that were compiled anew.
    ///
    /// # Errors
    /// Returns the errors of [`run`](Self::run).
    pub async fn run_reusing(
        &self,
        component: File,
        draft: Draft,
        functions: &mut FunctionExchange,
    ) -> Result<Compiled, Failure> {
        let (pack, added) = functions.files();
        let stdin = input::send(&component, pack, added).map_err(broken)?;
        let (compiled, stderr) = self.start(Stdio::from(stdin), draft).await?;
        functions.set_counts(&stderr);
        Ok(compiled)
    }

    /// Runs a compiler process. Returns its result and what it wrote to stderr.
    async fn start(&self, stdin: Stdio, draft: Draft) -> Result<(Compiled, Vec<u8>), Failure> {
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|error| Failure::new(LoadFailure::CompilerUnavailable, error))?;
        let explicit = self.checks == BoundsChecks::Explicit;
        let lines = self.backtraces == BacktraceDetail::Lines;
        let mut child = Command::new(&self.program)
            .arg("compile")
            .args(explicit.then_some("--explicit-bounds-checks"))
            .args(lines.then_some("--backtraces-with-lines"))
            .env_clear()
            .stdin(stdin)
            .stdout(Stdio::from(draft.handle().map_err(broken)?))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        let id = child.id();
        let outcome = tokio::time::timeout(self.timeout, finish(&mut child)).await;
        let Ok(finished) = outcome else {
            let spent = id.and_then(processor_time).unwrap_or_default();
            let _ = child.kill().await;
            return Err(starved(spent, self.timeout));
        };
        let (status, stderr) = finished.map_err(broken)?;
        Ok((classify(status, &stderr, draft)?, stderr))
    }
}

/// Returns the failure of a compilation that got too little CPU time, which is tried again.
fn starved(spent: Duration, wall: Duration) -> Failure {
    let (spent, wall) = (spent.as_secs(), wall.as_secs());
    let message = format!(
        "the compilation had only {spent} s of CPU time in {wall} s, because the node is busy; it will be tried again"
    );
    Failure::new(LoadFailure::CompileStarved, message)
}

/// Returns the failure of a compiler process that could not be run.
fn broken(error: std::io::Error) -> Failure {
    let message = format!("compiler: {error}");
    Failure::new(LoadFailure::CompilerUnavailable, message)
}

async fn finish(child: &mut Child) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let mut report = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_REPORT).read_to_end(&mut report).await?;
    }
    Ok((child.wait().await?, report))
}

fn classify(status: ExitStatus, stderr: &[u8], draft: Draft) -> Result<Compiled, Failure> {
    match status.code() {
        Some(0) => Ok(Compiled::Code(draft)),
        Some(code) if code == i32::from(EXIT_OUTPUT_FULL) => Ok(Compiled::DiskFull),
        Some(code) if code == i32::from(EXIT_REJECTED) => {
            let report: ErrorReport = serde_json::from_slice(stderr).unwrap_or_else(|_| {
                ErrorReport::new(RejectReason::CompileFailed, "the compiler gave no reason")
            });
            Err(Failure::new(report.reason.into(), report.message))
        }
        Some(_) => {
            let report = String::from_utf8_lossy(stderr);
            let line = report.lines().next().unwrap_or_default();
            Err(Failure::new(
                LoadFailure::CompileRejected,
                format!("the compiler failed: {line}"),
            ))
        }
        // its own limits end the process by other signals
        None if status.signal() == Some(Signal::KILL.as_raw()) => Err(Failure::new(
            LoadFailure::CompilerKilled,
            "the compiler process was killed",
        )),
        None if status.signal() == Some(Signal::SYS.as_raw()) => Err(Failure::new(
            LoadFailure::CompilerViolation,
            "the compiler process made a system call that is forbidden to it and was killed; the component may be \
             an attack on the compiler",
        )),
        None if status.signal() == Some(Signal::XCPU.as_raw()) => Err(Failure::new(
            LoadFailure::CompileLimit,
            format!("the compilation needs more than {CPU_SECONDS} s of CPU time"),
        )),
        None => Err(Failure::new(
            LoadFailure::CompileLimit,
            format!("the compiler process was ended by {status}"),
        )),
    }
}

/// Returns the CPU time of a process so far.
fn processor_time(id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // the name in parentheses may contain any character; only numbers follow it
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis((user + system) * 1000 / ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_from_outside_is_worth_another_attempt() {
        let cause = |signal: Signal| {
            let draft = Draft::in_memory(&Arc::default()).unwrap();
            let status = ExitStatus::from_raw(signal.as_raw());
            classify(status, b"", draft).unwrap_err().cause
        };
        assert_eq!(cause(Signal::KILL), LoadFailure::CompilerKilled);
        assert_eq!(cause(Signal::SYS), LoadFailure::CompilerViolation);
        for own in [Signal::XCPU, Signal::ABORT, Signal::SEGV, Signal::XFSZ] {
            assert_eq!(cause(own), LoadFailure::CompileLimit);
        }
        assert!(LoadFailure::CompileLimit.is_permanent());
        assert!(!LoadFailure::CompilerKilled.is_permanent());
        assert!(LoadFailure::CompilerViolation.is_permanent());
    }

    /// A node that cannot confine its compiler tries again: the component is not at fault.
    #[test]
    fn a_compiler_that_cannot_work_is_not_the_fault_of_the_component() {
        let report = ErrorReport::new(RejectReason::Unavailable, "no filter");
        let report = serde_json::to_vec(&report).unwrap();
        let status = ExitStatus::from_raw(i32::from(EXIT_REJECTED) << 8);
        let draft = Draft::in_memory(&Arc::default()).unwrap();
        let failure = classify(status, &report, draft).unwrap_err();
        assert_eq!(failure.cause, LoadFailure::CompilerUnavailable);
        assert_eq!(failure.message, "no filter");
        assert!(!failure.cause.is_permanent());
    }
}
