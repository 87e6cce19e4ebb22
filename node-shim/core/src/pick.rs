//! Choice of the revision that serves a request. The candidate has the lowest buckets, so a rising weight
//! never moves a bucket back to the stable revision.

use crate::table::{RevisionName, TrafficSplit};

/// Number of buckets that requests fall into. A weight is a number of buckets.
pub const BUCKETS: u32 = 10_000;

/// One of the two sides of a traffic split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The stable revision.
    Stable,
    /// The candidate revision.
    Candidate,
}

/// Result of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The chosen side.
    pub arm: Arm,
    /// Whether the bucket belongs to the candidate, which cannot run on this node.
    pub fallback: bool,
}

/// Chooses a side by a bucket in `[0, 10000)`. A candidate receives no requests at weight 0 and all of
/// them at 10,000. It receives all requests as well while there is no stable revision, even if it cannot
/// run: no other revision could serve them.
///
/// ```
/// use node_shim_core::pick::{Arm, pick};
/// use node_shim_core::table::{RevisionName, TrafficSplit};
///
/// let split = TrafficSplit {
///     stable: RevisionName::new("checkout-51ab"),
///     candidate: RevisionName::new("checkout-7d4c"),
///     weight: 500, // 5 %
///     ..TrafficSplit::default()
/// };
/// assert_eq!(pick(&split, 499, true).arm, Arm::Candidate);
/// assert_eq!(pick(&split, 500, true).arm, Arm::Stable);
///
/// // a larger weight moves no client back to stable
/// let larger = TrafficSplit { weight: 2_500, ..split.clone() };
/// assert_eq!(pick(&larger, 499, true).arm, Arm::Candidate);
///
/// // until the candidate's code is loaded, the stable revision serves its requests
/// let pick = pick(&split, 499, false);
/// assert!(pick.arm == Arm::Stable && pick.fallback);
/// ```
pub fn pick(split: &TrafficSplit, bucket: u32, candidate_loaded: bool) -> Pick {
    let only = split.stable.is_none();
    let own = split.candidate.is_some() && (bucket < split.weight || only);
    match (own, candidate_loaded || only) {
        (true, true) => Pick {
            arm: Arm::Candidate,
            fallback: false,
        },
        (true, false) => Pick {
            arm: Arm::Stable,
            fallback: true,
        },
        (false, _) => Pick {
            arm: Arm::Stable,
            fallback: false,
        },
    }
}

/// Returns the concurrency limit of a candidate at `weight`: twice its part of `concurrency`, at least 2.
/// A hanging candidate cannot starve the stable revision, and a candidate with a small weight can still
/// be measured.
///
/// ```
/// use node_shim_core::pick::candidate_concurrency;
/// assert_eq!(candidate_concurrency(100, 500), 10); // 5 %
/// assert_eq!(candidate_concurrency(100, 10), 2); // 0.1 %
/// assert_eq!(candidate_concurrency(100, 10_000), 100);
/// ```
pub fn candidate_concurrency(concurrency: u32, weight: u32) -> u32 {
    let twice = u64::from(weight.min(BUCKETS))
        .saturating_mul(2)
        .min(u64::from(BUCKETS));
    let part = (u64::from(concurrency) * twice).div_ceil(u64::from(BUCKETS));
    u32::try_from(part).unwrap_or(u32::MAX).max(2)
}

impl TrafficSplit {
    /// Returns the revision of a side.
    pub fn revision(&self, arm: Arm) -> Option<&RevisionName> {
        match arm {
            Arm::Stable => self.stable.as_ref(),
            Arm::Candidate => self.candidate.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(weight: u32) -> TrafficSplit {
        TrafficSplit {
            stable: RevisionName::new("s"),
            candidate: RevisionName::new("c"),
            weight,
            ..TrafficSplit::default()
        }
    }

    #[test]
    fn weight_is_exactly_a_number_of_buckets() {
        for weight in [0, 1, 250, 9_999, 10_000] {
            let split = split(weight);
            let hits = (0..BUCKETS)
                .filter(|b| pick(&split, *b, true).arm == Arm::Candidate)
                .count();
            assert_eq!(hits, weight as usize);
        }
    }

    #[test]
    fn an_unloaded_candidate_falls_back_to_stable() {
        assert_eq!(
            pick(&split(10_000), 5, false),
            Pick {
                arm: Arm::Stable,
                fallback: true
            }
        );
        assert_eq!(
            pick(&split(0), 5, false),
            Pick {
                arm: Arm::Stable,
                fallback: false
            }
        );
    }

    #[test]
    fn the_first_revision_is_picked_even_if_it_cannot_run() {
        let first = TrafficSplit {
            stable: None,
            ..split(0)
        };
        for loaded in [false, true] {
            let picked = Pick {
                arm: Arm::Candidate,
                fallback: false,
            };
            assert_eq!(pick(&first, 9_999, loaded), picked);
        }
    }

    #[test]
    fn the_candidates_concurrency_follows_its_weight() {
        let table = [
            (0, 2),
            (1, 2),
            (100, 2),
            (500, 10),
            (5_000, 100),
            (10_000, 100),
        ];
        for (weight, permits) in table {
            assert_eq!(
                candidate_concurrency(100, weight),
                permits,
                "weight {weight}"
            );
        }
        assert_eq!(candidate_concurrency(1, 10_000), 2);
    }

    proptest! {
        #[test]
        fn a_rising_weight_never_moves_a_bucket_back(bucket in 0..BUCKETS, a in 0..=BUCKETS, b in 0..=BUCKETS) {
            let (low, high) = (a.min(b), a.max(b));
            if pick(&split(low), bucket, true).arm == Arm::Candidate {
                prop_assert_eq!(pick(&split(high), bucket, true).arm, Arm::Candidate);
            }
        }
    }
}
