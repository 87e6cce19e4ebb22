//! A running `node-shim dev`, and the lines that it writes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tempfile::TempDir;

use crate::support::node::PATIENCE;
use crate::support::program::node_shim;
use crate::support::wire::{Reply, once};

/// A folder with a manifest `f.yaml` and the files of its functions.
pub(crate) struct Project(TempDir);

impl Project {
    pub(crate) fn new(manifest: &str, files: &[(&str, &[u8])]) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        project.write("f.yaml", manifest.as_bytes());
        for (name, bytes) in files {
            project.write(name, bytes);
        }
        project
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces a file, as editors and build tools do.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let (new, path) = (self.path().join(".new"), self.path().join(name));
        fs::write(&new, bytes).unwrap();
        fs::rename(new, path).unwrap();
    }

    pub(crate) fn command(&self, flags: &[&str]) -> Command {
        self.command_on("127.0.0.1:0", flags)
    }

    fn command_on(&self, address: &str, flags: &[&str]) -> Command {
        let mut command = node_shim();
        command
            .args(["dev", "f.yaml", "--addr", address])
            .args(flags)
            .current_dir(self.path())
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Returns the message of a start that fails.
    pub(crate) fn refusal(&self, flags: &[&str]) -> String {
        let output = self.command(flags).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

pub(crate) struct Dev {
    child: Child,
    lines: Receiver<String>,
    /// Lines that were read so far, for the message of a test that fails.
    seen: Vec<String>,
}

fn forward(stream: impl Read + Send + 'static, lines: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // the test may have ended
            let _ = lines.send(line);
        }
    });
}

impl Dev {
    /// Starts the program. Lines of both of its streams are read.
    pub(crate) fn start(project: &Project, flags: &[&str]) -> Self {
        Self::run(project.command(flags))
    }

    /// Starts the program on an address.
    pub(crate) fn start_on(project: &Project, address: SocketAddr) -> Self {
        Self::run(project.command_on(&address.to_string(), &[]))
    }

    pub(crate) fn run(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        forward(child.stdout.take().unwrap(), sender.clone());
        forward(child.stderr.take().unwrap(), sender);
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// Starts the program and waits until it serves.
    pub(crate) fn serving(project: &Project, flags: &[&str]) -> (Self, SocketAddr) {
        let mut dev = Self::start(project, flags);
        let address = dev.address();
        (dev, address)
    }

    /// Waits until the program serves.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let line = self.line("Serving on http://");
        let address = line.split("http://").nth(1).unwrap().split(';').next();
        address.unwrap().parse().unwrap()
    }

    /// Waits for a line that contains `part`, and skips those before it.
    pub(crate) fn line(&mut self, part: &str) -> String {
        loop {
            let line = self.next(part);
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for a line with each of these, in any order: standard output and standard error are not in step.
    pub(crate) fn lines(&mut self, parts: &[&str]) {
        let mut missing = parts.to_vec();
        while let Some(first) = missing.first() {
            let line = self.next(first);
            missing.retain(|part| !line.contains(part));
        }
    }

    fn next(&mut self, part: &str) -> String {
        let Ok(line) = self.lines.recv_timeout(PATIENCE * 2) else {
            panic!("no line has {part:?}: {:#?}", self.seen);
        };
        self.seen.push(line.clone());
        line
    }

    /// Returns the lines that were read so far.
    pub(crate) fn seen(&self) -> &[String] {
        &self.seen
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn interrupt(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a GET request with this `Host`.
pub(crate) fn get_from(address: SocketAddr, host: &str, path: &str) -> Reply {
    once(
        address,
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
    )
}
