//! Keeps a fixed number of connections busy for a while (closed loop: this measures capacity, not latency
//! under a rate).

use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// The core for load; servers are pinned to the other.
pub(super) const LOAD_CORE: usize = 1;

pub(super) struct Done {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) took: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n";

pub(super) fn drive(to: SocketAddr, connections: usize, duration: Duration) -> Result<Done> {
    pin(LOAD_CORE)?;
    let start = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|_| thread::spawn(move || connection(to, start, duration)))
        .collect();
    let mut latencies = Vec::new();
    let mut failed = 0;
    for thread in threads {
        let (mut seen, bad) = thread.join().ok().context("a load thread died")??;
        latencies.append(&mut seen);
        failed += bad;
    }
    latencies.sort_unstable();
    let at = |q: f64| {
        let index = (latencies.len() as f64 * q) as usize;
        latencies.get(index).copied().unwrap_or_default()
    };
    Ok(Done {
        requests: latencies.len() as u64,
        failed,
        took: start.elapsed(),
        p50: at(0.5),
        p99: at(0.99),
    })
}

/// The threads of this process inherit it.
fn pin(core: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    // a machine with one core measures all the same, only worse
    let _ = rustix::thread::sched_setaffinity(None, &set);
    Ok(())
}

fn connection(to: SocketAddr, start: Instant, duration: Duration) -> Result<(Vec<Duration>, u64)> {
    let mut stream = TcpStream::connect(to).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut latencies, mut failed) = (Vec::with_capacity(65_536), 0);
    let mut buffer = Vec::with_capacity(4096);
    while start.elapsed() < duration {
        let sent = Instant::now();
        stream.write_all(REQUEST)?;
        failed += u64::from(!read_response(&mut stream, &mut buffer)?);
        latencies.push(sent.elapsed());
    }
    Ok((latencies, failed))
}

/// Reads one response; true when it is a 200. Knows the two framings that our servers use.
fn read_response(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<bool> {
    buffer.clear();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).context("read")?;
        buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        anyhow::ensure!(read > 0, "connection closed");
        let text = String::from_utf8_lossy(buffer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|l| {
            let (name, value) = l.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        let complete = match length {
            Some(length) => body.len() >= length,
            None => body.ends_with("0\r\n\r\n"),
        };
        if complete {
            return Ok(head.starts_with("HTTP/1.1 200"));
        }
    }
}
