//! Which offered records replace what a node has.
//!
//! A pair orders the decisions about one function, whichever way they come; a version orders
//! objects. A pair counts only within one life of a function: created again under the same name, it
//! starts from its own numbers, and then the newer object wins.

use node_api_types::FencingToken;

/// What decides between two records of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Identity of the function's object.
    pub uid: String,
    /// resourceVersion of the newest object the record was built from.
    pub version: u64,
    /// Pair of routes, placement and suspension.
    pub accepted: FencingToken,
    /// Pair of the share.
    pub share: FencingToken,
}

/// Which parts of an offered record are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Everything is older than what the node has.
    Ignore,
    /// At least one part is taken.
    Take {
        /// Routes, placement and suspension.
        routes: bool,
        /// Share.
        share: bool,
    },
}

/// Judges an offered record against the one in place.
#[must_use]
pub fn intake(have: Option<&Standing>, offered: &Standing) -> Intake {
    let Some(have) = have else {
        return Intake::Take {
            routes: true,
            share: true,
        };
    };
    if have.uid != offered.uid {
        return if offered.version >= have.version {
            Intake::Take {
                routes: true,
                share: true,
            }
        } else {
            Intake::Ignore
        };
    }
    let routes = offered.accepted >= have.accepted;
    let share = offered.share >= have.share;
    if routes || share {
        Intake::Take { routes, share }
    } else {
        Intake::Ignore
    }
}

/// Whether a removal seen at `version` ends the record in place.
#[must_use]
pub fn removes(have: &Standing, version: u64) -> bool {
    version >= have.version
}

/// Whether a record that a snapshot does not mention stays: it was made after the snapshot, which
/// then comes from a replica that lags behind the one the record came from.
#[must_use]
pub fn survives_snapshot(have: &Standing, snapshot_version: u64) -> bool {
    have.version > snapshot_version
}

/// The part of a share that a hint may speak about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintView<'a> {
    /// Pair of the share.
    pub pair: FencingToken,
    /// Revision the candidate's remainder goes to.
    pub stable: &'a str,
    /// Revision under trial; empty at rest.
    pub candidate: &'a str,
    /// The candidate's share in 1/10,000.
    pub weight: u32,
}

/// The weight after a hint, or `None` when the hint has no effect. A hint may only lower the share
/// of the candidate it names (or of any, when it names none), with a pair not seen before.
#[must_use]
pub fn hint(have: HintView<'_>, offered: HintView<'_>) -> Option<u32> {
    let same_candidate = offered.candidate.is_empty() || offered.candidate == have.candidate;
    let weight = if offered.candidate.is_empty() {
        0
    } else {
        offered.weight
    };
    let applies = offered.pair > have.pair
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

    fn pair(epoch: u64, serial: u64) -> FencingToken {
        FencingToken::new(epoch, serial)
    }

    fn standing(uid: &str, version: u64, accepted: FencingToken, share: FencingToken) -> Standing {
        Standing {
            uid: uid.into(),
            version,
            accepted,
            share,
        }
    }

    #[test]
    fn each_part_is_judged_by_its_own_pair() {
        let have = standing("u", 10, pair(2, 5), pair(2, 7));
        let cases = [
            (
                standing("u", 11, pair(2, 5), pair(2, 7)),
                Intake::Take {
                    routes: true,
                    share: true,
                },
            ),
            (
                standing("u", 11, pair(2, 4), pair(2, 8)),
                Intake::Take {
                    routes: false,
                    share: true,
                },
            ),
            (
                standing("u", 11, pair(2, 6), pair(2, 6)),
                Intake::Take {
                    routes: true,
                    share: false,
                },
            ),
            (standing("u", 99, pair(1, 99), pair(1, 99)), Intake::Ignore),
            (
                standing("u", 1, pair(3, 0), pair(3, 0)),
                Intake::Take {
                    routes: true,
                    share: true,
                },
            ),
        ];
        for (offered, expected) in cases {
            assert_eq!(intake(Some(&have), &offered), expected, "{offered:?}");
        }
        assert_eq!(
            intake(None, &have),
            Intake::Take {
                routes: true,
                share: true
            }
        );
    }

    #[test]
    fn a_function_created_again_starts_from_its_own_pairs() {
        let have = standing("old", 10, pair(2, 5), pair(2, 7));
        let again = standing("new", 12, pair(2, 1), pair(2, 1));
        assert_eq!(
            intake(Some(&have), &again),
            Intake::Take {
                routes: true,
                share: true
            }
        );
        assert_eq!(intake(Some(&again), &have), Intake::Ignore);
    }

    #[test]
    fn a_lagging_snapshot_or_removal_ends_nothing_newer() {
        let have = standing("u", 10, pair(1, 1), pair(1, 1));
        assert!(survives_snapshot(&have, 9));
        assert!(!survives_snapshot(&have, 10));
        assert!(!removes(&have, 9));
        assert!(removes(&have, 10));
    }

    #[test]
    fn a_hint_lowers_and_nothing_else() {
        let have = HintView {
            pair: pair(3, 4),
            stable: "a",
            candidate: "b",
            weight: 2_000,
        };
        let cases = [
            (
                HintView {
                    pair: pair(3, 5),
                    weight: 500,
                    ..have
                },
                Some(500),
            ),
            (
                HintView {
                    pair: pair(3, 5),
                    weight: 2_001,
                    ..have
                },
                None,
            ),
            (HintView { weight: 0, ..have }, None),
            (
                HintView {
                    pair: pair(3, 5),
                    candidate: "c",
                    weight: 0,
                    ..have
                },
                None,
            ),
            (
                HintView {
                    pair: pair(3, 5),
                    stable: "b",
                    candidate: "",
                    ..have
                },
                None,
            ),
            (
                HintView {
                    pair: pair(3, 5),
                    candidate: "",
                    ..have
                },
                Some(0),
            ),
        ];
        for (offered, expected) in cases {
            assert_eq!(hint(have, offered), expected, "{offered:?}");
        }
    }

    proptest! {
        #[test]
        fn taken_pairs_never_fall(steps in prop::collection::vec((0u64..4, 0u64..6, 0u64..4, 0u64..6), 1..40)) {
            let mut have: Option<Standing> = None;
            for (a, b, c, d) in steps {
                let offered = standing("u", 1, pair(a, b), pair(c, d));
                let before = have.clone();
                if let Intake::Take { routes, share } = intake(have.as_ref(), &offered) {
                    let mut next = before.clone().unwrap_or_else(|| offered.clone());
                    if routes { next.accepted = offered.accepted; }
                    if share { next.share = offered.share; }
                    have = Some(next);
                }
                if let (Some(before), Some(after)) = (before, &have) {
                    prop_assert!(after.accepted >= before.accepted && after.share >= before.share);
                }
            }
        }

        #[test]
        fn a_hint_never_raises(weight in 0u32..10_000, offered in 0u32..10_000, serial in 0u64..9) {
            let have = HintView { pair: pair(1, 4), stable: "a", candidate: "b", weight };
            if let Some(after) = hint(have, HintView { pair: pair(1, serial), weight: offered, ..have }) {
                prop_assert!(after <= weight && serial > 4);
            }
        }
    }
}
