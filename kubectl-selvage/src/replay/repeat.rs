//! Many plays of a version against itself, each with a later start: how often would a harmless candidate be rolled back?

use std::time::Duration;

use jiff::Timestamp;

use super::play::{Outcome, Play, Setup, first_start, play};
use super::timeline::Timeline;

/// Largest number of starts unless a person sets the time between them.
const STARTS: usize = 200;
/// Reason of the Event when a weight is held.
const HELD: &str = "Held";

/// A play that was rolled back.
#[derive(Clone, Debug)]
pub(crate) struct Rollback {
    pub(crate) started_at: Timestamp,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Results of all plays.
#[derive(Clone, Debug)]
pub(crate) struct Repeated {
    pub(crate) revision: String,
    /// Time between two starts.
    pub(crate) every: Duration,
    pub(crate) first_start: Timestamp,
    pub(crate) last_start: Timestamp,
    pub(crate) promoted: usize,
    pub(crate) rollbacks: Vec<Rollback>,
    /// Plays whose rollout had not ended when the recording did.
    pub(crate) unfinished: usize,
    /// Plays whose weight was held at some time, whatever their end.
    pub(crate) held: usize,
    /// Accepted share of harmless candidates that are rolled back.
    pub(crate) false_rollbacks: f64,
    /// Whether a play lasts longer than the time to the next start, so that plays share requests.
    pub(crate) overlap: bool,
}

impl Repeated {
    /// Number of plays.
    pub(crate) const fn plays(&self) -> usize {
        self.promoted + self.rollbacks.len() + self.unfinished
    }

    /// Share of the plays that were rolled back. Those without an end count as well: the policy promises its share for every
    /// part of a rollout, and starts near the end of the recording have time to be rolled back, but not to be promoted.
    pub(crate) fn share(&self) -> f64 {
        self.rollbacks.len() as f64 / self.plays().max(1) as f64
    }

    /// Whether more plays were rolled back than the policy accepts.
    pub(crate) fn exceeds(&self) -> bool {
        self.share() > self.false_rollbacks
    }
}

/// Plays stable against itself from many starts. `tick` is called after each play with the number of plays so far and of all.
pub(crate) fn repeat(
    timeline: &Timeline,
    setup: &Setup,
    every: Option<Duration>,
    mut tick: impl FnMut(usize, usize),
) -> Repeated {
    let first = first_start(timeline);
    let room = timeline.slots.len().saturating_sub(first).max(1);
    let step = match every {
        Some(every) => timeline.intervals(every),
        None => room.div_ceil(STARTS),
    };
    let starts: Vec<usize> = (first..timeline.slots.len()).step_by(step.max(1)).collect();
    let interval = timeline.interval;
    let every = interval.saturating_mul(u32::try_from(step).unwrap_or(u32::MAX));
    let mut found = Repeated {
        revision: timeline.versions.stable.clone(),
        every,
        first_start: timeline.at(first),
        last_start: timeline.at(starts.last().copied().unwrap_or(first)),
        promoted: 0,
        rollbacks: Vec::new(),
        unfinished: 0,
        held: 0,
        false_rollbacks: setup.policy.analysis.false_rollbacks,
        overlap: false,
    };
    for (number, start) in starts.iter().enumerate() {
        let setup = Setup {
            // other requests in each play, so that one unlucky choice is not counted again and again
            seed: setup.seed.wrapping_add(number as u64),
            ..setup.clone()
        };
        found.add(play(timeline, &setup, *start, false));
        tick(number + 1, starts.len());
    }
    found
}

impl Repeated {
    fn add(&mut self, play: Play) {
        let took = Duration::try_from(play.took()).unwrap_or_default();
        self.overlap |= took > self.every;
        self.held += usize::from(play.decisions.iter().any(|one| one.reason == HELD));
        match play.outcome {
            Outcome::Promoted => self.promoted += 1,
            Outcome::DataEnded { .. } => self.unfinished += 1,
            Outcome::RolledBack { reason } => self.rollbacks.push(Rollback {
                started_at: play.started_at,
                reason,
                message: play.message,
            }),
        }
    }
}
