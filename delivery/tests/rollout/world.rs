//! A simulation around `decide`: nodes that load and acknowledge, evaluations with a given result, and a readable log.

use std::fmt::Write as _;
use std::time::Duration;

use delivery::function::{Action, Annotation, Function, Revision};
use delivery::rollout::*;
use jiff::Timestamp;

pub const START: i64 = 1_800_000_000;

pub fn revision(name: &str) -> Revision {
    Revision {
        name: format!("checkout-{name}"),
        digest: format!("sha256:{name}"),
    }
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

/// Result of the next evaluations.
#[derive(Clone, Debug, PartialEq)]
pub enum Scenario {
    Good,
    NotEnough,
    Bad(&'static str),
    Backstop,
    Shared,
    NoTraffic,
    Mismatch,
    Outage,
    Empty,
}

#[derive(Clone, Debug)]
pub struct World {
    /// Policy of an accepted spec.
    pub written: Policy,
    pub now: Timestamp,
    pub function: Function,
    /// State in the leader's memory.
    pub state: RolloutState,
    /// Written state.
    pub persisted: RolloutState,
    pub epoch: u64,
    pub desired: u32,
    pub live: u32,
    /// Number of live nodes that load every revision.
    pub able: u32,
    /// Number of live nodes that cannot load the candidate.
    pub failing: u32,
    pub returned: u32,
    pub highest: Option<FencingToken>,
    /// Number of live nodes that are never ahead of the state.
    pub loyal: u32,
    pub slot: bool,
    pub rps: Option<f64>,
    pub promoted: Option<Revision>,
    pub scenario: Scenario,
    pub acking: bool,
    pub covered: bool,
    pub requests: u64,
    pub log: String,
    pub events: Vec<EventRecord>,
    pub writes: u32,
    pub last: Option<Decision>,
}

pub fn policy() -> Policy {
    let step = |percent| Step {
        weight: StepWeight::Fixed(Weight::percent(percent)),
        ..Step::default()
    };
    Policy {
        steps: vec![step(5), step(50)],
        bake: BakePolicy {
            duration: Duration::from_secs(60),
            holdback: Holdback::Fixed(Weight::percent(10)),
        },
        ..Policy::default()
    }
}

impl World {
    pub fn new(policy: Policy) -> Self {
        let function = Function {
            namespace: "shop".into(),
            name: "checkout".into(),
            generation: 1,
            desired: Some(revision("a")),
            abandoned: None,
            refused: None,
            policy: Some(policy.clone()),
            suspend: false,
            actions: Vec::new(),
        };
        Self {
            written: policy,
            now: at(0),
            function,
            state: RolloutState::default(),
            persisted: RolloutState::default(),
            epoch: 1,
            desired: 4,
            live: 4,
            able: 4,
            failing: 0,
            returned: 0,
            highest: None,
            loyal: 0,
            slot: true,
            rps: None,
            promoted: None,
            scenario: Scenario::NotEnough,
            acking: true,
            covered: true,
            requests: 100,
            log: String::new(),
            events: Vec::new(),
            writes: 0,
            last: None,
        }
    }

    /// State `Idle` with revision `a`, a minute after it became stable.
    pub fn resting(policy: Policy) -> Self {
        let mut world = Self::new(policy);
        world.tick();
        world.tick();
        assert_eq!(world.state.state, State::Idle);
        assert!(world.state.stable.is_some());
        world.now = at(60);
        world.log.clear();
        world.events.clear();
        world.state.history.clear();
        world.persisted = world.state.clone();
        world
    }

    /// `b` is the desired revision, loaded and queued, but has no slot yet.
    pub fn queued(policy: Policy) -> Self {
        let mut world = Self::resting(policy);
        world.slot = false;
        world.set_desired("b");
        world.tick();
        assert_eq!(world.state.state, State::Queued);
        world
    }

    /// `b` is in step 0, acknowledged, without a verdict yet.
    pub fn stepping(policy: Policy) -> Self {
        let mut world = Self::resting(policy);
        world.set_desired("b");
        world.tick();
        assert_eq!(world.state.state, State::Stepping, "{}", world.log);
        world.tick();
        assert!(world.rollout().acked_at.is_some());
        world.log.clear();
        world.events.clear();
        world
    }

    /// `b` is in the bake, acknowledged.
    pub fn baking(policy: Policy) -> Self {
        let mut world = Self::stepping(policy);
        world.annotate(Action::PromoteFull, "checkout-b");
        world.tick();
        assert_eq!(world.state.state, State::Baking, "{}", world.log);
        world.tick();
        world.log.clear();
        world.events.clear();
        world
    }

    pub fn rolled_back(policy: Policy) -> Self {
        let mut world = Self::stepping(policy);
        world.scenario = Scenario::Bad("ErrorsWorse");
        world.after(5);
        assert_eq!(world.state.state, State::RolledBack, "{}", world.log);
        world.scenario = Scenario::NotEnough;
        world.log.clear();
        world.events.clear();
        world
    }

    pub fn rollout(&self) -> &Rollout {
        self.state.rollout.as_ref().expect("a rollout runs")
    }

    pub fn weight(&self) -> u32 {
        traffic_split(&self.state).weight.parts()
    }

    pub fn set_desired(&mut self, name: &str) {
        self.function.desired = Some(revision(name));
        self.function.abandoned = None;
        self.function.refused = None;
        self.function.policy.get_or_insert(self.written.clone());
        self.function.generation += 1;
    }

    /// Makes the desired revision unknown, as after a restart of the operator.
    pub fn unknown(&mut self) {
        self.function.desired = None;
    }

    /// Simulates an edit that is not accepted; it may still ask for the candidate.
    pub fn refused(&mut self) {
        self.function.desired = None;
        self.function.policy = None;
        self.function.refused = Some("InvalidRoute".into());
        self.function.generation += 1;
    }

    /// Simulates an edit that no longer asks for the candidate and is not resolved yet.
    pub fn abandoned(&mut self) {
        let candidate = self.state.rollout.as_ref();
        self.function.desired = None;
        self.function.abandoned = candidate.map(|r| r.candidate.revision.name.clone());
        self.function.generation += 1;
    }

    pub fn annotate(&mut self, action: Action, value: &str) {
        self.function.actions.retain(|a| a.action != action);
        self.function.actions.push(Annotation {
            action,
            value: value.into(),
            by: "kubectl-annotate".into(),
        });
    }

    /// Decides now and checks the properties of every decision.
    pub fn tick(&mut self) -> Decision {
        let input = self.input();
        let decision = decide(self.now, &self.function, &self.state, &input);
        self.check(&input, &decision);
        for t in &decision.transitions {
            self.log_line(&decision, t);
        }
        self.events.extend(decision.transitions.clone());
        self.state = through_text(&decision.state);
        assert!(
            self.state == decision.state,
            "the persisted text is incomplete"
        );
        if decision.persist {
            self.persisted = decision.state.clone();
            self.writes += 1;
        }
        self.last = Some(decision.clone());
        decision
    }

    fn check(&self, input: &DecisionInput, decision: &Decision) {
        let (old, new) = (traffic_split(&self.state), traffic_split(&decision.state));
        if !old.same_effect(&new) {
            assert!(
                new.token > old.token,
                "a new split needs a new token: {old:?} {new:?}"
            );
            assert!(decision.persist, "a new split is written first");
        }
        if let Some(wake) = decision.wake_at {
            assert!(wake > self.now, "woken in the past");
        }
        assert_eq!(
            decision.state.state.is_live(),
            decision.state.rollout.is_some()
        );
        let rejected = matches!(decision.state.state, State::RolledBack | State::Failed);
        assert_eq!(rejected, decision.state.rejected.is_some());
        if decision.state.state.is_live() {
            assert!(
                decision.wake_at.is_some(),
                "a running rollout needs another decision"
            );
        } else {
            assert_eq!(
                decision.wake_at.is_some(),
                decision.state.previous.is_some(),
                "no decision is needed without a rollout"
            );
        }
        let again = decide(self.now, &self.function, &decision.state, input);
        assert!(
            again.state == decision.state,
            "a second decision changes more:\n{}",
            difference(&decision.state, &again.state)
        );
        assert!(
            again.transitions.is_empty() && !again.persist,
            "{:?}",
            again.transitions
        );
        if let Some(hint) = &decision.hint {
            assert!(hint.weight < old.weight && hint.token > old.token && hint.token < new.token);
            assert_eq!(
                (&hint.stable, &hint.candidate),
                (&old.stable, &old.candidate)
            );
        }
        let summary = message(self.now, &self.function, &decision.state);
        let line = summary
            .find("kubectl -n")
            .map_or("", |start| summary.get(start..).unwrap_or_default());
        assert!(
            line.is_empty() || line.split(' ').count() == 8 && line.ends_with(" --overwrite"),
            "the command must be the end of the message: {summary}"
        );
        let action = line.split(" selvage.dev/").nth(1);
        if let Some((action, _)) = action.and_then(|rest| rest.split_once('=')) {
            let both = format!(": kubectl selvage {action} checkout -n shop, or: {line}");
            assert!(
                summary.ends_with(&both),
                "the plugin comes first: {summary}"
            );
        }
        let sum: u32 = traffic(&decision.state)
            .iter()
            .map(|(_, w)| w.parts())
            .sum();
        assert!(sum == 10_000 || sum == 0 && decision.state.stable.is_none());
    }

    fn log_line(&mut self, decision: &Decision, t: &EventRecord) {
        let effects = t.kind.effects();
        let event = effects.event.map_or("-".into(), |(kind, reason)| {
            format!(
                "{reason}{}",
                if kind == EventType::Warning {
                    " (W)"
                } else {
                    ""
                }
            )
        });
        let seconds = self.now.as_second() - START;
        let weight = traffic_split(&decision.state).weight;
        let state = decision.state.state.as_str();
        let row = effects.row;
        writeln!(
            self.log,
            "{seconds:>5} s  {state:<10} {weight:>6}  #{row:<2} {event}: {}",
            t.message
        )
        .unwrap();
    }

    pub fn after(&mut self, seconds: i64) -> Decision {
        self.now = Timestamp::from_second(self.now.as_second() + seconds).unwrap();
        self.tick()
    }

    /// Decides at each `wake_at` for this many seconds, as a controller does.
    pub fn run(&mut self, seconds: i64) {
        let end = Timestamp::from_second(self.now.as_second() + seconds).unwrap();
        let mut turns = 0;
        self.tick();
        while self.now < end {
            let wake = self.last.as_ref().and_then(|d| d.wake_at).unwrap_or(end);
            self.now = wake
                .max(Timestamp::from_nanosecond(self.now.as_nanosecond() + 1).unwrap())
                .min(end);
            self.tick();
            turns += 1;
            assert!(turns < 20 + seconds * 2, "spins: {:?}", self.last);
        }
    }

    /// Replaces the leader after this many seconds; the new one starts from the written state.
    pub fn restart(&mut self, seconds: i64) {
        self.state = self.persisted.clone();
        self.epoch += 1;
        self.after(seconds);
    }

    pub fn kinds(&self) -> Vec<TransitionKind> {
        self.events.iter().map(|t| t.kind).collect()
    }

    pub fn message(&self) -> String {
        message(self.now, &self.function, &self.state)
    }

    pub fn condition(&self, kind: ConditionType) -> (bool, String) {
        let all = conditions(&self.function, &self.state, None, &self.message());
        let c = all.into_iter().find(|c| c.kind == kind).unwrap();
        (c.status == ConditionStatus::True, c.reason)
    }

    pub fn phase(&self, blocked: Option<&Blocked>) -> Phase {
        let all = conditions(&self.function, &self.state, blocked, &self.message());
        phase(&self.function, &self.state, &all)
    }

    /// Status, reason and message of the condition `Healthy`.
    pub fn healthy(&self) -> (ConditionStatus, String, String) {
        let all = conditions(&self.function, &self.state, None, &self.message());
        let c = all.into_iter().find(|c| c.kind == ConditionType::Healthy);
        c.map(|c| (c.status, c.reason, c.message)).unwrap()
    }

    /// Adds a line with state and message to the log.
    pub fn note(&mut self) {
        let seconds = self.now.as_second() - START;
        let text = self.message();
        writeln!(self.log, "{seconds:>5} s  ..  {text}").unwrap();
    }
}

fn difference(a: &RolloutState, b: &RolloutState) -> String {
    let (a, b) = (format!("{a:#?}"), format!("{b:#?}"));
    let differ = a.lines().zip(b.lines()).filter(|(x, y)| x != y).take(8);
    differ.fold(String::new(), |mut text, (x, y)| {
        writeln!(text, "- {x}\n+ {y}").unwrap();
        text
    })
}

/// Returns the state after it was persisted and read.
pub fn through_text(state: &RolloutState) -> RolloutState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}
