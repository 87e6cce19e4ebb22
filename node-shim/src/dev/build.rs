//! Runs the command that builds a component.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// A running command with all the processes that it starts. They are ended when it is dropped.
struct Build(Child);

impl Drop for Build {
    fn drop(&mut self) {
        // absent when the command has ended and was waited for
        let group = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = group.and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

/// Runs a command with `sh` in a folder. It writes to the standard streams of this program.
///
/// # Errors
/// Fails when the command fails; the error says how it ended.
pub(super) async fn run(command: &str, folder: &Path) -> anyhow::Result<()> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let child = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .stdin(Stdio::null())
        // a group of its own, so that a compiler that the shell started ends with it
        .process_group(0)
        .spawn()
        .context("cannot start sh")?;
    let mut build = Build(child);
    let status = build.0.wait().await.context("cannot wait for the build")?;
    if status.success() {
        return Ok(());
    }
    bail!("the build failed ({}): {command}", describe(status))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => status.to_string(),
    }
}
