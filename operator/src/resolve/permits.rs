//! Permits for work that registries may make slow, shared fairly between namespaces.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A bounded number of permits, of which one namespace holds only a part. Clones share the permits.
///
/// A request that waits for a permit of all namespaces already holds one of its own namespace, so the queue contains only a
/// few requests of each namespace, however many functions it has.
#[derive(Debug, Clone)]
pub(crate) struct FairPermits {
    all: Arc<Semaphore>,
    each: usize,
    /// Permits of the namespaces that use or wait for some.
    namespaces: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

/// A permit. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct FairPermit {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl FairPermits {
    /// `all` permits, of which a namespace can hold `each`.
    pub(crate) fn new(all: usize, each: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            each,
            namespaces: Arc::default(),
        }
    }

    /// Waits for a permit. Returns `None` only if the permits were closed, which nothing does.
    pub(crate) async fn acquire(&self, namespace: &str) -> Option<FairPermit> {
        let own = self.of(namespace).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(FairPermit {
            _all: all,
            _own: own,
        })
    }

    /// The permits of one namespace. They exist for as long as one of them is held or awaited.
    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut namespaces = self.namespaces.lock();
        if let Some(known) = namespaces.get(namespace).and_then(Weak::upgrade) {
            return known;
        }
        namespaces.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(self.each));
        namespaces.insert(namespace.to_owned(), Arc::downgrade(&permits));
        permits
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_namespace_that_holds_its_part_does_not_keep_others_waiting() {
        let permits = FairPermits::new(3, 2);
        let first = permits.acquire("a").await;
        let second = permits.acquire("a").await;
        assert!(first.is_some() && second.is_some());
        let mut third = Box::pin(permits.acquire("a"));
        assert!(third.as_mut().now_or_never().is_none(), "of its own two");
        let other = permits.acquire("b").now_or_never().flatten();
        assert!(other.is_some());
        drop(first);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn the_queue_for_all_permits_has_a_few_requests_of_each_namespace() {
        let permits = FairPermits::new(1, 1);
        let held = permits.acquire("a").await;
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(permits.acquire("a"))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let mut other = Box::pin(permits.acquire("b"));
        assert!(other.as_mut().now_or_never().is_none());
        drop(held);
        // the first of "a" takes its own permit and queues behind "b"
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(other.now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn namespaces_without_permits_are_forgotten() {
        let permits = FairPermits::new(2, 1);
        for n in 0..100 {
            drop(permits.acquire(&n.to_string()).await);
        }
        assert_eq!(permits.namespaces.lock().len(), 1);
    }
}
