//! Open-loop load generator: it sends requests on a fixed schedule, whether or not earlier ones were answered.
//!
//! Latency is measured from the scheduled time of a request, so a stall of the server (or of this machine) affects
//! every request that should have been sent during it. During a stall, requests wait for one of a bounded number of
//! connections, as those of a proxy do. All responses are recorded, up to a limit.

mod sample;

pub use sample::{Arm, Sample, Samples, quantile};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request, header::HOST};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc};

/// Requests to send.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Number of requests per second, over all targets.
    pub rate: u32,
    /// Addresses to which requests are sent in turn.
    pub targets: Vec<SocketAddr>,
    /// Method of the requests, which have no body.
    pub method: Method,
    /// Value of the header `host`.
    pub host: String,
    /// Path and query of the requests.
    pub path: String,
    /// Time after which a request without a complete response counts as failed.
    pub timeout: Duration,
}

/// Maximum number of requests in flight. Further ones are not sent and count as failures ([`sample::OVERRUN`]).
const IN_FLIGHT: usize = 2048;

/// Time after which an idle connection is closed. It must be shorter than the limit of the server (60 s in the
/// node-shim); otherwise requests are sent on connections that are being closed.
const IDLE: Duration = Duration::from_secs(20);

/// Maximum number of requests that one target has at the same time. Further ones wait here, which counts as their latency.
/// A node serves 256 connections of one address, and all generators of this machine have the same one: without a limit, a
/// stall of a second opens more.
const AT_ONCE: usize = 32;

/// Maximum number of idle connections to a target.
const MAX_IDLE: usize = 16;

