//! Which revision answers. The candidate owns the low interval of the buckets, so that a growing
//! share never moves anybody back to stable.

use crate::table::{RevisionName, TrafficSplit};

/// Buckets a request can fall into; a weight is a number of them.
pub const BUCKETS: u32 = 10_000;

/// A choice between the two revisions of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The stable revision.
    Stable,
    /// The candidate revision.
    Candidate,
}

/// The choice, and whether the candidate had to be passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The revision that answers.
    pub arm: Arm,
    /// The bucket was the candidate's but it cannot run here.
    pub fallback: bool,
}

/// Decides by a bucket in `[0, 10000)`. A candidate at weight 0 gets nothing, at 10,000 everything.
/// While there is no stable revision the candidate answers whatever its weight.
pub fn pick(share: &TrafficSplit, bucket: u32, candidate_loaded: bool) -> Pick {
    let own = share.candidate.is_some() && (bucket < share.weight || share.stable.is_none());
    match (own, candidate_loaded) {
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

/// Permits of the candidate at a share of `weight`: enough for twice its part, never under two, so
/// that a hanging candidate starves nobody and a small one can still be measured.
pub fn candidate_concurrency(concurrency: u32, weight: u32) -> u32 {
    let twice = u64::from(weight.min(BUCKETS))
        .saturating_mul(2)
        .min(u64::from(BUCKETS));
    let part = (u64::from(concurrency) * twice).div_ceil(u64::from(BUCKETS));
    u32::try_from(part).unwrap_or(u32::MAX).max(2)
}

impl TrafficSplit {
    /// The revision of an arm.
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

    fn share(weight: u32) -> TrafficSplit {
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
            let share = share(weight);
            let hits = (0..BUCKETS)
                .filter(|b| pick(&share, *b, true).arm == Arm::Candidate)
                .count();
            assert_eq!(hits, weight as usize);
        }
    }

    #[test]
    fn an_unloadable_candidate_falls_back_and_says_so() {
        assert_eq!(
            pick(&share(10_000), 5, false),
            Pick {
                arm: Arm::Stable,
                fallback: true
            }
        );
        assert_eq!(
            pick(&share(0), 5, false),
            Pick {
                arm: Arm::Stable,
                fallback: false
            }
        );
    }

    #[test]
    fn permits_follow_the_share() {
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
        fn a_rising_weight_never_moves_anybody_back(bucket in 0..BUCKETS, a in 0..=BUCKETS, b in 0..=BUCKETS) {
            let (low, high) = (a.min(b), a.max(b));
            if pick(&share(low), bucket, true).arm == Arm::Candidate {
                prop_assert_eq!(pick(&share(high), bucket, true).arm, Arm::Candidate);
            }
        }
    }
}
