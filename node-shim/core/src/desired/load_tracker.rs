//! Load state of every component that the node needs. There is one entry per digest, so a component
//! that ten functions use is fetched, compiled and loaded once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::load_failure::Failure;
use super::load_order::QueuedLoad;
use super::retry::{RETRY_CAP, retry_delay};

/// Load state of one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// No attempt has started.
    Pending,
    /// An attempt is in progress.
    Loading,
    /// The component can serve requests.
    Loaded,
    /// The last attempt failed.
    Failed {
        /// Failure of the last attempt.
        failure: Failure,
        /// Time of the next attempt.
        retry_at: Instant,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    state: LoadState,
    attempts: u32,
    /// Namespace in whose turn the attempt in progress began.
    namespace: String,
}

/// Maximum numbers of attempts that are in progress at the same time.
#[derive(Clone, Copy, Debug)]
pub struct LoadLimits {
    /// Of the node.
    pub total: usize,
    /// Of one namespace.
    pub per_namespace: usize,
}

/// Load states of all components that the node needs, by digest.
#[derive(Clone, Debug, Default)]
pub struct LoadTracker {
    entries: BTreeMap<String, Entry>,
}

impl LoadTracker {
    /// Replaces the set of wanted digests and returns the tracked digests that are no longer wanted.
    pub fn set_wanted(&mut self, wanted: &BTreeSet<String>) -> Vec<String> {
        for digest in wanted {
            self.entries.entry(digest.clone()).or_insert(Entry {
                state: LoadState::Pending,
                attempts: 0,
                namespace: String::new(),
            });
        }
        let gone: Vec<String> = self
            .entries
            .keys()
            .filter(|digest| !wanted.contains(*digest))
            .cloned()
            .collect();
        self.entries.retain(|digest, _| wanted.contains(digest));
        gone
    }

    /// Marks the digests whose attempts are due as loading and returns them, in the given order and within the limits,
    /// so that slow registries of one namespace do not stop the others.
    pub fn start_due(
        &mut self,
        ordered: &[QueuedLoad],
        limits: LoadLimits,
        now: Instant,
    ) -> Vec<String> {
        let mut running: BTreeMap<String, usize> = BTreeMap::new();
        for entry in self.entries.values() {
            if entry.state == LoadState::Loading {
                *running.entry(entry.namespace.clone()).or_default() += 1;
            }
        }
        let mut free = limits.total.saturating_sub(running.values().sum());
        let mut started = Vec::new();
        for load in ordered {
            if free == 0 {
                break;
            }
            if let Some(entry) = self.entries.get_mut(&load.digest)
                && due(&entry.state, now)
            {
                let own = running.entry(load.namespace.clone()).or_default();
                if *own >= limits.per_namespace {
                    continue;
                }
                *own += 1;
                free -= 1;
                entry.state = LoadState::Loading;
                entry.namespace.clone_from(&load.namespace);
                started.push(load.digest.clone());
            }
        }
        started
    }

    /// Records a successful attempt. Returns false when the digest is no longer wanted.
    pub fn mark_loaded(&mut self, digest: &str) -> bool {
        let Some(entry) = self.entries.get_mut(digest) else {
            return false;
        };
        entry.state = LoadState::Loaded;
        entry.attempts = 0;
        true
    }

    /// Records that an attempt failed at `now` and schedules the next one. A permanent failure is
    /// retried only after [`RETRY_CAP`], in case the source had served wrong bytes. `jitter` is a
    /// random number in [0, 1).
    pub fn mark_failed(&mut self, digest: &str, failure: Failure, now: Instant, jitter: f64) {
        let Some(entry) = self.entries.get_mut(digest) else {
            return;
        };
        entry.attempts = entry.attempts.saturating_add(1);
        let wait = if failure.cause.is_permanent() {
            RETRY_CAP
        } else {
            retry_delay(entry.attempts, jitter, failure.retry_after)
        };
        entry.state = LoadState::Failed {
            failure,
            retry_at: now.checked_add(wait).unwrap_or(now),
        };
    }

    /// Schedules a new attempt at once, because the loaded code turned out to be unusable.
    pub fn reset(&mut self, digest: &str) {
        if let Some(entry) = self.entries.get_mut(digest) {
            entry.state = LoadState::Pending;
        }
    }

    /// Returns the load state of a digest; `None` when it is not wanted.
    #[must_use]
    pub fn get(&self, digest: &str) -> Option<&LoadState> {
        self.entries.get(digest).map(|entry| &entry.state)
    }

    /// Iterates over all wanted digests in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LoadState)> {
        self.entries
            .iter()
            .map(|(digest, entry)| (digest.as_str(), &entry.state))
    }
}

