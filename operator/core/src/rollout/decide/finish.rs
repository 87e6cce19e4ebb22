//! What follows from a turn: whether to write, what to tell nodes at once, when to look again.

use std::time::Duration;

use jiff::Timestamp;

use super::holds;
use super::context::DecisionContext;
use crate::rollout::decision::{CHECKPOINT, later, next_look, since};
use crate::rollout::{Decision, FencingToken, Rollout, TrafficSplit, State, Weight, due, shares};

/// A rule that could fire at once waits this long all the same, so that nothing spins.
const LEAST_WAKE: Duration = Duration::from_millis(100);
/// A look that was due and brought nothing new, as between two scrapes, is tried again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl DecisionContext<'_> {
    /// The decision.
    pub(super) fn finish(mut self) -> Decision {
        self.settle();
        self.count_nodes();
        self.state.observed_generation =
            self.state.observed_generation.max(self.function.generation);
        let hint = self.hint();
        let checkpoint = self.checkpoint_due();
        let arrived = self.arrived();
        let persist = self.write
            || !self.told.is_empty()
            || checkpoint
            || arrived
            || self.state.pair != self.before.pair
            || self.state.observed_generation != self.before.observed_generation;
        if persist && let Some(r) = &mut self.state.rollout {
            r.checkpoint_at = self.now;
        }
        if !self.told.is_empty() {
            self.state.events = self.told.clone();
        }
        let wake_at = self.wake_at();
        Decision {
            state: self.state,
            wake_at,
            transitions: self.told,
            persist,
            hint,
        }
    }

    /// Clocks of a live rollout must survive a crash; one that waits for a person alone has none.
    fn checkpoint_due(&self) -> bool {
        let Some(r) = &self.state.rollout else {
            return false;
        };
        let clocked = self.state.state.is_exposed()
            || (self.state.state == State::Loading
                && r.flags.hold.is_none()
                && r.flags.paused.is_none());
        clocked && (self.now < r.checkpoint_at || since(r.checkpoint_at, self.now) >= CHECKPOINT)
    }

    /// All live nodes act on the present share for the first time: without a write of its own the status would go on
    /// saying for half a minute that the share is on its way.
    fn arrived(&mut self) -> bool {
        let nodes = &self.state.nodes;
        let all = self.state.state.is_exposed() && nodes.live > 0 && nodes.applied >= nodes.live;
        let Some(r) = self.state.rollout.as_mut().filter(|_| all) else {
            return false;
        };
        let first = r.all_acked_at.is_none();
        r.all_acked_at = r.all_acked_at.or(Some(self.now));
        first
    }

    fn hint(&self) -> Option<TrafficSplit> {
        let (old, new) = (shares(self.before), shares(&self.state));
        let same_candidate = old.candidate == new.candidate && new.candidate.is_some();
        let weight = if same_candidate {
            new.weight
        } else {
            Weight::ZERO
        };
        let promoted = new.stable != old.stable;
        if old.candidate.is_none() || old.stable.is_none() || promoted || weight >= old.weight {
            return None;
        }
        let pair = FencingToken {
            epoch: old.pair.epoch,
            serial: old.pair.serial + 1,
        };
        Some(TrafficSplit {
            pair,
            weight,
            ..old
        })
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let earliest = later(self.now, LEAST_WAKE);
        let Some(r) = &self.state.rollout else {
            return self.state.previous.as_ref().map(|p| p.until.max(earliest));
        };
        let mut times = vec![later(self.now, CHECKPOINT)];
        let running = r.flags.paused.is_none()
            && !r
                .flags
                .hold
                .as_ref()
                .is_some_and(|h| h.reason.stops_clock());
        if running {
            times.extend(next_look(self.now, &self.state));
            times.extend(
                self.active_limits(r)
                    .iter()
                    .map(|limit| later(self.now, limit.saturating_sub(r.active))),
            );
        } else if r.flags.paused.is_some() {
            times.extend(next_look(self.now, &self.state));
        }
        times.extend(holds::limits(r));
        let due = due(self.now, self.function, &self.state);
        if due.traffic && self.state.state == State::Queued && self.evidence.traffic.is_none() {
            // nobody had asked before this very decision
            times.push(earliest);
        }
        if due.look {
            times.push(later(self.now, LOOK_AGAIN));
        }
        // what has passed has had its effect
        times
            .into_iter()
            .filter(|t| *t > self.now)
            .min()
            .map(|t| t.max(earliest))
    }

    fn active_limits(&self, r: &Rollout) -> Vec<Duration> {
        match self.state.state {
            State::Loading => vec![r.plan.nodes.load_deadline],
            State::Stepping => r
                .plan
                .steps
                .get(r.step)
                .map(|s| vec![s.min_duration, s.deadline])
                .unwrap_or_default(),
            State::Baking => vec![r.plan.bake.duration],
            _ => Vec::new(),
        }
    }
}
