//! One decision in the making.

use std::time::Duration;

use jiff::Timestamp;

use crate::function::Function;
use crate::rollout::{
    ArmSums, EventRecord, Evidence, FencingToken, Look, NodesCount, Rollout, RolloutState, State,
    StepRecord, TransitionKind, shares,
};

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
    pub(super) told: Vec<EventRecord>,
    pub(super) write: bool,
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
            self.state.pair = FencingToken {
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

    /// How far nodes are with whatever is being rolled out, else with stable.
    pub(super) fn count_nodes(&mut self) {
        let nodes = &self.evidence.nodes;
        let subject = self
            .state
            .rollout
            .as_ref()
            .map(|r| &r.candidate)
            .or(self.state.stable.as_ref());
        let on = subject
            .map(|p| nodes.of(&p.revision.name))
            .unwrap_or_default();
        self.state.nodes = NodesCount {
            desired: nodes.desired,
            live: nodes.live,
            loaded: on.loaded,
            applied: if nodes.pair == self.state.pair {
                nodes.applied
            } else {
                0
            },
            failed: on.failed,
            problem: on.problem,
        };
    }

    /// Enough of the live nodes have the candidate.
    pub(super) fn loaded(&self) -> bool {
        let nodes = &self.evidence.nodes;
        let Some(r) = &self.state.rollout else {
            return false;
        };
        let on = nodes.of(&r.candidate.revision.name);
        nodes.live > 0 && r.plan.nodes.min_loaded.reached(on.loaded, nodes.live)
    }

    /// Enough of the live nodes have loaded the candidate and acknowledged its present share.
    pub(super) fn follows(&self) -> bool {
        let nodes = &self.evidence.nodes;
        let Some(r) = &self.state.rollout else {
            return false;
        };
        nodes.live > 0
            && nodes.pair == self.state.pair
            && r.plan.nodes.min_loaded.reached(nodes.applied, nodes.live)
    }
}
