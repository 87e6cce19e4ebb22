//! Permits of one revision: how many requests run at once and how many may wait, first come, first
//! served. A permit travels with the guest and comes back when the guest ends.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use node_shim_core::outcome::FailureReason;
use tokio::sync::oneshot;

use crate::counters::RevisionCounters;

/// The permits of one revision.
pub(crate) struct ConcurrencyLimit {
    state: Mutex<State>,
    counters: Arc<RevisionCounters>,
}

struct State {
    limit: u32,
    in_use: u32,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// The right to run one guest; given back when dropped.
pub(crate) struct Permit {
    /// `None` once given on to a waiter.
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

    /// More go to the first in the queue at once; fewer come about as permits are given back.
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

    /// Takes a permit or waits for one.
    ///
    /// # Errors
    /// `Concurrency` when there is no queue, `Queue` when it is full or the wait was too long.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        queue: u32,
        wait: Duration,
    ) -> Result<Permit, FailureReason> {
        let turn = {
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
            // those that gave up leave their place when the queue is next looked at
            state.waiting.retain(|waiter| !waiter.is_closed());
            if state.waiting.len() >= queue as usize {
                return Err(FailureReason::Queue);
            }
            let (waiter, turn) = oneshot::channel();
            state.waiting.push_back(waiter);
            turn
        };
        let _queued = Queued::new(&self.counters);
        match tokio::time::timeout(wait, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(FailureReason::Queue),
        }
    }

    /// Gives a permit that is already counted as taken to a waiter, or takes it back.
    fn hand_over(self: &Arc<Self>, state: &mut State, waiter: oneshot::Sender<Permit>) {
        match waiter.send(Permit {
            owner: Some(self.clone()),
        }) {
            Ok(()) => {
                self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
            }
            Err(mut unwanted) => {
                // dropping it would lock again
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(owner) = self.owner.take() {
            owner.release();
        }
    }
}

/// Counts one waiting request for as long as it waits, however the wait ends.
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
    async fn a_waiter_that_left_loses_no_permit() {
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
    async fn waiting_ends_in_time() {
        let permits = permits(0);
        let error = permits.acquire(5, Duration::from_millis(10)).await.err();
        assert_eq!(error, Some(FailureReason::Queue));
    }

    #[tokio::test(start_paused = true)]
    async fn resizing_lets_waiters_in_and_never_takes_back() {
        let permits = permits(0);
        let mut waiter = pin!(permits.acquire(1, LONG));
        assert!(poll(waiter.as_mut()).is_pending());
        permits.set_limit(1);
        let Poll::Ready(Ok(permit)) = poll(waiter.as_mut()) else {
            panic!("let in")
        };
        permits.set_limit(0);
        drop(permit);
        assert_eq!(
            permits.acquire(0, LONG).await.err(),
            Some(FailureReason::Concurrency)
        );
    }
}
