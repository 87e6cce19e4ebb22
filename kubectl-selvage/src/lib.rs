//! Plugin of kubectl for edge functions: `kubectl selvage status checkout --watch`.
//!
//! What is shown and decided is pure and separate from IO: `view` turns objects into lines, `action` turns an object
//! into the annotation that requests an action or into the reason why it would do nothing, `undo` computes the spec of a
//! kept revision, and `progress` finds what changed between two versions of an object. `request` builds the request of
//! `invoke`, `component` checks what `push` sends, `project` has the files that `new` writes, `replay` plays policies on
//! recorded requests, and `completion` reads incomplete command lines. `command` contains the IO.

#![forbid(unsafe_code)]

mod action;
mod cli;
mod cluster;
mod command;
mod completion;
mod component;
#[cfg(test)]
mod fixtures;
mod follow;
mod gates;
mod progress;
mod project;
mod redact;
mod replay;
mod request;
mod screen;
mod table;
mod text;
mod undo;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

/// What a command found, as the exit code that scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// The command did what it was asked for; with `--wait`, the spec is live. Exit code 0.
    Done,
    /// An action does not apply, or the rollout was rolled back or stalled. Exit code 1.
    Refused,
    /// The time limit has passed. Exit code 2.
    TimedOut,
    /// With `--fail`, the response has a status of 400 or higher. Exit code 22, as with curl.
    Failed,
}

/// Exit code when the command line is invalid, or when cluster or registry cannot be used.
const UNUSABLE: u8 = 3;

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        match code {
            Code::Done => Self::SUCCESS,
            Code::Refused => Self::from(1),
            Code::TimedOut => Self::from(2),
            Code::Failed => Self::from(22),
        }
    }
}

/// Runs the command that the arguments of the process name, and returns its exit code.
#[must_use]
pub fn run() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(words) = completion::words(&arguments) {
        return exit_code(command::complete(&words));
    }
    match cli::parse(arguments) {
        Ok(cli) => exit_code(command::execute(cli)),
        Err(error) => {
            // The text is lost only if the stream that would show it is closed.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { UNUSABLE } else { 0 })
        }
    }
}

/// Runs a command, prints its error and returns its exit code.
fn exit_code(command: impl Future<Output = anyhow::Result<Code>>) -> ExitCode {
    // This fails only when a provider is already installed, so the process has one in either case.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(command));
    match result {
        Ok(code) => code.into(),
        // the reader, such as `head`, has what it needs
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubectl selvage: {}", cluster::explain(&error));
            ExitCode::from(UNUSABLE)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
