//! Where each component stands between wanted and loaded. One entry per digest, so that a
//! component that ten functions name is fetched, compiled and loaded once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::retry::{RETRY_CAP, retry_delay};

/// Why a component is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Word of the closed list of reasons.
    pub reason: &'static str,
    /// One sentence for people.
    pub message: String,
    /// Another attempt with the same bytes and the same engine ends the same way.
    pub permanent: bool,
    /// What the other side asked for.
    pub retry_after: Option<Duration>,
}

/// Where one component stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadState {
    /// Not started.
    Pending,
    /// An attempt is under way.
    Loading,
    /// Ready to serve.
    Loaded,
    /// Failed `attempts` times in a row.
    Failed {
        /// Of the last attempt.
        failure: Failure,
        /// In a row.
        attempts: u32,
        /// Next attempt.
        retry_at: Instant,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    state: LoadState,
    attempts: u32,
}

/// All components of the table.
#[derive(Clone, Debug, Default)]
pub struct LoadTracker {
    entries: BTreeMap<String, Entry>,
}

impl LoadTracker {
    /// Takes the wanted digests; returns those that are loaded or under way and no longer wanted.
    pub fn set_wanted(&mut self, wanted: &BTreeSet<String>) -> Vec<String> {
        for digest in wanted {
            self.entries.entry(digest.clone()).or_insert(Entry {
                state: LoadState::Pending,
                attempts: 0,
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

    /// The digests to start now, in the given order, so that at most `slots` run at once.
    pub fn start_due(&mut self, ordered: &[String], slots: usize, now: Instant) -> Vec<String> {
        let running = self
            .entries
            .values()
            .filter(|entry| entry.state == LoadState::Loading)
            .count();
        let mut free = slots.saturating_sub(running);
        let mut started = Vec::new();
        for digest in ordered {
            if free == 0 {
                break;
            }
            if let Some(entry) = self.entries.get_mut(digest)
                && due(&entry.state, now)
            {
                entry.state = LoadState::Loading;
                started.push(digest.clone());
                free -= 1;
            }
        }
        started
    }

    /// An attempt succeeded. False when nobody wants the digest any more.
    pub fn mark_loaded(&mut self, digest: &str) -> bool {
        let Some(entry) = self.entries.get_mut(digest) else {
            return false;
        };
        entry.state = LoadState::Loaded;
        entry.attempts = 0;
        true
    }

    /// An attempt failed at `now`. A permanent failure is looked at again only after the longest
    /// wait, in case the bytes that were wrong were not the component's own. `dice` in [0, 1).
    pub fn mark_failed(&mut self, digest: &str, failure: Failure, now: Instant, dice: f64) {
        let Some(entry) = self.entries.get_mut(digest) else {
            return;
        };
        entry.attempts = entry.attempts.saturating_add(1);
        let wait = if failure.permanent {
            RETRY_CAP
        } else {
            retry_delay(entry.attempts, dice, failure.retry_after)
        };
        entry.state = LoadState::Failed {
            failure,
            attempts: entry.attempts,
            retry_at: now.checked_add(wait).unwrap_or(now),
        };
    }

    /// Loaded code turned out to be unusable: fetch it again.
    pub fn reset(&mut self, digest: &str) {
        if let Some(entry) = self.entries.get_mut(digest) {
            entry.state = LoadState::Pending;
        }
    }

    /// Where a digest stands; `None` when it is not wanted.
    #[must_use]
    pub fn get(&self, digest: &str) -> Option<&LoadState> {
        self.entries.get(digest).map(|entry| &entry.state)
    }

    /// All wanted digests.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LoadState)> {
        self.entries
            .iter()
            .map(|(digest, entry)| (digest.as_str(), &entry.state))
    }

    /// The next moment at which an attempt falls due.
    #[must_use]
    pub fn next_retry_at(&self) -> Option<Instant> {
        self.entries
            .values()
            .filter_map(|entry| match &entry.state {
                LoadState::Failed {
                    retry_at: again_at, ..
                } => Some(*again_at),
                _ => None,
            })
            .min()
    }
}

fn due(load: &LoadState, now: Instant) -> bool {
    match load {
        LoadState::Pending => true,
        LoadState::Failed {
            retry_at: again_at, ..
        } => *again_at <= now,
        LoadState::Loading | LoadState::Loaded => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn set(digests: &[&str]) -> BTreeSet<String> {
        digests.iter().map(ToString::to_string).collect()
    }

    fn list(digests: &[&str]) -> Vec<String> {
        digests.iter().map(ToString::to_string).collect()
    }

    fn transient() -> Failure {
        Failure {
            reason: "PullFailed",
            message: "no route".into(),
            permanent: false,
            retry_after: None,
        }
    }

    /// FN-13: however much is assigned, few loads run at once, those with traffic first.
    #[test]
    fn slots_bound_what_runs_and_order_decides_who() {
        let now = origin();
        let mut loads = LoadTracker::default();
        assert!(loads.set_wanted(&set(&["a", "b", "c"])).is_empty());
        let ordered = list(&["c", "a", "b"]);
        assert_eq!(loads.start_due(&ordered, 2, now), list(&["c", "a"]));
        assert!(
            loads.start_due(&ordered, 2, now).is_empty(),
            "single flight"
        );
        assert!(loads.mark_loaded("c"));
        assert_eq!(loads.start_due(&ordered, 2, now), list(&["b"]));
    }

    #[test]
    fn a_failure_is_tried_again_when_due_and_success_clears_it() {
        let now = origin();
        let mut loads = LoadTracker::default();
        loads.set_wanted(&set(&["a"]));
        let ordered = list(&["a"]);
        loads.start_due(&ordered, 4, now);
        loads.mark_failed("a", transient(), now, 1.0);
        assert_eq!(loads.next_retry_at(), Some(now + Duration::from_secs(1)));
        assert!(loads.start_due(&ordered, 4, now).is_empty());
        let later = now + Duration::from_secs(1);
        assert_eq!(loads.start_due(&ordered, 4, later), ordered);
        loads.mark_failed("a", transient(), later, 1.0);
        assert_eq!(
            loads.next_retry_at(),
            Some(later + Duration::from_secs(2)),
            "the bound doubled"
        );
        let last = later + Duration::from_secs(2);
        loads.start_due(&ordered, 4, last);
        assert!(loads.mark_loaded("a"));
        assert_eq!(loads.next_retry_at(), None);
    }

    #[test]
    fn a_permanent_failure_waits_the_longest() {
        let now = origin();
        let mut loads = LoadTracker::default();
        loads.set_wanted(&set(&["a"]));
        loads.start_due(&list(&["a"]), 1, now);
        loads.mark_failed(
            "a",
            Failure {
                permanent: true,
                ..transient()
            },
            now,
            0.0,
        );
        assert_eq!(loads.next_retry_at(), Some(now + RETRY_CAP));
    }

    #[test]
    fn what_is_no_longer_wanted_is_named_once_and_a_late_result_is_dropped() {
        let now = origin();
        let mut loads = LoadTracker::default();
        loads.set_wanted(&set(&["a", "b"]));
        loads.start_due(&list(&["a"]), 1, now);
        assert_eq!(loads.set_wanted(&set(&["b"])), list(&["a"]));
        assert!(loads.set_wanted(&set(&["b"])).is_empty());
        assert!(!loads.mark_loaded("a"));
    }
}
