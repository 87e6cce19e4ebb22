//! Decides which parts of a received function record replace the record that a node has.
//!
//! Fencing tokens order the decisions about one function, whatever path they arrive by; a
//! resourceVersion orders objects. Tokens are comparable only between records of the same object: a
//! function that is deleted and created again starts with new tokens, so the newer object wins.

use node_api_types::FencingToken;

/// Versions that decide between two records of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordVersions {
    /// UID of the `EdgeFunction` object.
    pub uid: String,
    /// resourceVersion of the newest object that the record was built from.
    pub version: u64,
    /// Token of routes, placement and suspension.
    pub config_token: FencingToken,
    /// Token of the traffic split.
    pub split_token: FencingToken,
}

/// Which parts of a received record a node applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeDecision {
    /// Apply nothing, because every part is older than the node's record.
    Ignore,
    /// Apply at least one part.
    Apply {
        /// Whether to apply routes, placement and suspension.
        routes: bool,
        /// Whether to apply the traffic split.
        split: bool,
    },
}

/// Compares a received record with the node's record (`None` when the node has none).
#[must_use]
pub fn merge_decision(have: Option<&RecordVersions>, offered: &RecordVersions) -> MergeDecision {
    let Some(have) = have else {
        return MergeDecision::Apply {
            routes: true,
            split: true,
        };
    };
    if have.uid != offered.uid {
        return if offered.version >= have.version {
            MergeDecision::Apply {
                routes: true,
                split: true,
            }
        } else {
            MergeDecision::Ignore
        };
    }
    let routes = offered.config_token >= have.config_token;
    let split = offered.split_token >= have.split_token;
    if routes || split {
        MergeDecision::Apply { routes, split }
    } else {
        MergeDecision::Ignore
    }
}

/// Returns whether a removal at resourceVersion `version` removes the node's record.
#[must_use]
pub fn removal_applies(have: &RecordVersions, version: u64) -> bool {
    version >= have.version
}

/// Returns whether a record that a snapshot lacks is kept. It is kept when it is newer than the
/// snapshot, which then comes from an operator replica that lags behind the sender of the record.
#[must_use]
pub fn survives_snapshot(have: &RecordVersions, snapshot_version: u64) -> bool {
    have.version > snapshot_version
}

/// The fields of a traffic split that a hint can change or must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CandidateSplit<'a> {
    /// Token of the traffic split.
    pub token: FencingToken,
    /// Revision that receives the traffic that the candidate does not.
    pub stable: &'a str,
    /// Revision under evaluation; empty when no rollout is running.
    pub candidate: &'a str,
    /// Weight of the candidate in basis points (1/10,000).
    pub weight: u32,
}

