//! Working state of one decision.

use std::time::Duration;

use jiff::Timestamp;

use crate::function::Function;
use crate::rollout::{
    DecisionInput, Evaluation, EventRecord, FencingToken, NodesCount, RequestCounts, Rollout,
    RolloutState, State, StepRecord, Suspension, TransitionKind, suspension, traffic_split,
};

/// Input, next state and transitions of one decision.
pub(super) struct DecisionContext<'a> {
    pub(super) now: Timestamp,
    pub(super) function: &'a Function,
    pub(super) input: &'a DecisionInput,
    pub(super) before: &'a RolloutState,
    pub(super) state: RolloutState,
    /// Evaluation of this evidence, from the time it was counted until a step ended by it.
    pub(super) evaluation: Option<&'a Evaluation>,
    /// Whether a pause was handled in this decision. It wins over a resume.
    pub(super) pause_seen: bool,
    pub(super) events: Vec<EventRecord>,
    pub(super) write: bool,
}

impl<'a> DecisionContext<'a> {
    pub(super) fn new(
        now: Timestamp,
        function: &'a Function,
        before: &'a RolloutState,
        input: &'a DecisionInput,
    ) -> Self {
        let state = before.clone();
        Self {
            now,
            function,
            input,
            before,
            state,
            evaluation: None,
            pause_seen: false,
            events: Vec::new(),
            write: false,
        }
    }

    /// Records a transition. Its Event, condition and metric follow from the table.
    pub(super) fn record_event(&mut self, kind: TransitionKind, message: impl Into<String>) {
        self.state.transitions += 1;
        self.events.push(EventRecord {
            number: self.state.transitions,
            kind,
            message: message.into(),
            at: self.now,
        });
    }

    /// Requires the state to be written even without a transition.
    pub(super) fn write(&mut self) {
        self.write = true;
    }

    /// Takes a new fencing token for the next traffic split, once per decision. Serials rise by two: the hint uses the one
    /// in between.
    pub(super) fn new_token(&mut self) {
        if self.state.token == self.before.token {
            self.state.token = FencingToken {
                epoch: self.before.token.epoch.max(self.input.epoch),
                serial: self.before.token.serial + 2,
            };
        }
    }

    /// Name of the candidate, for messages; empty without a rollout.
    pub(super) fn candidate(&self) -> String {
        self.state
            .rollout
            .as_ref()
            .map(|r| r.candidate.revision.name.clone())
            .unwrap_or_default()
    }

    /// Begins a state or step of the running rollout and resets its clocks and counters.
    pub(super) fn begin(&mut self, state: State, change: impl FnOnce(&mut Rollout)) {
        let now = self.now;
        self.state.state = state;
        self.evaluation = None;
        let exposed = state.is_exposed();
        if let Some(r) = &mut self.state.rollout {
            change(r);
            r.step_started_at = now;
            r.active = Duration::ZERO;
            r.clock_at = now;
            r.acked_at = None;
            r.all_acked_at = None;
            r.step_evaluations = 0;
            r.step_requests = 0;
            r.quiet_evaluations = 0;
            r.flags.waiting_for.clear();
            r.flags.approval_requested_at = None;
            r.flags.short_since = None;
            // a hold for a deadline ends here; other causes are evaluated again
            r.flags
                .hold
                .take_if(|h| h.reason >= crate::rollout::HoldReason::LoadDeadlineExceeded);
            if exposed {
                self.state.steps.push(StepRecord {
                    step: r.step,
                    weight: r.weight,
                    started_at: now,
                    ended_at: None,
                    candidate: RequestCounts::default(),
                    stable: RequestCounts::default(),
                    passed_by: None,
                });
            }
        }
        self.settle();
    }

    /// Takes a new fencing token if the traffic split has changed.
    pub(super) fn settle(&mut self) {
        if !traffic_split(&self.state).same_effect(&traffic_split(self.before)) {
            self.new_token();
        }
    }

    /// Counts the progress of the nodes with the candidate, or with stable if there is none.
    pub(super) fn count_nodes(&mut self) {
        let nodes = &self.input.nodes;
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
            applied: if nodes.token == self.state.token {
                nodes.applied
            } else {
                0
            },
            failed: on.failed,
            problem: on.problem,
        };
    }

    /// Follows `spec.suspend`. A change without a rollout takes a new fencing token, by which nodes acknowledge it.
    pub(super) fn follow_suspension(&mut self) {
        let (wanted, rests) = (self.function.suspend, self.state.rollout.is_none());
        if wanted == self.state.suspension.is_on() {
            return;
        }
        self.state.suspension = match (wanted, rests) {
            (true, _) => Suspension::Suspending,
            (false, true) => Suspension::Resuming,
            // a rollout goes on only after acknowledgements of its own
            (false, false) => Suspension::Off,
        };
        if rests {
            self.new_token();
        }
    }

    /// Records that all nodes have the last change of `spec.suspend`, which is written at once.
    pub(super) fn acknowledge_suspension(&mut self) {
        let state = &mut self.state;
        let rests = state.rollout.is_none();
        if state.suspension.is_pending() && rests && suspension::is_acknowledged(&state.nodes) {
            state.suspension = state.suspension.acknowledged();
            self.write = true;
        }
    }

    /// Whether enough of the live nodes have loaded the candidate.
    pub(super) fn loaded(&self) -> bool {
        let nodes = &self.input.nodes;
        let Some(r) = &self.state.rollout else {
            return false;
        };
        let on = nodes.of(&r.candidate.revision.name);
        nodes.live > 0 && r.plan.nodes.min_loaded.reached(on.loaded, nodes.live)
    }

    /// Whether all live nodes can answer with stable and with the candidate.
    pub(super) fn both_loaded(&self) -> bool {
        let nodes = &self.input.nodes;
        let candidate = self.state.rollout.as_ref().map(|r| &r.candidate.revision);
        let stable = self.state.stable.as_ref().map(|s| &s.revision);
        let mut both = candidate.into_iter().chain(stable);
        both.all(|revision| nodes.of(&revision.name).loaded >= nodes.live)
    }

    /// Whether enough of the live nodes have loaded the candidate and acknowledged its current weight.
    pub(super) fn follows(&self) -> bool {
        let nodes = &self.input.nodes;
        let Some(r) = &self.state.rollout else {
            return false;
        };
        nodes.live > 0
            && nodes.token == self.state.token
            && r.plan.nodes.min_loaded.reached(nodes.applied, nodes.live)
    }
}
