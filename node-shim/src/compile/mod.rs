//! Compiling hostile input: one child process per component, with nothing but its two streams.
//!
//! The supervisor gives the child the component as stdin and an empty file as stdout, waits for at
//! most 30 s, and reads one line about what was wrong. The child bounds itself before it reads a
//! byte ([`child`]). No parser of component bytes runs anywhere else.

pub mod child;
mod inspect;

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use node_shim_core::desired::Failure;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::disk::Draft;
use crate::pull::failure;

/// What to start as the child. The file may be replaced while this process runs; what runs is still there.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

const COMPILE_TIMEOUT: Duration = Duration::from_secs(30);
/// A child that had less of the processor than this within the wall time was starved, not bombed.
const STARVATION_THRESHOLD: Duration = Duration::from_secs(10);
const MAX_REPORT: u64 = 64 << 10;

/// Exit code with a [`Complaint`] on stderr.
const EXIT_REJECTED: u8 = 65;
/// Exit code when stdout takes no more.
const EXIT_OUTPUT_FULL: u8 = 74;

/// What the child says about input it refuses: one line of JSON on stderr.
#[derive(Debug, Deserialize, Serialize)]
struct ErrorReport {
    reason: RejectReason,
    message: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
enum RejectReason {
    NotAComponent,
    UnsupportedFeature,
    CompileLimit,
    CompileFailed,
}

impl RejectReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotAComponent => "NotAComponent",
            Self::UnsupportedFeature => "UnsupportedFeature",
            Self::CompileLimit => "CompileLimit",
            Self::CompileFailed => "CompileFailed",
        }
    }
}

/// How a compilation ended.
#[derive(Debug)]
pub enum Compiled {
    /// Native code; the draft stands at its end.
    Code(Draft),
    /// The draft's disk is full: try again with one in memory.
    DiskFull,
}

/// Starts compile children, one per core at once.
#[derive(Clone, Debug)]
pub struct CompilerPool {
    program: PathBuf,
    permits: Arc<Semaphore>,
    timeout: Duration,
}

impl CompilerPool {
    /// `program` is this very program: native code of another build would not fit the engine.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            program,
            permits: Arc::new(Semaphore::new(cores)),
            timeout: COMPILE_TIMEOUT,
        }
    }

    /// As told, with another limit of the wall time.
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
    /// With the reason; permanent when the component is at fault.
    pub async fn run(&self, component: File, draft: Draft) -> Result<Compiled, Failure> {
        let broken =
            |error: std::io::Error| failure("CompileFailed", false, format!("compiler: {error}"));
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|error| failure("CompileFailed", false, error.to_string()))?;
        let mut child = Command::new(&self.program)
            .arg("compile")
            .env_clear()
            .stdin(Stdio::from(component))
            .stdout(Stdio::from(draft.handle().map_err(broken)?))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(broken)?;
        let id = child.id();
        let outcome = tokio::time::timeout(self.timeout, finish(&mut child)).await;
        let Ok(finished) = outcome else {
            let spent = id.and_then(processor_time);
            let _ = child.kill().await;
            let starved =
                spent.is_some_and(|spent| spent < STARVATION_THRESHOLD.min(self.timeout / 3));
            let message = format!("not compiled within {} s", self.timeout.as_secs());
            return Err(failure("CompileLimit", !starved, message));
        };
        let (status, complaint) = finished.map_err(broken)?;
        classify(status, &complaint, draft)
    }
}

async fn finish(child: &mut Child) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let mut complaint = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_REPORT).read_to_end(&mut complaint).await?;
    }
    Ok((child.wait().await?, complaint))
}

fn classify(status: ExitStatus, complaint: &[u8], draft: Draft) -> Result<Compiled, Failure> {
    match status.code() {
        Some(0) => Ok(Compiled::Code(draft)),
        Some(code) if code == i32::from(EXIT_OUTPUT_FULL) => Ok(Compiled::DiskFull),
        Some(code) if code == i32::from(EXIT_REJECTED) => {
            let said = serde_json::from_slice(complaint).unwrap_or_else(|_| ErrorReport {
                reason: RejectReason::CompileFailed,
                message: "the compiler gave no reason".into(),
            });
            Err(failure(said.reason.as_str(), true, said.message))
        }
        Some(_) => {
            let said = String::from_utf8_lossy(complaint);
            let line = said.lines().next().unwrap_or_default();
            Err(failure(
                "CompileFailed",
                true,
                format!("the compiler failed: {line}"),
            ))
        }
        // a limit ends a process by signal, and so does memory that is refused
        None => Err(failure(
            "CompileLimit",
            true,
            format!("the compiler was ended by {status}"),
        )),
    }
}

/// Time on the processor so far.
fn processor_time(id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // the name in parentheses may hold anything; what follows is numbers
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis((user + system) * 1000 / ticks))
}
