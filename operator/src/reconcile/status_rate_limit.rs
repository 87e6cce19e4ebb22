//! The rate limit of the status writes that report the progress of nodes with functions at rest, on the clock of this process.

use std::time::Duration;

use operator_core::status_rate::{Admission, FunctionLimit, NodeStatusChange, StatusRateLimiter};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The limiter that all functions share.
#[derive(Debug)]
pub struct StatusRateLimit {
    origin: Instant,
    limiter: Mutex<StatusRateLimiter>,
}

/// Answer of the limiter; see [`Admission`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// There is nothing to write.
    Idle,
    /// The function may write now.
    Write,
    /// The function has to ask again at this time, and no earlier.
    Wait(Instant),
}

impl Default for StatusRateLimit {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            limiter: Mutex::default(),
        }
    }
}

impl StatusRateLimit {
    /// Decides whether a function may write the difference `change` now.
    pub(super) fn admit(&self, function: &mut FunctionLimit, change: NodeStatusChange) -> Admitted {
        match self.limiter.lock().admit(function, change, self.now()) {
            Admission::Idle => Admitted::Idle,
            Admission::Write => Admitted::Write,
            Admission::Wait(until) => Admitted::Wait(self.origin + until),
        }
    }

    /// Notes that the status is written for another reason, which includes the progress of the nodes.
    pub(super) fn carried(&self, function: &mut FunctionLimit) {
        self.limiter.lock().carried(function);
    }

    /// Gives the reservation of a function back that needs it no longer.
    pub(super) fn cancel(&self, function: &mut FunctionLimit) {
        self.limiter.lock().cancel(function);
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use operator_core::status_rate::PER_SECOND;

    use super::*;
    use crate::queue::{Class, Queue};
    use crate::watch::ObjectKey;

    const FUNCTIONS: usize = 2_000;
    const WORKERS: usize = 6;

    /// Turns of each function and writes of all, as the workers do them.
    #[derive(Default)]
    struct Played {
        turns: BTreeMap<ObjectKey, (usize, FunctionLimit)>,
        writes: Vec<Instant>,
    }

    async fn work(queue: Queue, limiter: Arc<StatusRateLimit>, played: Arc<Mutex<Played>>) {
        loop {
            let turn = queue.take(false).await;
            let wake = {
                let mut played = played.lock();
                let (turns, limit) = played.turns.entry(turn.key.clone()).or_default();
                *turns += 1;
                let admitted = limiter.admit(limit, NodeStatusChange::Settled);
                if admitted == Admitted::Write {
                    played.writes.push(Instant::now());
                }
                match admitted {
                    Admitted::Wait(until) => Some(until),
                    Admitted::Write | Admitted::Idle => None,
                }
            };
            queue.done(&turn.key, Class::Normal, wake);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_thousand_functions_that_wait_for_the_rate_are_taken_from_the_queue_twice_each() {
        let (queue, limiter) = (Queue::default(), Arc::new(StatusRateLimit::default()));
        let played = Arc::<Mutex<Played>>::default();
        let start = Instant::now();
        for n in 0..FUNCTIONS {
            queue.push(&ObjectKey::new("shop", &format!("f-{n}")));
        }
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS {
            workers.spawn(work(
                queue.clone(),
                Arc::clone(&limiter),
                Arc::clone(&played),
            ));
        }
        let all = FUNCTIONS as u64 / u64::from(PER_SECOND);
        tokio::time::sleep(Duration::from_secs(all + 1)).await;
        workers.shutdown().await;
        let played = played.lock();
        assert_eq!(played.writes.len(), FUNCTIONS);
        let most = played.turns.values().map(|(turns, _)| *turns).max();
        assert_eq!(most, Some(2), "one to reserve, one to write");
        for (nth, at) in (0..).zip(&played.writes) {
            let burst = PER_SECOND - 1;
            let earliest = Duration::from_secs(1) * u32::saturating_sub(nth, burst) / PER_SECOND;
            assert!(
                *at - start >= earliest,
                "write {nth} after {:?}",
                *at - start
            );
        }
    }
}
