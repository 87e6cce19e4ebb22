//! One decision in the making.

use std::time::Duration;

use jiff::Timestamp;

use crate::function::Function;
use crate::rollout::decision::{later, next_look, since};
use crate::rollout::{
    ArmSums, Decision, EventRecord, Evidence, Look, Pair, Rollout, RolloutState, Share, State,
    StepRecord, TransitionKind, shares,
};

/// An unchanged live rollout is written this often, and decided on at least this often.
pub(in crate::rollout) const CHECKPOINT: Duration = Duration::from_secs(30);
/// A rule that could fire at once waits this long all the same, so that nothing spins.
const LEAST_WAKE: Duration = Duration::from_millis(100);
/// A look that was due and brought nothing new, as between two scrapes, is tried again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Turn<'a> {
    pub(super) now: Timestamp,
    pub(super) function: &'a Function,
    pub(super) evidence: &'a Evidence,
    pub(super) before: &'a RolloutState,
    pub(super) state: RolloutState,
    /// The look of this evidence, once it was counted and until a step was taken on it.
    pub(super) look: Option<&'a Look>,
    /// A pause came with this very evidence: it wins over a resume.
    pub(super) pause_seen: bool,
    told: Vec<EventRecord>,
    write: bool,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        now: Timestamp,
        function: &'a Function,
        before: &'a RolloutState,
        evidence: &'a Evidence,
    ) -> Self {
        let state = before.clone();
        Self {
            now,
            function,
            evidence,
            before,
            state,
            look: None,
            pause_seen: false,
            told: Vec::new(),
            write: false,
        }
    }

    /// Records a transition. Its event, condition and metric follow from the table.
    pub(super) fn tell(&mut self, kind: TransitionKind, message: impl Into<String>) {
        self.state.transitions += 1;
        self.told.push(EventRecord {
            number: self.state.transitions,
            kind,
            message: message.into(),
            at: self.now,
        });
    }

    /// The state must be written even if no transition says so.
    pub(super) fn write(&mut self) {
        self.write = true;
    }

    /// Burns a pair for whatever share follows. Serials rise by two: the one between is the hint's.
    pub(super) fn new_pair(&mut self) {
        if self.state.pair == self.before.pair {
            self.state.pair = Pair {
                epoch: self.before.pair.epoch.max(self.evidence.epoch),
                serial: self.before.pair.serial + 2,
            };
        }
    }

    /// Name of the candidate, for sentences.
    pub(super) fn candidate(&self) -> String {
        self.state
            .rollout
            .as_ref()
            .map(|r| r.candidate.revision.name.clone())
            .unwrap_or_default()
    }

    /// Begins a state or step of the running rollout: its clocks and counters start afresh.
    pub(super) fn begin(&mut self, state: State, change: impl FnOnce(&mut Rollout)) {
        let now = self.now;
        self.state.state = state;
        self.look = None;
        let exposed = state.is_exposed();
        if let Some(r) = &mut self.state.rollout {
            change(r);
            r.step_started_at = now;
            r.active = Duration::ZERO;
            r.clock_at = now;
            r.acked_at = None;
            r.all_acked_at = None;
            r.step_looks = 0;
            r.step_requests = 0;
            r.quiet_looks = 0;
            r.flags.waiting_for.clear();
            r.flags.asked_since = None;
            r.flags.short_since = None;
            // what was held up for taking too long begins anew; other causes are looked at again
            r.flags
                .hold
                .take_if(|h| h.reason >= crate::rollout::HoldReason::LoadDeadlineExceeded);
            if exposed {
                self.state.steps.push(StepRecord {
                    step: r.step,
                    weight: r.weight,
                    started_at: now,
                    ended_at: None,
                    candidate: ArmSums::default(),
                    stable: ArmSums::default(),
                    passed_by: None,
                });
            }
        }
        self.settle();
    }

    /// Gives a changed share its pair.
    pub(super) fn settle(&mut self) {
        if !shares(&self.state).same_effect(&shares(self.before)) {
            self.new_pair();
        }
    }

    /// The decision.
    pub(super) fn finish(mut self) -> Decision {
        self.settle();
        super::intake::count_nodes(&mut self);
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

    fn hint(&self) -> Option<Share> {
        let (old, new) = (shares(self.before), shares(&self.state));
        let same_candidate = old.candidate == new.candidate && new.candidate.is_some();
        let weight = if same_candidate {
            new.weight
        } else {
            crate::rollout::Weight::ZERO
        };
        let promoted = new.stable != old.stable;
        if old.candidate.is_none() || old.stable.is_none() || promoted || weight >= old.weight {
            return None;
        }
        let pair = Pair {
            epoch: old.pair.epoch,
            serial: old.pair.serial + 1,
        };
        Some(Share {
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
        times.extend(super::holds::limits(r));
        let due = crate::rollout::due(self.now, self.function, &self.state);
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
