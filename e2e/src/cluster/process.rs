//! A process of a run: marked, with a log, in a group of its own so that Ctrl-C reaches only the owner.

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

/// A program that runs as long as the cluster does, unless a test kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    run: PathBuf,
    /// Program and arguments, to start it again.
    line: Vec<std::ffi::OsString>,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

impl Process {
    /// Starts a program; its output goes to `log/<name>` of the run in `run`.
    ///
    /// # Errors
    /// The log cannot be opened or the program not started.
    pub fn start<I, S>(run: &Path, name: &str, program: &Path, arguments: I) -> Result<Self>
    where
        I: IntoIterator<Item = S>,
        S: Into<std::ffi::OsString>,
    {
        Self::start_with(run, name, program, arguments, Vec::new())
    }

    /// [`Self::start`] with variables beside the inherited environment.
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

    /// A program that somebody else runs: nothing can be done to it.
    pub(super) fn absent(run: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            run: run.to_owned(),
            line: Vec::new(),
            env: Vec::new(),
            child: None,
        }
    }

    /// Starts the program again as it was; kills it first if it still runs.
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
            // these would send a program of ours to the user's own cluster or proxy
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

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.run.join("log").join(&self.name)
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL, and waits for the end. Nothing happens when it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = signal(&child, Signal::TERM);
            let _ = child.wait();
        }
    }

    /// SIGSTOP: it hangs, with its sockets open.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        signal(self.child.as_ref().context("not running")?, Signal::STOP)
    }

    /// SIGCONT, after [`Self::freeze`].
    ///
    /// # Errors
    /// It does not run.
    pub fn thaw(&self) -> Result<()> {
        signal(self.child.as_ref().context("not running")?, Signal::CONT)
    }

    /// Says so when the program has ended by itself.
    ///
    /// # Errors
    /// It has: the error quotes the end of its log.
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

    /// Lets it run beyond its owner.
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