/// Returns the candidate's weight after a hint, or `None` when the hint has no effect. A hint can only
/// lower the weight of the candidate it names (of any candidate when it names none), and its token
/// must be larger than that of the split.
#[must_use]
pub fn weight_after_hint(have: CandidateSplit<'_>, offered: CandidateSplit<'_>) -> Option<u32> {
    let same_candidate = offered.candidate.is_empty() || offered.candidate == have.candidate;
    let weight = if offered.candidate.is_empty() {
        0
    } else {
        offered.weight
    };
    let applies = offered.token > have.token
        && !have.candidate.is_empty()
        && same_candidate
        && offered.stable == have.stable
        && weight <= have.weight;
    applies.then_some(weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(epoch: u64, serial: u64) -> FencingToken {
        FencingToken::new(epoch, serial)
    }

    fn standing(
        uid: &str,
        version: u64,
        accepted: FencingToken,
        split: FencingToken,
    ) -> RecordVersions {
        RecordVersions {
            uid: uid.into(),
            version,
            config_token: accepted,
            split_token: split,
        }
    }

    #[test]
    fn each_part_is_judged_by_its_own_pair() {
        let have = standing("u", 10, token(2, 5), token(2, 7));
        let cases = [
            (
                standing("u", 11, token(2, 5), token(2, 7)),
                MergeDecision::Apply {
                    routes: true,
                    split: true,
                },
            ),
            (
                standing("u", 11, token(2, 4), token(2, 8)),
                MergeDecision::Apply {
                    routes: false,
                    split: true,
                },
            ),
            (
                standing("u", 11, token(2, 6), token(2, 6)),
                MergeDecision::Apply {
                    routes: true,
                    split: false,
                },
            ),
            (
                standing("u", 99, token(1, 99), token(1, 99)),
                MergeDecision::Ignore,
            ),
            (
                standing("u", 1, token(3, 0), token(3, 0)),
                MergeDecision::Apply {
                    routes: true,
                    split: true,
                },
            ),
        ];
        for (offered, expected) in cases {
            assert_eq!(
                merge_decision(Some(&have), &offered),
                expected,
                "{offered:?}"
            );
        }
        assert_eq!(
            merge_decision(None, &have),
            MergeDecision::Apply {
                routes: true,
                split: true
            }
        );
    }

    #[test]
    fn a_function_created_again_starts_from_its_own_pairs() {
        let have = standing("old", 10, token(2, 5), token(2, 7));
        let again = standing("new", 12, token(2, 1), token(2, 1));
        assert_eq!(
            merge_decision(Some(&have), &again),
            MergeDecision::Apply {
                routes: true,
                split: true
            }
        );
        assert_eq!(merge_decision(Some(&again), &have), MergeDecision::Ignore);
    }

    #[test]
    fn a_lagging_snapshot_or_removal_ends_nothing_newer() {
        let have = standing("u", 10, token(1, 1), token(1, 1));
        assert!(survives_snapshot(&have, 9));
        assert!(!survives_snapshot(&have, 10));
        assert!(!removal_applies(&have, 9));
        assert!(removal_applies(&have, 10));
    }

    #[test]
    fn a_hint_lowers_and_nothing_else() {
        let have = CandidateSplit {
            token: token(3, 4),
            stable: "a",
            candidate: "b",
            weight: 2_000,
        };
        let cases = [
            (
                CandidateSplit {
                    token: token(3, 5),
                    weight: 500,
                    ..have
                },
                Some(500),
            ),
            (
                CandidateSplit {
                    token: token(3, 5),
                    weight: 2_001,
                    ..have
                },
                None,
            ),
            (CandidateSplit { weight: 0, ..have }, None),
            (
                CandidateSplit {
                    token: token(3, 5),
                    candidate: "c",
                    weight: 0,
                    ..have
                },
                None,
            ),
            (
                CandidateSplit {
                    token: token(3, 5),
                    stable: "b",
                    candidate: "",
                    ..have
                },
                None,
            ),
            (
                CandidateSplit {
                    token: token(3, 5),
                    candidate: "",
                    ..have
                },
                Some(0),
            ),
        ];
        for (offered, expected) in cases {
            assert_eq!(weight_after_hint(have, offered), expected, "{offered:?}");
        }
    }

    proptest! {
        #[test]
        fn taken_pairs_never_fall(steps in prop::collection::vec((0u64..4, 0u64..6, 0u64..4, 0u64..6), 1..40)) {
            let mut have: Option<RecordVersions> = None;
            for (a, b, c, d) in steps {
                let offered = standing("u", 1, token(a, b), token(c, d));
                let before = have.clone();
                if let MergeDecision::Apply { routes, split } = merge_decision(have.as_ref(), &offered) {
                    let mut next = before.clone().unwrap_or_else(|| offered.clone());
                    if routes { next.config_token = offered.config_token; }
                    if split { next.split_token = offered.split_token; }
                    have = Some(next);
                }
                if let (Some(before), Some(after)) = (before, &have) {
                    prop_assert!(after.config_token >= before.config_token && after.split_token >= before.split_token);
                }
            }
        }

        #[test]
        fn a_hint_never_raises(weight in 0u32..10_000, offered in 0u32..10_000, serial in 0u64..9) {
            let have = CandidateSplit { token: token(1, 4), stable: "a", candidate: "b", weight };
            if let Some(after) = weight_after_hint(have, CandidateSplit { token: token(1, serial), weight: offered, ..have }) {
                prop_assert!(after <= weight && serial > 4);
            }
        }
    }
}
