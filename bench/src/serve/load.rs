//! Closed-loop load generator: keeps a fixed number of connections busy. It measures capacity, not latency at a
//! given rate, which `paced` does.

use anyhow::{Context, Result};
use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// CPU core of the load generator, unless it may use all of them. Servers are pinned to the other core.
pub(super) const LOAD_CORE: usize = 1;

/// How the generator waits for responses. In a virtual machine, a response that wakes a sleeping client costs the
/// *server* an inter-processor interrupt of tens of microseconds, so servers that respond one by one look worse than
/// they are. The CPU time measured while spinning is the meaningful one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Waiting {
    /// One thread that polls all its sockets continuously
    Spinning,
    /// One thread per connection that sleeps until the response arrives
    Sleeping,
}

pub(super) struct Done {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) took: Duration,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n";

/// Sends requests for `duration`. `core` is the only one that the generator uses.
pub(super) fn drive(
    to: SocketAddr,
    connections: usize,
    duration: Duration,
    waiting: Waiting,
    core: Option<usize>,
) -> Result<Done> {
    // a thread of its own: servers that this process starts later inherit the cores of the thread that starts them
    let driven = thread::spawn(move || {
        if let Some(core) = core {
            pin(core);
        }
        let start = Instant::now();
        let seen = match waiting {
            Waiting::Spinning => spin(to, connections, start, duration),
            Waiting::Sleeping => sleep(to, connections, start, duration),
        };
        (seen, start.elapsed())
    });
    let (seen, took) = driven.join().ok().context("the load generator died")?;
    let (mut latencies, failed) = seen?;
    latencies.sort_unstable();
    let at = |q: f64| {
        let index = (latencies.len() as f64 * q) as usize;
        latencies.get(index).copied().unwrap_or_default()
    };
    Ok(Done {
        requests: latencies.len() as u64,
        failed,
        took,
        p50: at(0.5),
        p99: at(0.99),
    })
}

/// Pins this thread, and the threads it starts, to a CPU core.
pub(super) fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    // on a machine with one core, the measurement is less precise
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

fn spin(
    to: SocketAddr,
    connections: usize,
    start: Instant,
    duration: Duration,
) -> Result<(Vec<Duration>, u64)> {
    let mut all = Vec::with_capacity(connections);
    for _ in 0..connections {
        all.push(Connection::open(to, true)?);
    }
    let (mut latencies, mut failed) = (Vec::with_capacity(1 << 20), 0);
    for connection in &mut all {
        connection.ask()?;
    }
    while start.elapsed() < duration {
        for connection in &mut all {
            if let Some(good) = connection.answer()? {
                latencies.push(connection.sent.elapsed());
                failed += u64::from(!good);
                connection.ask()?;
            }
        }
    }
    Ok((latencies, failed))
}

fn sleep(
    to: SocketAddr,
    connections: usize,
    start: Instant,
    duration: Duration,
) -> Result<(Vec<Duration>, u64)> {
    let one = move || -> Result<(Vec<Duration>, u64)> {
        let mut connection = Connection::open(to, false)?;
        let (mut latencies, mut failed) = (Vec::with_capacity(1 << 16), 0);
        while start.elapsed() < duration {
            connection.ask()?;
            let good = loop {
                if let Some(good) = connection.answer()? {
                    break good;
                }
            };
            latencies.push(connection.sent.elapsed());
            failed += u64::from(!good);
        }
        Ok((latencies, failed))
    };
    let threads: Vec<_> = (0..connections).map(|_| thread::spawn(one)).collect();
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for thread in threads {
        let (mut seen, bad) = thread.join().ok().context("a load thread died")??;
        latencies.append(&mut seen);
        failed += bad;
    }
    Ok((latencies, failed))
}

pub(super) struct Connection {
    to: SocketAddr,
    stream: TcpStream,
    nonblocking: bool,
    /// Whether the server has announced that it closes the connection.
    closing: bool,
    pub(super) sent: Instant,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn open(to: SocketAddr, nonblocking: bool) -> Result<Self> {
        let stream = TcpStream::connect(to).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nonblocking(nonblocking)?;
        Ok(Self {
            to,
            stream,
            nonblocking,
            closing: false,
            sent: Instant::now(),
            buffer: Vec::with_capacity(4096),
        })
    }

    pub(super) fn ask(&mut self) -> Result<()> {
        if self.closing {
            *self = Self::open(self.to, self.nonblocking)?;
        }
        self.buffer.clear();
        self.sent = Instant::now();
        self.stream.write_all(REQUEST).context("write")
    }

    /// Reads once. Returns whether the response is a 200 when it is complete, else `None`.
    pub(super) fn answer(&mut self) -> Result<Option<bool>> {
        let mut chunk = [0; 4096];
        let read = match self.stream.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // a blocking socket returns this error when its read timeout elapses
                anyhow::ensure!(
                    self.sent.elapsed() < Duration::from_secs(10),
                    "no response within 10 s"
                );
                return Ok(None);
            }
            Err(error) => return Err(error).context("read"),
        };
        anyhow::ensure!(read > 0, "the server closed the connection");
        self.buffer
            .extend_from_slice(chunk.get(..read).unwrap_or_default());
        if !complete(&self.buffer) {
            return Ok(None);
        }
        self.closing = position(&self.buffer, b"connection: close\r\n").is_some();
        Ok(Some(self.buffer.starts_with(b"HTTP/1.1 200")))
    }
}

/// Returns whether a response is complete. Supports the two framings that the measured servers use.
pub(crate) fn complete(answer: &[u8]) -> bool {
    let Some(end) = position(answer, b"\r\n\r\n") else {
        return false;
    };
    let (head, body) = answer.split_at(end + 4);
    match position(head, b"content-length: ") {
        Some(at) => {
            let digits = head.get(at + 16..).unwrap_or_default();
            let length = digits
                .iter()
                .take_while(|b| b.is_ascii_digit())
                .fold(0, |sum, b| sum * 10 + usize::from(b - b'0'));
            body.len() >= length
        }
        None => body.ends_with(b"0\r\n\r\n"),
    }
}

fn position(within: &[u8], what: &[u8]) -> Option<usize> {
    within.windows(what.len()).position(|part| part == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_complete_by_length_or_last_chunk() {
        for (answer, whole) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], false),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhello", false),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-y: 7\r\n\r\nhello",
                true,
            ),
            (b"HTTP/1.1 200 OK\r\n\r\n5\r\nhello\r\n", false),
            (b"HTTP/1.1 200 OK\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true),
        ] {
            assert_eq!(complete(answer), whole, "{}", answer.escape_ascii());
        }
    }
}
