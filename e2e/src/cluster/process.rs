//! A process of a run: marked with the run's id, with a log, and in its own process group so that Ctrl-C reaches only
//! the owner.

use super::cache::last_lines;
use super::run::MARK;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A program that runs as long as the cluster, unless a test kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    run: PathBuf,
    /// Program and arguments, kept for restarts.
    line: Vec<std::ffi::OsString>,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Process {
    /// Starts a program. Its output is written to `log/<name>` in the folder `run`.
    ///
    /// # Errors
    /// Returns an error when the log cannot be opened or the program cannot be started.
    pub fn start<I, S>(run: &Path, name: &str, program: &Path, arguments: I) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: Into<std::ffi::OsString>,
    {
        Self::start_with(run, name, program, arguments, Vec::new())
    }

    /// Starts a program like [`Self::start`], with additional environment variables.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with<I, S>(
        run: &Path,
        name: &str,
        program: &Path,
        arguments: I,
        env: Vec<(String, String)>,
    ) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: Into<std::ffi::OsString>,
    {
        let mut line = vec![program.as_os_str().to_owned()];
        line.extend(arguments.into_iter().map(Into::into));
        let mut process = Self {
            name: name.to_owned(),
            run: run.to_owned(),
            line,
            env,
            child: None,
        };
        process.restart()?;
        Ok(process)
    }

    /// Represents a program of an existing cluster, which this process cannot control.
    pub(super) fn absent(run: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            run: run.to_owned(),
            line: Vec::new(),
            env: Vec::new(),
            child: None,
        }
    }

    /// Starts the program again with the same arguments. Kills it first if it still runs.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .with_context(|| format!("open the log of {}", self.name))?;
        let (program, arguments) = self.line.split_first().context("a process has a program")?;
        let id = self.run.file_name().unwrap_or_default();
        let child = Command::new(program)
            .args(arguments)
            // these would direct the program to the user's own cluster or proxy
            .env_remove("KUBECONFIG")
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env(MARK, id)
            .current_dir(&self.run)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    /// Returns the name under which the program was started.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path of its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.run.join("log").join(&self.name)
    }

    /// Returns its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends SIGKILL and waits for the end. Does nothing when the program does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = signal(&child, Signal::TERM);
            let _ = child.wait();
        }
    }

    /// Sends SIGSTOP: the program hangs with its sockets open.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        signal(self.child.as_ref().context("not running")?, Signal::STOP)
    }

    /// Sends SIGCONT, which ends [`Self::freeze`].
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        signal(self.child.as_ref().context("not running")?, Signal::CONT)
    }

    /// Checks that the program is running.
    ///
    /// # Errors
    /// Returns an error when the program has ended; the error quotes the end of its log.
    pub fn check(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut() else {
            return Ok(());
        };
        let Some(status) = child.try_wait()? else {
            return Ok(());
        };
        self.child = None;
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        bail!("{} ended with {status}: {}", self.name, last_lines(&log, 5));
    }

    /// Lets the program run after the end of its owner.
    pub(crate) fn release(mut self) {
        self.child = None;
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("a process id is positive")?;
    kill_process(pid, signal).context("send a signal")
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