/// A running load generator. It stops when it is dropped.
#[derive(Debug)]
pub struct Load {
    samples: Arc<Samples>,
    stop: Arc<AtomicBool>,
    due: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts sending on its own thread and runtime, so that reading the results does not disturb it.
    ///
    /// # Errors
    /// Returns an error when the thread cannot be started, or there is no target or the rate is 0.
    pub fn start(plan: Plan) -> Result<Self> {
        anyhow::ensure!(
            plan.rate > 0 && !plan.targets.is_empty(),
            "load needs a rate and a target"
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make the generator's runtime")?;
        let samples = Arc::new(Samples::new(Instant::now()));
        let (stop, due) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let run = Generator {
            plan: Arc::new(plan),
            samples: samples.clone(),
            stop: stop.clone(),
            due: due.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("load".into())
            .spawn(move || runtime.block_on(run.send()))
            .context("start the generator")?;
        Ok(Self {
            samples,
            stop,
            due,
            thread: Some(thread),
        })
    }

    /// Returns the measurements so far.
    #[must_use]
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Returns the number of requests scheduled so far.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.due.load(Ordering::Relaxed)
    }

    /// Stops sending and waits for the responses to requests in flight.
    #[must_use]
    pub fn finish(mut self) -> Arc<Samples> {
        self.end();
        self.samples.clone()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

struct Generator {
    plan: Arc<Plan>,
    samples: Arc<Samples>,
    stop: Arc<AtomicBool>,
    due: Arc<AtomicU64>,
}

type Http = Client<HttpConnector, Empty<Bytes>>;

impl Generator {
    async fn send(self) {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http: Http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        let places: Vec<_> = self
            .plan
            .targets
            .iter()
            .map(|_| Arc::new(Semaphore::new(AT_ONCE)))
            .collect();
        // every task holds a sender, so the channel ends with the last response
        let (under_way, mut answered) = mpsc::channel::<()>(1);
        let begin = self.samples.begin();
        let mut number = 0_u64;
        while !self.stop.load(Ordering::Relaxed) {
            let due = begin + Duration::from_secs_f64(number as f64 / f64::from(self.plan.rate));
            tokio::time::sleep_until(due.into()).await;
            let target = (number % self.plan.targets.len() as u64) as usize;
            self.due.fetch_add(1, Ordering::Relaxed);
            number += 1;
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                self.samples
                    .add(Sample::failed(begin, due, target, sample::OVERRUN));
                continue;
            };
            let (plan, samples, http) = (self.plan.clone(), self.samples.clone(), http.clone());
            let under_way = under_way.clone();
            let place = places.get(target).cloned();
            tokio::spawn(async move {
                let asked = tokio::time::timeout_at((due + plan.timeout).into(), async {
                    let _place = place
                        .context("a target by its number")?
                        .acquire_owned()
                        .await?;
                    ask(&http, &plan, target).await
                });
                let sample = match asked.await {
                    Ok(Ok((status, version))) => {
                        let version = samples.version(&version);
                        Sample::answered(begin, due, target, status, version)
                    }
                    Ok(Err(_)) => Sample::failed(begin, due, target, sample::BROKEN),
                    Err(_) => Sample::failed(begin, due, target, sample::LATE),
                };
                samples.add(sample);
                drop((permit, under_way));
            });
        }
        drop(under_way);
        let _ = answered.recv().await;
    }
}

/// Sends a request and returns status and version of the response once its body is complete.
async fn ask(http: &Http, plan: &Plan, target: usize) -> Result<(u16, String)> {
    let address = plan.targets.get(target).context("a target by its number")?;
    let request = Request::builder()
        .method(plan.method.clone())
        .uri(format!("http://{address}{}", plan.path))
        .header(HOST, &plan.host)
        .body(Empty::new())?;
    let response = http.request(request).await?;
    let status = response.status().as_u16();
    let version = response
        .headers()
        .get("x-version")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut body = response.into_body();
    // frames are dropped as they arrive, so a long body needs no memory
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok((status, version.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    /// Accepts `count` connections and answers every request with `answer`.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn plan(target: SocketAddr, timeout: Duration) -> Plan {
        Plan {
            rate: 200,
            targets: vec![target],
            method: Method::GET,
            host: "hello.example".into(),
            path: "/".into(),
            timeout,
        }
    }

    fn run(plan: Plan, requests: u64) -> Arc<Samples> {
        let load = Load::start(plan).unwrap();
        while load.due() < requests {
            std::thread::yield_now();
        }
        load.finish()
    }

    #[test]
    fn every_request_is_recorded_with_status_and_version() {
        let target = server("HTTP/1.1 500 Oh\r\nx-version: v3\r\ncontent-length: 2\r\n\r\nno");
        let samples = run(plan(target, Duration::from_secs(10)), 50);
        let v3 = samples.arm("v3", ..);
        assert!(v3.requests >= 50, "{v3:?}");
        assert_eq!(v3.failed, v3.requests);
        assert_eq!(samples.arm("v1", ..).requests, 0);
    }

    #[test]
    fn nobody_listening_is_a_failure_without_version() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let samples = run(plan(target, Duration::from_secs(10)), 20);
        let none = samples.arm("", ..);
        assert!(none.failed >= 20, "{none:?}");
    }

    #[test]
    fn a_stall_of_the_server_opens_a_bounded_number_of_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let opened = Arc::new(AtomicU64::new(0));
        // the server answers when the test has released it
        let turn = Arc::new(std::sync::RwLock::new(()));
        let (count, answers) = (opened.clone(), turn.clone());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let answers = answers.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                        drop(answers.read());
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        if stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let stall = turn.write().unwrap();
        let load = Load::start(plan(target, Duration::from_secs(60))).unwrap();
        while load.due() < 3 * AT_ONCE as u64 {
            std::thread::yield_now();
        }
        let during_the_stall = opened.load(Ordering::SeqCst);
        drop(stall);
        let all = load.finish().arm("", ..);
        assert!(during_the_stall <= AT_ONCE as u64, "{during_the_stall}");
        assert!(all.requests >= 3 * AT_ONCE as u64, "{all:?}");
        assert_eq!(all.failed, 0, "{all:?}");
    }

    #[test]
    fn requests_leave_although_none_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let samples = run(
            plan(listener.local_addr().unwrap(), Duration::from_millis(200)),
            60,
        );
        let none = samples.arm("", ..);
        assert!(none.failed >= 60, "{none:?}");
        assert!(none.p50 >= Duration::from_millis(200), "{none:?}");
    }
}
