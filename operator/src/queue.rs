//! The reconcile queue: functions with a candidate in traffic first, the others fairly by namespace. A function runs
//! at most once at a time, and all timers are in one place.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::watch::ObjectKey;

/// Priority of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The candidate receives requests, so a rollback may be needed.
    Urgent,
    /// All other functions.
    Normal,
}

/// The queue; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    work: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    urgent: VecDeque<ObjectKey>,
    normal: BTreeMap<Arc<str>, VecDeque<ObjectKey>>,
    /// Number of functions in `urgent` and `normal`.
    waiting: usize,
    /// Namespace that was served last.
    last_namespace: Option<Arc<str>>,
    timers: BTreeSet<(Instant, ObjectKey)>,
    known: HashMap<ObjectKey, Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    urgent: bool,
    queued: Option<Instant>,
    running: bool,
    /// A change arrived while the function was reconciled.
    again: bool,
    timer: Option<Instant>,
}

/// A function to reconcile. Return it with [`Queue::done`].
#[derive(Debug)]
pub struct WorkItem {
    /// The function.
    pub key: ObjectKey,
    /// Time that the function waited, in seconds.
    pub waited: f64,
    /// Number of functions that still wait.
    pub waiting: usize,
    /// Priority of the function.
    pub class: Class,
}

// === impl Queue ===

impl Queue {
    /// Queues a function that changed, to be reconciled as soon as possible.
    pub fn push(&self, key: &ObjectKey) {
        let mut inner = self.0.inner.lock();
        let now = Instant::now();
        if inner.enqueue(key, now) {
            drop(inner);
            self.0.work.notify_waiters();
        }
    }

    /// Waits for the next function. With `urgent_only`, waits for one with a candidate in traffic.
    pub async fn take(&self, urgent_only: bool) -> WorkItem {
        loop {
            // Register before checking, so that no notification is missed. A notification wakes all waiters: a waiter
            // that may not take the function would have to pass the notification on, and if all other workers are
            // busy, it would circulate between such waiters endlessly.
            let notified = self.0.work.notified();
            let (item, next_timer) = {
                let mut inner = self.0.inner.lock();
                let now = Instant::now();
                inner.expire_timers(now);
                let item = inner.pop(urgent_only, now);
                (item, inner.first_timer())
            };
            if let Some(item) = item {
                return item;
            }
            match next_timer {
                Some(at) => tokio::select! {
                    () = notified => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => notified.await,
            }
        }
    }

    /// Ends the reconcile of a function; it is queued again at `wake` at the latest.
    pub fn done(&self, key: &ObjectKey, class: Class, wake: Option<Instant>) {
        let mut inner = self.0.inner.lock();
        let now = Instant::now();
        let first = inner.first_timer();
        inner.set_timer(key, wake);
        let slot = inner.known.entry(key.clone()).or_default();
        slot.running = false;
        slot.urgent = class == Class::Urgent;
        let again = std::mem::take(&mut slot.again);
        if again {
            inner.enqueue(key, now);
        } else if wake.is_none() {
            inner.known.remove(key);
        }
        // Waiting workers sleep until the first timer that they observed, so a later timer must not wake them.
        let sooner = match (first, inner.first_timer()) {
            (Some(before), Some(after)) => after < before,
            (before, after) => before.is_none() && after.is_some(),
        };
        drop(inner);
        if again || sooner {
            self.0.work.notify_waiters();
        }
    }
}

impl Inner {
    /// Whether the function was not queued yet.
    fn enqueue(&mut self, key: &ObjectKey, now: Instant) -> bool {
        let slot = self.known.entry(key.clone()).or_default();
        if slot.running {
            slot.again = true;
            return false;
        }
        if slot.queued.is_some() {
            return false;
        }
        slot.queued = Some(now);
        self.waiting += 1;
        if slot.urgent {
            self.urgent.push_back(key.clone());
        } else {
            self.normal
                .entry(Arc::clone(&key.namespace))
                .or_default()
                .push_back(key.clone());
        }
        true
    }

    fn first_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    fn expire_timers(&mut self, now: Instant) {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.set_timer(&key, None);
            self.enqueue(&key, now);
        }
    }

    fn set_timer(&mut self, key: &ObjectKey, at: Option<Instant>) {
        let slot = self.known.entry(key.clone()).or_default();
        if let Some(old) = std::mem::replace(&mut slot.timer, at) {
            self.timers.remove(&(old, key.clone()));
        }
        if let Some(at) = at {
            self.timers.insert((at, key.clone()));
        }
    }

