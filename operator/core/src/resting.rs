//! When what nodes do to a function at rest is worth a status write.
//!
//! A change is written at once, with two limits: one function is not written again within [`SPACING`], so a node that
//! comes and goes costs little, and all functions together share an [`Allowance`], so a zone that goes away does not
//! flood the API server.

use std::time::Duration;

use jiff::Timestamp;

use crate::rollout::NodesCount;

/// Between two such writes of one function; also how long nodes may take over a share before their way is written.
pub const SPACING: Duration = Duration::from_secs(10);
/// Such writes per second, and at once, over all functions.
pub const PER_SECOND: u32 = 5;

/// How the nodes of a function at rest differ from what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Not at all.
    None,
    /// More nodes follow than before, but not all yet: the rest is a moment away.
    Rising,
    /// Fewer nodes follow.
    Falling,
    /// All live nodes follow, or something else changed.
    Settled,
}

impl Drift {
    /// What became of the nodes, for counts that differ; `other` when something beside them changed too.
    #[must_use]
    pub fn between(old: Counts, new: &NodesCount, other: bool) -> Self {
        if new.applied < old.applied || new.failed > old.failed || new.loaded < old.loaded {
            Self::Falling
        } else if other || new.applied >= new.live {
            Self::Settled
        } else {
            Self::Rising
        }
    }
}

/// What is written of a function's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Act on the present share.
    pub applied: u32,
    /// Have it loaded.
    pub loaded: u32,
    /// Will never load it.
    pub failed: u32,
}

/// One function's pace of such writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Since when nodes differ from what is written.
    since: Option<Timestamp>,
    /// The last such write.
    written: Option<Timestamp>,
    /// Nodes were once as written since this leader began: before that, the missing may just not have called yet.
    agreed: bool,
}

impl Pace {
    /// When the difference may be written; `None` without one.
    pub fn due(&mut self, drift: Drift, now: Timestamp) -> Option<Timestamp> {
        // moments that lie in the future since the clock was set back would otherwise stop writes until then
        for moment in [&mut self.since, &mut self.written].into_iter().flatten() {
            *moment = (*moment).min(now);
        }
        if drift == Drift::None {
            self.since = None;
            self.agreed = true;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let patient = match drift {
            Drift::Rising => true,
            Drift::Falling => !self.agreed,
            Drift::None | Drift::Settled => false,
        };
        let first = if patient { later(since) } else { since };
        Some(self.written.map_or(first, |at| first.max(later(at))))
    }

    /// It was written because nodes differed.
    pub fn written(&mut self, now: Timestamp) {
        self.since = None;
        self.written = Some(now);
        self.agreed = true;
    }

    /// The status was written for another reason: what nodes did meanwhile went with it.
    pub fn carried(&mut self) {
        self.since = None;
    }
}

/// What all functions together may use: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowance {
    left: f64,
    at: Timestamp,
}

impl Allowance {
    /// Full.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self {
            left: f64::from(PER_SECOND),
            at: now,
        }
    }

    /// Takes one write, or says when there is one.
    ///
    /// # Errors
    /// It is used up until the moment that is returned.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        let rate = f64::from(PER_SECOND);
        let passed = Duration::try_from(now.duration_since(self.at)).unwrap_or_default();
        self.left = (self.left + passed.as_secs_f64() * rate).min(rate);
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - self.left) / rate);
        Err(now.saturating_add(wait).unwrap_or(Timestamp::MAX))
    }
}

fn later(at: Timestamp) -> Timestamp {
    at.saturating_add(SPACING).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    #[test]
    fn a_change_is_due_at_once_and_the_next_one_of_the_same_function_a_little_later() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(Drift::Settled, at(0)), Some(at(0)));
        pace.written(at(0));
        assert_eq!(pace.due(Drift::None, at(100)), None);
        assert_eq!(pace.due(Drift::Falling, at(200)), Some(at(10_000)));
        assert_eq!(pace.due(Drift::None, at(300)), None);
        assert_eq!(pace.due(Drift::Falling, at(20_000)), Some(at(20_000)));
    }

    #[test]
    fn a_share_on_its_way_is_written_when_all_have_it_or_when_it_takes_long() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(Drift::Rising, at(0)), Some(at(10_000)));
        assert_eq!(pace.due(Drift::Rising, at(500)), Some(at(10_000)));
        assert_eq!(pace.due(Drift::Settled, at(600)), Some(at(0)));
    }

    #[test]
    fn a_leader_that_has_just_begun_does_not_report_nodes_missing_that_have_not_called_yet() {
        let mut pace = Pace::default();
        assert_eq!(pace.due(Drift::Falling, at(0)), Some(at(10_000)));
        assert_eq!(pace.due(Drift::None, at(900)), None);
        assert_eq!(pace.due(Drift::Falling, at(1_000)), Some(at(1_000)));
    }

    /// FC-17: a clock that is set back delays no write.
    #[test]
    fn a_clock_that_is_set_back_stops_nothing() {
        let mut pace = Pace::default();
        pace.written(at(3_600_000));
        assert_eq!(pace.due(Drift::Settled, at(0)), Some(at(10_000)));
        let mut allowance = Allowance::new(at(3_600_000));
        while allowance.take(at(3_600_000)).is_ok() {}
        assert_eq!(allowance.take(at(0)), Err(at(200)));
        assert_eq!(allowance.take(at(200)), Ok(()));
    }

    #[test]
    fn all_functions_together_write_five_times_a_second() {
        let mut allowance = Allowance::new(at(0));
        let mut written = 0;
        for millis in 0..10_000 {
            written += u32::from(allowance.take(at(millis)).is_ok());
        }
        assert!((50..=5 + 50).contains(&written), "{written}");
    }

    #[test]
    fn what_nodes_did_is_told_apart() {
        let old = Counts {
            applied: 1,
            loaded: 3,
            failed: 0,
        };
        let new = |applied, loaded, failed| NodesCount {
            desired: 3,
            live: 3,
            applied,
            loaded,
            failed,
            problem: None,
        };
        assert_eq!(Drift::between(old, &new(2, 3, 0), false), Drift::Rising);
        assert_eq!(Drift::between(old, &new(2, 3, 0), true), Drift::Settled);
        assert_eq!(Drift::between(old, &new(3, 3, 0), false), Drift::Settled);
        assert_eq!(Drift::between(old, &new(0, 3, 0), true), Drift::Falling);
        assert_eq!(Drift::between(old, &new(3, 3, 1), false), Drift::Falling);
    }
}
