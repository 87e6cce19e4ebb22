//! The measured servers: child processes pinned to one core, and their CPU time.

use super::load::LOAD_CORE;
use crate::cpu_time;
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const SERVER_CORE: usize = 1 - LOAD_CORE;

/// Cores of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The core that the load generator does not use.
    OneCore,
    /// Any of them.
    AllCores,
}

impl Place {
    fn command(self, program: &Path) -> Command {
        match self {
            Self::OneCore => {
                let mut pinned = Command::new("taskset");
                pinned.arg("-c").arg(SERVER_CORE.to_string()).arg(program);
                pinned
            }
            Self::AllCores => Command::new(program),
        }
    }
}

pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts this program as the bare server.
    pub(super) fn bare() -> Result<Self> {
        let own = std::env::current_exe()?;
        Self::start(Place::OneCore.command(&own).arg("bare"))
    }

    /// Starts this program as the minimal host of a component.
    pub(super) fn reference(guest: &Path) -> Result<Self> {
        let own = std::env::current_exe()?;
        Self::start(Place::OneCore.command(&own).arg("reference").arg(guest))
    }

    /// Starts the node-shim. The CPU limit of a request is high, because a busy machine is slow.
    pub(super) fn shim(
        program: &Path,
        options: &[&str],
        guest: &Path,
        place: Place,
    ) -> Result<Self> {
        Self::start(
            place
                .command(program)
                .args(["serve", "--addr", "127.0.0.1:0", "--cpu", "5000"])
                .args(options)
                .arg(guest),
        )
    }

    /// Starts `wasmtime serve`.
    pub(super) fn wasmtime(
        program: &Path,
        options: &[&str],
        guest: &Path,
        place: Place,
    ) -> Result<Self> {
        Self::start(
            place
                .command(program)
                .args(["serve", "--addr", "127.0.0.1:0", "-Scli", "-Sconfig"])
                .args(options)
                .arg(guest),
        )
    }

    /// Starts a server. Every server prints a line with `http://ADDR` to stderr once it listens.
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {command:?}"))?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let address = lines
            .by_ref()
            .find_map(|line| {
                let line = line.ok()?;
                let (_, address) = line.split_once("http://")?;
                address.trim().trim_end_matches('/').parse().ok()
            })
            .context("the server exited before it listened")?;
        // later output must not fill the pipe
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    /// Returns the user and system time of all threads so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        cpu_time::of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the response of the example component directly from hyper.
///
/// # Errors
/// Returns an error when the address cannot be bound.
pub(crate) async fn run_bare(announce: impl FnOnce(SocketAddr)) -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let answer = service_fn(async |_request| {
            let response = Response::builder()
                .header("content-type", "text/plain")
                .header("x-version", "v1")
                .body(Full::new(Bytes::from_static(b"hello from v1\n")));
            Ok::<_, Infallible>(response.unwrap_or_default())
        });
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}
