//! The servers under measurement: child processes pinned to one core, and their CPU time.

use super::load::LOAD_CORE;
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const SERVER_CORE: usize = 1 - LOAD_CORE;

pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    /// This program again, as the bare server.
    pub(super) fn bare() -> Result<Self> {
        let own = std::env::current_exe()?;
        Self::start(
            Command::new("taskset")
                .arg("-c")
                .arg(SERVER_CORE.to_string())
                .arg(own)
                .arg("bare"),
        )
    }

    /// This program again, as the smallest host of a component.
    pub(super) fn reference(guest: &Path) -> Result<Self> {
        Self::start(
            Command::new("taskset")
                .arg("-c")
                .arg(SERVER_CORE.to_string())
                .arg(std::env::current_exe()?)
                .arg("reference")
                .arg(guest),
        )
    }

    pub(super) fn shim(program: &Path, guest: &Path) -> Result<Self> {
        Self::start(
            Command::new("taskset")
                .arg("-c")
                .arg(SERVER_CORE.to_string())
                .arg(program)
                .args(["serve", "--addr", "127.0.0.1:0"])
                .arg(guest),
        )
    }

    /// Both print one line with `http://ADDR` on stderr once they listen.
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
            .find_map(|line| line.ok()?.split_once("http://")?.1.trim().parse().ok())
            .context("the server ended before it listened")?;
        // what it says later must not fill the pipe
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    /// User and system time so far, all threads.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').context("stat")?.1;
        let mut fields = after_name.split_whitespace().skip(11);
        let mut ticks = || {
            fields
                .next()
                .and_then(|t| t.parse::<u64>().ok())
                .context("stat")
        };
        let (user, system) = (ticks()?, ticks()?);
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs_f64(
            (user + system) as f64 / per_second as f64,
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves what the example component answers, with nothing in between.
///
/// # Errors
/// The address cannot be bound.
pub(crate) async fn run_bare(say: impl FnOnce(SocketAddr)) -> Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    say(listener.local_addr()?);
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
