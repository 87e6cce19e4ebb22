//! Concurrency limit of one revision: a bounded number of requests run at the same time, and a bounded
//! number of requests wait in a first-in, first-out queue. A request holds its permit until its guest has
//! ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node_shim_core::failure_reason::FailureReason;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::counters::RevisionCounters;

/// Limits the concurrent requests of one revision.
pub(crate) struct ConcurrencyLimit {
    state: Mutex<State>,
    counters: Arc<RevisionCounters>,
}

struct State {
    limit: u32,
    in_use: u32,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// The right to run one guest; returned when dropped.
pub(crate) struct Permit {
    /// `None` when the permit must not be returned.
    owner: Option<Arc<ConcurrencyLimit>>,
}

impl ConcurrencyLimit {
    pub(crate) fn new(limit: u32, counters: Arc<RevisionCounters>) -> Arc<Self> {
        let state = State {
            limit,
            in_use: 0,
            waiting: VecDeque::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            counters,
        })
    }

    /// Changes the limit. Additional permits go to waiting requests at once; a lower limit takes effect as
    /// permits are returned.
    pub(crate) fn set_limit(self: &Arc<Self>, limit: u32) {
        let mut state = self.lock();
        state.limit = limit;
        while state.in_use < state.limit {
            let Some(waiter) = state.waiting.pop_front() else {
                break;
            };
            state.in_use += 1;
            self.hand_over(&mut state, waiter);
        }
    }

    /// Acquires a permit. Waits for at most `wait` when fewer than `queue` requests are waiting.
    ///
    /// # Errors
    /// Returns `Concurrency` when `queue` is 0, and `Queue` when the queue is full or `wait` has elapsed.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        queue: u32,
        wait: Duration,
    ) -> Result<Permit, FailureReason> {
        let receiver = {
            let mut state = self.lock();
            if state.in_use < state.limit && state.waiting.is_empty() {
                state.in_use += 1;
                self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
                return Ok(Permit {
                    owner: Some(self.clone()),
                });
            }
            if queue == 0 {
                return Err(FailureReason::Concurrency);
            }
            // requests that gave up are removed from the queue here
            state.waiting.retain(|waiter| !waiter.is_closed());
            if state.waiting.len() >= queue as usize {
                return Err(FailureReason::Queue);
            }
            let (waiter, receiver) = oneshot::channel();
            state.waiting.push_back(waiter);
            receiver
        };
        let _queued = Queued::new(&self.counters);
        match tokio::time::timeout(wait, receiver).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(FailureReason::Queue),
        }
    }

    /// Hands a permit that already counts as in use to a waiting request, or returns it when that
    /// request has given up.
    fn hand_over(self: &Arc<Self>, state: &mut State, waiter: oneshot::Sender<Permit>) {
        match waiter.send(Permit {
            owner: Some(self.clone()),
        }) {
            Ok(()) => {
                self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
            }
            Err(mut unwanted) => {
                // dropping the permit with its owner would lock the mutex again
                unwanted.owner = None;
                state.in_use -= 1;
            }
        }
    }

    fn release(self: &Arc<Self>) {
        let mut state = self.lock();
        state.in_use = state.in_use.saturating_sub(1);
        self.counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        while state.in_use < state.limit {
            let Some(waiter) = state.waiting.pop_front() else {
                break;
            };
            state.in_use += 1;
            self.hand_over(&mut state, waiter);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            owner.release();
        }
    }
}

/// Counts a request as queued until dropped.
struct Queued<'a>(&'a RevisionCounters);

impl<'a> Queued<'a> {
    fn new(counters: &'a RevisionCounters) -> Self {
        counters.queued.fetch_add(1, Ordering::Relaxed);
        Self(counters)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use node_shim_core::table::{FunctionKey, RevisionName};

    use super::*;
    use crate::counters::CounterTable;

    const LONG: Duration = Duration::from_secs(3600);

    fn permits(limit: u32) -> Arc<ConcurrencyLimit> {
        let function = FunctionKey::new("ns", "f");
        let counters = CounterTable::new().revision(&function, &RevisionName::new("r").unwrap());
        ConcurrencyLimit::new(limit, counters)
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_first_come_first_served_and_bounded() {
        let permits = permits(1);
        let held = permits
            .acquire(2, LONG)
            .await
            .unwrap_or_else(|_| panic!("free"));
        let mut first = pin!(permits.acquire(2, LONG));
        let mut second = pin!(permits.acquire(2, LONG));
        assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
        assert_eq!(
            permits.acquire(2, LONG).await.err(),
            Some(FailureReason::Queue)
        );
        assert_eq!(
            permits.acquire(0, LONG).await.err(),
            Some(FailureReason::Concurrency)
        );
        drop(held);
        assert!(poll(second.as_mut()).is_pending());
        let Poll::Ready(Ok(got)) = poll(first.as_mut()) else {
            panic!("first in the queue")
        };
        drop(got);
        assert!(matches!(poll(second.as_mut()), Poll::Ready(Ok(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_waiter_does_not_leak_a_permit() {
        let permits = permits(1);
        let held = permits.acquire(2, LONG).await;
        {
            let mut gone = pin!(permits.acquire(2, LONG));
            assert!(poll(gone.as_mut()).is_pending());
        }
        drop(held);
        assert!(permits.acquire(0, LONG).await.is_ok());
        assert_eq!(permits.lock().in_use, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_is_bounded() {
        let permits = permits(0);
        let error = permits.acquire(5, Duration::from_millis(10)).await.err();
        assert_eq!(error, Some(FailureReason::Queue));
    }

    #[tokio::test(start_paused = true)]
    async fn a_higher_limit_admits_waiters_and_a_lower_one_keeps_permits() {
        let permits = permits(0);
        let mut waiter = pin!(permits.acquire(1, LONG));
        assert!(poll(waiter.as_mut()).is_pending());
        permits.set_limit(1);
        let Poll::Ready(Ok(permit)) = poll(waiter.as_mut()) else {
            panic!("admitted")
        };
        permits.set_limit(0);
        drop(permit);
        assert_eq!(
            permits.acquire(0, LONG).await.err(),
            Some(FailureReason::Concurrency)
        );
    }
}
