//! Measurement of the CPU time of a guest.
//!
//! Reading the CPU clock of a thread is a system call, which is too expensive for every poll of every
//! request. Polls are therefore measured with the monotonic clock, and only long ones are compared with the
//! CPU clock of the thread, whose last reading is at most [`MAX_READING_AGE`] old. If the thread was
//! preempted, the measured time is too large by at most that age.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
const MAX_READING_AGE: Duration = Duration::from_millis(2);

/// Adds up the CPU time of the polls of one future.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: Duration,
    since: Option<Instant>,
}

/// A future whose polls are measured.
pub(super) struct MeteredFuture<F> {
    pub(super) future: Pin<Box<F>>,
    pub(super) meter: Arc<CpuMeter>,
}

impl CpuMeter {
    /// Returns the CPU time so far, including the current poll.
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
        self.state.lock()
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
    /// Time and value of the last reading of this thread's CPU clock.
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

/// Returns the time since `since` without the time that this thread did not run.
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
    fn only_running_counts_as_cpu_time() {
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
