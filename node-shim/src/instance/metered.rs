//! The CPU account of one guest.
//!
//! Reading a thread's CPU clock is a system call, too dear for every poll of every request. So
//! polls are billed by the monotonic clock, and only one that took long is compared with the CPU
//! clock of the thread, whose last reading is never older than `STALE`. A guest whose worker was
//! taken off the processor is thus billed at most `STALE` too much.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

const MAX_READING_AGE: Duration = Duration::from_millis(2);

/// Adds up what polls of one future cost.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: Duration,
    since: Option<Instant>,
}

/// A future whose polls are billed.
pub(super) struct MeteredFuture<F> {
    pub(super) future: Pin<Box<F>>,
    pub(super) meter: Arc<CpuMeter>,
}

impl CpuMeter {
    /// CPU time so far, the running poll included.
    pub(crate) fn used(&self) -> Duration {
        let state = self.lock();
        state.used + state.since.map_or(Duration::ZERO, cost)
    }

    fn begin(&self) {
        let now = Instant::now();
        refresh(now);
        self.lock().since = Some(now);
    }

    fn end(&self) {
        let mut state = self.lock();
        if let Some(since) = state.since.take() {
            state.used += cost(since);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future> Future for MeteredFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.meter.begin();
        let poll = this.future.as_mut().poll(cx);
        this.meter.end();
        poll
    }
}

thread_local! {
    /// When this thread's CPU clock was last read, and what it showed.
    static READING: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

fn refresh(now: Instant) {
    let fresh = READING
        .get()
        .is_some_and(|(at, _)| now.duration_since(at) < MAX_READING_AGE);
    if !fresh {
        READING.set(Some((now, thread_cpu())));
    }
}

/// What has passed since `since`, without the time this thread did not run.
fn cost(since: Instant) -> Duration {
    let wall = since.elapsed();
    match READING.get() {
        Some((_, before)) if wall > MAX_READING_AGE => {
            wall.min(thread_cpu().saturating_sub(before))
        }
        _ => wall,
    }
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_costs_nothing_and_work_does() {
        let meter = CpuMeter::default();
        meter.begin();
        std::thread::sleep(Duration::from_millis(50));
        meter.end();
        assert!(
            meter.used() < Duration::from_millis(20),
            "{:?}",
            meter.used()
        );

        let meter = CpuMeter::default();
        meter.begin();
        let start = thread_cpu();
        while thread_cpu() - start < Duration::from_millis(10) {}
        assert!(
            meter.used() >= Duration::from_millis(9),
            "{:?}",
            meter.used()
        );
    }
}
