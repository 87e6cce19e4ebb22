//! OS thread that advances the epoch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

/// Handle of the thread, which ends when the handle is dropped.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    started: Instant,
    /// Time of the last epoch in microseconds after `started`.
    last: AtomicU64,
    stalls: AtomicU64,
}

/// Delay from which an epoch counts as stalled.
const STALL: Duration = Duration::from_secs(1);

impl Ticker {
    pub(super) fn start(engine: EngineWeak, tick: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            started: Instant::now(),
            last: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
        });
        let thread = std::thread::Builder::new().name("epoch".into()).spawn({
            let shared = shared.clone();
            move || run(&shared, &engine, tick)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn age(&self) -> Duration {
        let last = Duration::from_micros(self.shared.last.load(Ordering::Relaxed));
        self.shared.started.elapsed().saturating_sub(last)
    }
}

impl Ticker {
    pub(super) fn stalls(&self) -> u64 {
        self.shared.stalls.load(Ordering::Relaxed)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // a panic of the thread has been printed to stderr already
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, engine: &EngineWeak, tick: Duration) {
    while !shared.stop.load(Ordering::Relaxed) {
        std::thread::park_timeout(tick);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        engine.increment_epoch();
        let now = u64::try_from(shared.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let before = shared.last.swap(now, Ordering::Relaxed);
        if Duration::from_micros(now.saturating_sub(before)) > STALL {
            shared.stalls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use node_api::world::World;

    use super::*;
    use crate::engine::settings::{BacktraceDetail, EngineKind, base_config};

    /// FN-11: the age of the last epoch shows that the thread has stopped.
    #[test]
    fn a_stopped_thread_is_detected() {
        let kind = EngineKind::of(World::Proxy);
        let engine = wasmtime::Engine::new(&base_config(kind, BacktraceDetail::Names)).unwrap();
        let ticker = Ticker::start(engine.weak(), Duration::from_millis(1)).unwrap();
        let started = Instant::now();
        while ticker.shared.last.load(Ordering::Relaxed) == 0 {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "it never moved"
            );
            std::thread::yield_now();
        }
        // the thread ends with its engine
        drop(engine);
        while ticker.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "it never ended"
            );
            std::thread::yield_now();
        }
        let before = ticker.age();
        std::thread::sleep(Duration::from_millis(2));
        assert!(ticker.age() >= before + Duration::from_millis(2));
    }
}
