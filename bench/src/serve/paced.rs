//! Open-loop load generator: requests arrive at random times at a given rate, whether or not earlier ones have a response.
//! It measures latency, and counts the time that a request waits for a free connection.

use super::load::{Connection, pin};
use anyhow::{Context, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// Number of connections. A server below its capacity has fewer requests in progress.
const CONNECTIONS: usize = 64;
/// Time that responses may take after the last arrival.
const PATIENCE: Duration = Duration::from_secs(10);
/// The arrivals of every measurement are the same.
const SEED: u64 = 20_261_201;

/// The host of a virtual machine stops it now and then for milliseconds, and the requests of that time wait for each other. So
/// the latency is measured in short windows, of which few have such a stop, and the median window counts.
const WINDOW: Duration = Duration::from_millis(100);
/// Minimum number of requests in a window; with fewer, its 99th percentile is not meaningful.
const ENOUGH: usize = 100;

/// Latency of a server at a given rate, from the arrival of a request to its complete response.
#[derive(Clone, Copy)]
pub(super) struct Latency {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

/// Sends requests for `duration` from one thread that polls its sockets continuously on `core`. Returns the latency in each window
/// that has enough requests, and none when the server or the generator does not keep up with the rate.
///
/// # Errors
/// Returns an error when a response is not 200 or does not come.
pub(super) fn drive(
    to: SocketAddr,
    per_second: f64,
    duration: Duration,
    core: Option<usize>,
) -> Result<Vec<Latency>> {
    let driven = thread::spawn(move || {
        if let Some(core) = core {
            pin(core);
        }
        spin(to, per_second, duration)
    });
    let requests = driven.join().ok().context("the load generator died")??;
    Ok(windows(requests))
}

/// Returns the median of the 50th percentiles and that of the 99th, or `None` without windows.
pub(super) fn median(windows: &[Latency]) -> Option<Latency> {
    let of = |value: fn(&Latency) -> Duration| {
        let mut all: Vec<_> = windows.iter().map(value).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    Some(Latency {
        p50: of(|window| window.p50)?,
        p99: of(|window| window.p99)?,
    })
}

/// `requests` has the arrival of each, from the start, and its latency.
fn windows(requests: Vec<(Duration, Duration)>) -> Vec<Latency> {
    let mut by_window: BTreeMap<u128, Vec<Duration>> = BTreeMap::new();
    for (arrived, latency) in requests {
        let window = arrived.as_nanos() / WINDOW.as_nanos();
        by_window.entry(window).or_default().push(latency);
    }
    let measured = by_window.into_values().filter_map(|mut latencies| {
        latencies.sort_unstable();
        let at = |q: f64| {
            latencies
                .get((latencies.len() as f64 * q) as usize)
                .copied()
        };
        (latencies.len() >= ENOUGH).then_some(Latency {
            p50: at(0.5)?,
            p99: at(0.99)?,
        })
    });
    measured.collect()
}

fn spin(to: SocketAddr, per_second: f64, duration: Duration) -> Result<Vec<(Duration, Duration)>> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut free = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        free.push(Connection::open(to, true)?);
    }
    let mut busy: Vec<Connection> = Vec::with_capacity(CONNECTIONS);
    let (mut waiting, mut requests) = (VecDeque::new(), Vec::with_capacity(1 << 20));
    let start = Instant::now();
    let mut next = start;
    // requests that have arrived by the end are waited for, because those in progress then are the slow ones
    while start.elapsed() < duration || !waiting.is_empty() || !busy.is_empty() {
        while next <= Instant::now() && next - start < duration {
            waiting.push_back(next);
            let gap = -random.random::<f64>().max(1e-9).ln();
            next += Duration::from_secs_f64(gap / per_second);
        }
        ensure!(
            start.elapsed() < duration + PATIENCE,
            "a request has no response"
        );
        // a second of requests: their latency would be that of the queue
        if waiting.len() as f64 > per_second {
            return Ok(Vec::new());
        }
        while let Some(arrived) = waiting.front().copied() {
            let Some(mut connection) = free.pop() else {
                break;
            };
            waiting.pop_front();
            connection.ask()?;
            connection.sent = arrived;
            busy.push(connection);
        }
        let mut at = 0;
        while let Some(connection) = busy.get_mut(at) {
            let Some(good) = connection.answer()? else {
                at += 1;
                continue;
            };
            ensure!(good, "a response was not 200");
            let arrived = connection.sent - start;
            requests.push((arrived, connection.sent.elapsed()));
            free.push(busy.swap_remove(at));
        }
    }
    Ok(requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_of_the_machine_is_in_one_window_only() {
        let request = |at: u64, micros| (Duration::from_millis(at), Duration::from_micros(micros));
        let quiet = (0..900).map(|at| request(at, 50 + at % 10));
        let stopped = (900..1000).map(|at| request(at, 9000));
        let rest = (1000..1050).map(|at| request(at, 7000));
        let windows = windows(quiet.chain(stopped).chain(rest).collect());
        assert_eq!(windows.len(), 10, "the last one has too few requests");
        let median = median(&windows).unwrap();
        assert_eq!((median.p50.as_micros(), median.p99.as_micros()), (55, 59));
        assert!(super::median(&[]).is_none());
    }
}
