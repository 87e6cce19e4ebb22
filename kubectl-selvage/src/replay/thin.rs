//! Divides recorded requests between two versions as a weight would have.
//!
//! A version that was recorded with all requests has more of them than a candidate at 5 % would have had, and more requests
//! are more evidence. So each recorded request is played with the probability that makes the two versions have as many
//! requests as the weight gives them. The choice is random, because the tests exist to tell a difference from chance: expected
//! counts vary less than real ones, and a version played against itself would then never differ from itself.
//!
//! Nothing is invented. If one version was recorded with fewer requests than its weight gives it, the other one is thinned
//! to fit, and the play has less evidence than the rollout would have had.

use delivery::rollout::Weight;
use delivery::samples::{Histogram, Tally};

use super::dice::Dice;
use super::timeline::{Recorded, Slot};

/// Requests that are played, and those that the rollout would have had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) played: u64,
    pub(super) served: u64,
}

/// Probabilities with which recorded requests of candidate and stable are played.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Chances {
    /// The requests of one version are divided: each is the candidate's with this probability, else stable's.
    Divided(f64),
    Thinned {
        candidate: f64,
        stable: f64,
    },
}

/// Thins the intervals of a recording.
pub(super) struct Thinner {
    dice: Dice,
    against_itself: bool,
}

impl Thinner {
    pub(super) const fn new(seed: u64, against_itself: bool) -> Self {
        Self {
            dice: Dice::new(seed),
            against_itself,
        }
    }

    /// Returns the counts of candidate and stable in each process at a weight of the candidate.
    pub(super) fn play<'a>(
        &mut self,
        slot: &'a Slot,
        weight: Weight,
    ) -> (Vec<(&'a str, Tally, Tally)>, Used) {
        let sum = slot.sum();
        let chances = self.chances(&sum, weight.share());
        let mut used = Used {
            played: 0,
            served: sum.served,
        };
        let mut rows = Vec::with_capacity(slot.processes.len());
        for (process, recorded) in &slot.processes {
            let (candidate, stable) = self.divide(recorded, chances);
            used.played += candidate.requests + stable.requests;
            rows.push((process.as_str(), candidate, stable));
        }
        (rows, used)
    }

    fn chances(&self, sum: &Recorded, weight: f64) -> Chances {
        if self.against_itself {
            return Chances::Divided(weight);
        }
        // the largest number of requests for which both versions have enough
        let enough_for = |requests: u64, share: f64| {
            if share > 0.0 {
                requests as f64 / share
            } else {
                f64::INFINITY
            }
        };
        let (candidate, stable) = (sum.candidate.requests, sum.stable.requests);
        let all = (sum.served as f64)
            .min(enough_for(candidate, weight))
            .min(enough_for(stable, 1.0 - weight));
        let chance = |requests: u64, share: f64| {
            if requests > 0 {
                (all * share / requests as f64).min(1.0)
            } else {
                0.0
            }
        };
        Chances::Thinned {
            candidate: chance(candidate, weight),
            stable: chance(stable, 1.0 - weight),
        }
    }

    fn divide(&mut self, recorded: &Recorded, chances: Chances) -> (Tally, Tally) {
        match chances {
            Chances::Divided(share) => {
                let candidate = self.thin(&recorded.stable, share);
                (candidate, rest(&recorded.stable, &candidate))
            }
            Chances::Thinned { candidate, stable } => (
                self.thin(&recorded.candidate, candidate),
                self.thin(&recorded.stable, stable),
            ),
        }
    }

    /// Plays each request with a probability. A recording does not say which requests were slow or failed, and no test asks for
    /// both, so those that failed are spread over the chosen ones by chance.
    fn thin(&mut self, tally: &Tally, chance: f64) -> Tally {
        let mut latency = Histogram::default();
        for (to, from) in latency.0.iter_mut().zip(tally.latency.0) {
            *to = self.dice.chosen(from, chance);
        }
        let without_latency = tally.requests.saturating_sub(tally.latency.count());
        let requests = latency.count() + self.dice.chosen(without_latency, chance);
        // the latency of a request may be counted an interval before the request ends
        let requests = requests.min(tally.requests);
        let errors = self.dice.marked(tally.requests, tally.errors, requests);
        let client_errors = self.dice.marked(
            tally.requests.saturating_sub(tally.errors),
            tally.client_errors,
            requests - errors,
        );
        Tally {
            requests,
            errors,
            client_errors,
            latency,
        }
    }
}

/// The requests of `all` that are not in `part`.
fn rest(all: &Tally, part: &Tally) -> Tally {
    let mut latency = all.latency;
    for (left, taken) in latency.0.iter_mut().zip(part.latency.0) {
        *left = left.saturating_sub(taken);
    }
    Tally {
        requests: all.requests.saturating_sub(part.requests),
        errors: all.errors.saturating_sub(part.errors),
        client_errors: all.client_errors.saturating_sub(part.client_errors),
        latency,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(requests: u64, errors: u64) -> Tally {
        let mut tally = Tally {
            requests,
            errors,
            client_errors: requests / 10,
            ..Tally::default()
        };
        tally.latency.0[3] = requests / 2;
        tally.latency.0[9] = requests / 4;
        tally
    }

    fn slot(stable: u64, candidate: u64, served: u64) -> Slot {
        let recorded = Recorded {
            stable: tally(stable, stable / 100),
            candidate: tally(candidate, candidate / 5),
            served,
        };
        Slot {
            processes: [("all".to_owned(), recorded)].into(),
        }
    }

    #[test]
    fn a_version_against_itself_loses_no_request() {
        let slot = slot(10_000, 0, 10_000);
        let mut thinner = Thinner::new(1, true);
        let (rows, used) = thinner.play(&slot, Weight::percent(5));
        let (_, candidate, stable) = rows[0];
        let mut sum = candidate;
        sum.add(&stable);
        assert_eq!(sum, slot.processes["all"].stable);
        assert!((400..600).contains(&candidate.requests), "{candidate:?}");
        assert_eq!((used.played, used.served), (10_000, 10_000));
    }

    #[test]
    fn versions_recorded_with_all_requests_are_thinned_to_their_weights() {
        let slot = slot(10_000, 10_000, 10_000);
        let (rows, used) = Thinner::new(1, false).play(&slot, Weight::percent(5));
        let (_, candidate, stable) = rows[0];
        assert!((400..600).contains(&candidate.requests), "{candidate:?}");
        assert!((9_300..9_700).contains(&stable.requests), "{stable:?}");
        assert!((60..140).contains(&candidate.errors), "{candidate:?}");
        assert!(candidate.latency.count() <= candidate.requests);
        assert!((9_800..10_200).contains(&used.played), "{used:?}");
    }

    /// 100 requests are what a candidate at 50 % has of 200, so 200 are played of 10,000.
    #[test]
    fn what_was_not_recorded_is_not_invented() {
        let slot = slot(9_900, 100, 10_000);
        let (rows, used) = Thinner::new(1, false).play(&slot, Weight::percent(50));
        let (_, candidate, stable) = rows[0];
        assert_eq!(candidate, slot.processes["all"].candidate);
        assert!((50..150).contains(&stable.requests), "{stable:?}");
        assert!(used.played < 300 && used.served == 10_000, "{used:?}");
    }

    #[test]
    fn at_weight_zero_stable_has_all_requests() {
        let slot = slot(900, 100, 1_000);
        let (rows, _) = Thinner::new(1, false).play(&slot, Weight::ZERO);
        assert_eq!((rows[0].1.requests, rows[0].2.requests), (0, 900));
    }
}
