//! End of a decision: whether to write, what to send to the nodes at once, and when to decide again.

use std::time::Duration;

use jiff::Timestamp;

use super::context::DecisionContext;
use super::holds;
use crate::rollout::decision::{CHECKPOINT, later, next_evaluation, since};
use crate::rollout::{
    Decision, Rollout, RolloutState, State, TrafficSplit, Weight, hint_token,
    required_measurements, traffic_split,
};

/// Minimum time until the next decision, so that no rule causes a busy loop.
const MIN_WAKE: Duration = Duration::from_millis(100);
/// Time after which an evaluation without new samples, as between two scrapes, or the traffic is measured again.
const RETRY_EVALUATION: Duration = Duration::from_secs(1);

impl DecisionContext<'_> {
    /// Completes the decision.
    pub(super) fn finish(mut self) -> Decision {
        self.settle();
        self.count_nodes();
        self.acknowledge_suspension();
        self.state.observed_generation =
            self.state.observed_generation.max(self.function.generation);
        let hint = self.hint();
        let checkpoint = self.checkpoint_due();
        let fully_acknowledged_now = self.fully_acknowledged_now();
        let persist = self.write
            || !self.events.is_empty()
            || checkpoint
            || fully_acknowledged_now
            || self.samples_came_or_went()
            || self.all_nodes_came_or_went()
            || self.state.token != self.before.token
            || self.state.observed_generation != self.before.observed_generation;
        if persist && let Some(r) = &mut self.state.rollout {
            r.checkpoint_at = self.now;
        }
        if !self.events.is_empty() {
            self.state.events = self.events.clone();
        }
        let wake_at = self.wake_at();
        Decision {
            state: self.state,
            wake_at,
            transitions: self.events,
            persist,
            hint,
        }
    }

    /// Whether the running clocks must be written, so that they survive a crash. A rollout that waits for a person has none.
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

    /// Whether all live nodes apply the current weight for the first time. Without a write of its own the status would show
    /// for half a minute that the weight is being sent.
    fn fully_acknowledged_now(&mut self) -> bool {
        let nodes = &self.state.nodes;
        let all = self.state.state.is_exposed() && nodes.live > 0 && nodes.applied >= nodes.live;
        let Some(r) = self.state.rollout.as_mut().filter(|_| all) else {
            return false;
        };
        let first = r.all_acked_at.is_none();
        r.all_acked_at = r.all_acked_at.or(Some(self.now));
        first
    }

    /// Whether samples are missing for the first time, for another reason, or no longer. Without a write of its own the status
    /// would name another reason for the wait for half a minute.
    fn samples_came_or_went(&self) -> bool {
        let missing = |state: &RolloutState| {
            let flags = state.rollout.as_ref().map(|r| &r.flags)?;
            flags.unmeasured.as_ref().map(|u| u.kind)
        };
        missing(self.before) != missing(&self.state)
    }

    /// Whether a running rollout has just lost all nodes that should serve the function, or has one again, such as after
    /// `kubectl scale`. Without a write of its own the status would show for half a minute that nodes serve a function that no
    /// node serves, or the reverse. Other changes of their number wait, because every node that joins changes every rollout.
    fn all_nodes_came_or_went(&self) -> bool {
        let nowhere = |state: &RolloutState| state.nodes.desired == 0;
        self.state.rollout.is_some()
            && self.before.rollout.is_some()
            && nowhere(self.before) != nowhere(&self.state)
    }

    fn hint(&self) -> Option<TrafficSplit> {
        let (old, new) = (traffic_split(self.before), traffic_split(&self.state));
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
        Some(TrafficSplit {
            token: hint_token(old.token),
            weight,
            ..old
        })
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let earliest = later(self.now, MIN_WAKE);
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
            times.extend(next_evaluation(self.now, &self.state));
            times.extend(
                self.active_limits(r)
                    .iter()
                    .map(|limit| later(self.now, limit.saturating_sub(r.active))),
            );
        } else if r.flags.paused.is_some() {
            times.extend(next_evaluation(self.now, &self.state));
        }
        times.extend(holds::limits(r));
        let required = required_measurements(self.now, self.function, &self.state);
        if required.traffic && self.state.state == State::Queued && self.input.traffic.is_none() {
            // either no earlier decision requested the traffic, or it is not known yet
            let requested =
                crate::rollout::required_measurements(self.now, self.function, self.before).traffic;
            times.push(if requested {
                later(self.now, RETRY_EVALUATION)
            } else {
                earliest
            });
        }
        if required.evaluation {
            times.push(later(self.now, RETRY_EVALUATION));
        }
        // times that have passed have already had their effect
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