    fn pop(&mut self, urgent_only: bool, now: Instant) -> Option<WorkItem> {
        let (key, class) = match self.urgent.pop_front() {
            Some(key) => (key, Class::Urgent),
            None if urgent_only => return None,
            None => (self.pop_normal()?, Class::Normal),
        };
        self.waiting = self.waiting.saturating_sub(1);
        let waiting = self.waiting;
        let slot = self.known.entry(key.clone()).or_default();
        slot.running = true;
        let since = slot.queued.take().unwrap_or(now);
        Some(WorkItem {
            key,
            class,
            waiting,
            waited: now.duration_since(since).as_secs_f64(),
        })
    }

    /// Returns the namespace that follows the last served one.
    fn pop_normal(&mut self) -> Option<ObjectKey> {
        let after = self.last_namespace.take();
        let next = after
            .and_then(|last| {
                let range = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
                self.normal
                    .range::<Arc<str>, _>(range)
                    .next()
                    .map(|(name, _)| Arc::clone(name))
            })
            .or_else(|| self.normal.keys().next().cloned())?;
        let waiting = self.normal.get_mut(&next)?;
        let key = waiting.pop_front();
        if waiting.is_empty() {
            self.normal.remove(&next);
        }
        self.last_namespace = Some(next);
        key
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn key(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(namespace, name)
    }

    async fn names(queue: &Queue, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(queue.take(false).await.key.to_string());
        }
        names
    }

    /// HK-9, FC-18: a busy namespace delays another by one work item, and a candidate in traffic by none.
    #[tokio::test(start_paused = true)]
    async fn namespaces_take_turns_and_traffic_goes_first() {
        let queue = Queue::default();
        for n in 0..3 {
            queue.push(&key("loud", &n.to_string()));
        }
        queue.push(&key("quiet", "a"));
        queue.push(&key("hot", "x"));
        queue.take(false).await;
        queue.done(
            &key("hot", "x"),
            Class::Urgent,
            Some(Instant::now() + Duration::from_secs(9)),
        );
        queue.push(&key("hot", "x"));
        assert_eq!(
            names(&queue, 4).await,
            ["hot/x", "loud/0", "quiet/a", "loud/1"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_runs_once_at_a_time_and_a_change_meanwhile_queues_it_again() {
        let queue = Queue::default();
        queue.push(&key("a", "f"));
        queue.push(&key("a", "f"));
        let item = queue.take(false).await;
        queue.push(&key("a", "f"));
        assert!(
            tokio::time::timeout(Duration::from_secs(1), queue.take(false))
                .await
                .is_err()
        );
        queue.done(&item.key, Class::Normal, None);
        assert_eq!(queue.take(false).await.key, item.key);
        queue.done(&item.key, Class::Normal, None);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), queue.take(false))
                .await
                .is_err()
        );
    }

    /// Counts how often a waiter is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_may_take_nothing_sleeps_while_others_work() {
        let queue = Queue::default();
        queue.push(&key("a", "f"));
        let woken = Arc::new(Woken::default());
        let waker = std::task::Waker::from(Arc::clone(&woken));
        let mut reserved = Box::pin(queue.take(true));
        let mut poll = || {
            let polled = reserved
                .as_mut()
                .poll(&mut std::task::Context::from_waker(&waker));
            (polled.is_ready(), woken.0.swap(0, Ordering::Relaxed))
        };
        assert_eq!(poll(), (false, 0));
        assert_eq!(poll(), (false, 0));
        queue.push(&key("b", "f"));
        assert_eq!(poll(), (false, 1), "one wake for one change");
        assert_eq!(poll(), (false, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_finished_item_wakes_waiting_workers_only_for_an_earlier_timer() {
        let queue = Queue::default();
        let after = |seconds| Some(Instant::now() + Duration::from_secs(seconds));
        for name in ["f", "g", "h"] {
            queue.push(&key("a", name));
        }
        for _ in 0..3 {
            queue.take(false).await;
        }
        queue.done(&key("a", "f"), Class::Normal, after(60));
        let woken = Arc::new(Woken::default());
        let waker = std::task::Waker::from(Arc::clone(&woken));
        let mut idle = Box::pin(queue.take(false));
        let mut context = std::task::Context::from_waker(&waker);
        assert!(idle.as_mut().poll(&mut context).is_pending());
        queue.done(&key("a", "g"), Class::Normal, after(90));
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        queue.done(&key("a", "h"), Class::Normal, after(30));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        let start = Instant::now();
        assert_eq!(&*idle.await.key.name, "h");
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_fires_once_and_the_newest_counts() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.push(&key("a", "f"));
        let item = queue.take(false).await;
        queue.done(
            &item.key,
            Class::Normal,
            Some(start + Duration::from_secs(60)),
        );
        queue.push(&key("a", "f"));
        let item = queue.take(false).await;
        queue.done(
            &item.key,
            Class::Normal,
            Some(start + Duration::from_secs(5)),
        );
        queue.take(false).await;
        assert_eq!(Instant::now() - start, Duration::from_secs(5));
    }
}