fn due(load: &LoadState, now: Instant) -> bool {
    match load {
        LoadState::Pending => true,
        LoadState::Failed { retry_at, .. } => *retry_at <= now,
        LoadState::Loading | LoadState::Loaded => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::load_failure::LoadFailure;
    use super::*;

    #[allow(
        clippy::disallowed_methods,
        reason = "a test needs some instant to start from"
    )]
    fn origin() -> Instant {
        Instant::now()
    }

    fn set(digests: &[&str]) -> BTreeSet<String> {
        digests.iter().map(ToString::to_string).collect()
    }

    fn list(digests: &[&str]) -> Vec<String> {
        digests.iter().map(ToString::to_string).collect()
    }

    /// Components of one namespace.
    fn queue(digests: &[&str]) -> Vec<QueuedLoad> {
        digests.iter().map(|digest| queued("ns", digest)).collect()
    }

    fn queued(namespace: &str, digest: &str) -> QueuedLoad {
        QueuedLoad {
            namespace: namespace.to_owned(),
            digest: digest.to_owned(),
        }
    }

    fn at_most(total: usize) -> LoadLimits {
        LoadLimits {
            total,
            per_namespace: total,
        }
    }

    fn transient() -> Failure {
        Failure::new(LoadFailure::Pull, "no route")
    }

    fn next_retry_at(loads: &LoadTracker) -> Option<Instant> {
        let retries = loads.iter().filter_map(|(_, state)| match state {
            LoadState::Failed { retry_at, .. } => Some(*retry_at),
            _ => None,
        });
        retries.min()
    }

    /// FN-13: the number of concurrent loads is bounded, and they start in the given order.
    #[test]
    fn concurrent_loads_are_bounded_and_start_in_order() {
        let now = origin();
        let mut loads = LoadTracker::default();
        assert!(loads.set_wanted(&set(&["a", "b", "c"])).is_empty());
        let ordered = queue(&["c", "a", "b"]);
        assert_eq!(
            loads.start_due(&ordered, at_most(2), now),
            list(&["c", "a"])
        );
        assert!(
            loads.start_due(&ordered, at_most(2), now).is_empty(),
            "single flight"
        );
        assert!(loads.mark_loaded("c"));
        assert_eq!(loads.start_due(&ordered, at_most(2), now), list(&["b"]));
    }

    #[test]
    fn a_namespace_does_not_use_all_concurrent_loads() {
        let now = origin();
        let mut loads = LoadTracker::default();
        loads.set_wanted(&set(&["a1", "a2", "a3", "a4", "b1"]));
        let ordered = ["a1", "a2", "a3", "a4"].map(|digest| queued("a", digest));
        let ordered = [&ordered[..], &[queued("b", "b1")]].concat();
        let limits = LoadLimits {
            total: 4,
            per_namespace: 2,
        };
        assert_eq!(
            loads.start_due(&ordered, limits, now),
            list(&["a1", "a2", "b1"])
        );
        assert!(loads.start_due(&ordered, limits, now).is_empty());
        assert!(loads.mark_loaded("a1"));
        assert_eq!(loads.start_due(&ordered, limits, now), list(&["a3"]));
    }

    #[test]
    fn a_failed_load_is_retried_when_due_and_success_resets_the_backoff() {
        let now = origin();
        let mut loads = LoadTracker::default();
        loads.set_wanted(&set(&["a"]));
        let ordered = queue(&["a"]);
        loads.start_due(&ordered, at_most(4), now);
        loads.mark_failed("a", transient(), now, 1.0);
        assert_eq!(next_retry_at(&loads), Some(now + Duration::from_secs(1)));
        assert!(loads.start_due(&ordered, at_most(4), now).is_empty());
        let later = now + Duration::from_secs(1);
        assert_eq!(loads.start_due(&ordered, at_most(4), later), list(&["a"]));
        loads.mark_failed("a", transient(), later, 1.0);
        assert_eq!(
            next_retry_at(&loads),
            Some(later + Duration::from_secs(2)),
            "the bound doubled"
        );
        let last = later + Duration::from_secs(2);
        loads.start_due(&ordered, at_most(4), last);
        assert!(loads.mark_loaded("a"));
        assert_eq!(next_retry_at(&loads), None);
    }

    #[test]
    fn a_permanent_failure_is_retried_after_the_cap() {
        let now = origin();
        let mut loads = LoadTracker::default();
        loads.set_wanted(&set(&["a"]));
        loads.start_due(&queue(&["a"]), at_most(1), now);
        loads.mark_failed(
            "a",
            Failure::new(LoadFailure::NotAComponent, "text"),
            now,
            0.0,
        );
        assert_eq!(next_retry_at(&loads), Some(now + RETRY_CAP));
    }

    #[test]
    fn an_unwanted_digest_is_returned_once_and_its_late_result_is_dropped() {
        let now = origin();
        let mut loads = LoadTracker::default();
        loads.set_wanted(&set(&["a", "b"]));
        loads.start_due(&queue(&["a"]), at_most(1), now);
        assert_eq!(loads.set_wanted(&set(&["b"])), list(&["a"]));
        assert!(loads.set_wanted(&set(&["b"])).is_empty());
        assert!(!loads.mark_loaded("a"));
    }
}
