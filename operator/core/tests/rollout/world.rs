//! A small world around `decide`: nodes that load and acknowledge, looks that say what the test wants, a log to read.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use operator_core::function::{Annotation, Function, Revision, Action};
use operator_core::rollout::*;

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

/// What the next looks say.
#[derive(Clone, Debug, PartialEq)]
pub enum Say {
    Good,
    NotEnough,
    Bad(&'static str),
    Brake,
    Shared,
    NoTraffic,
    Mismatch,
    Outage,
    Empty,
}

#[derive(Clone, Debug)]
pub struct World {
    pub now: Timestamp,
    pub function: Function,
    /// What the leader holds in memory.
    pub state: RolloutState,
    /// What is written.
    pub persisted: RolloutState,
    pub epoch: u64,
    pub desired: u32,
    pub live: u32,
    /// Live nodes that load whatever they are told to.
    pub able: u32,
    /// Live nodes that never will.
    pub failing: u32,
    pub returned: u32,
    pub highest: Option<FencingToken>,
    pub slot: bool,
    pub rps: Option<f64>,
    pub promoted: Option<Revision>,
    pub say: Say,
    pub acking: bool,
    pub covered: bool,
    pub requests: u64,
    pub log: String,
    pub told: Vec<EventRecord>,
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
            policy,
            suspend: false,
            actions: Vec::new(),
        };
        Self {
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
            slot: true,
            rps: None,
            promoted: None,
            say: Say::NotEnough,
            acking: true,
            covered: true,
            requests: 100,
            log: String::new(),
            told: Vec::new(),
            writes: 0,
            last: None,
        }
    }

    /// At rest with revision `a`, a minute after it became stable.
    pub fn resting(policy: Policy) -> Self {
        let mut world = Self::new(policy);
        world.tick();
        world.tick();
        assert_eq!(world.state.state, State::Idle);
        assert!(world.state.stable.is_some());
        world.now = at(60);
        world.log.clear();
        world.told.clear();
        world.state.history.clear();
        world.persisted = world.state.clone();
        world
    }

    /// `b` is wished, loaded and queued, but has no slot yet.
    pub fn queued(policy: Policy) -> Self {
        let mut world = Self::resting(policy);
        world.slot = false;
        world.wish("b");
        world.tick();
        assert_eq!(world.state.state, State::Queued);
        world
    }

    /// `b` is in step 0, acknowledged, with nothing said yet.
    pub fn stepping(policy: Policy) -> Self {
        let mut world = Self::resting(policy);
        world.wish("b");
        world.tick();
        assert_eq!(world.state.state, State::Stepping, "{}", world.log);
        world.tick();
        assert!(world.rollout().acked_at.is_some());
        world.log.clear();
        world.told.clear();
        world
    }

    /// `b` bakes, acknowledged.
    pub fn baking(policy: Policy) -> Self {
        let mut world = Self::stepping(policy);
        world.verb(Action::PromoteFull, "checkout-b");
        world.tick();
        assert_eq!(world.state.state, State::Baking, "{}", world.log);
        world.tick();
        world.log.clear();
        world.told.clear();
        world
    }

    pub fn rolled_back(policy: Policy) -> Self {
        let mut world = Self::stepping(policy);
        world.say = Say::Bad("ErrorsWorse");
        world.after(5);
        assert_eq!(world.state.state, State::RolledBack, "{}", world.log);
        world.say = Say::NotEnough;
        world.log.clear();
        world.told.clear();
        world
    }

    pub fn rollout(&self) -> &Rollout {
        self.state.rollout.as_ref().expect("a rollout runs")
    }

    pub fn weight(&self) -> u32 {
        shares(&self.state).weight.parts()
    }

    pub fn wish(&mut self, name: &str) {
        self.function.desired = Some(revision(name));
        self.function.abandoned = None;
        self.function.refused = None;
        self.function.generation += 1;
    }

    /// Nothing is known of what `spec` asks for, as after a restart of the operator.
    pub fn unknown(&mut self) {
        self.function.desired = None;
    }

    /// An edit that is not accepted; it may still ask for the candidate.
    pub fn refused(&mut self) {
        self.function.desired = None;
        self.function.refused = Some("InvalidRoute".into());
        self.function.generation += 1;
    }

    /// An edit that asks for something else than the candidate, not resolved yet.
    pub fn abandoned(&mut self) {
        let candidate = self.state.rollout.as_ref();
        self.function.desired = None;
        self.function.abandoned = candidate.map(|r| r.candidate.revision.name.clone());
        self.function.generation += 1;
    }

    pub fn verb(&mut self, verb: Action, value: &str) {
        self.function.actions.retain(|a| a.action != verb);
        self.function.actions.push(Annotation {
            action: verb,
            value: value.into(),
            by: "kubectl-annotate".into(),
        });
    }

    /// Decides now and checks what must hold for every decision.
    pub fn tick(&mut self) -> Decision {
        let evidence = self.evidence();
        let decision = decide(self.now, &self.function, &self.state, &evidence);
        self.check(&evidence, &decision);
        for t in &decision.transitions {
            self.log_line(&decision, t);
        }
        self.told.extend(decision.transitions.clone());
        self.state = through_text(&decision.state);
        assert!(self.state == decision.state, "text loses something");
        if decision.persist {
            self.persisted = decision.state.clone();
            self.writes += 1;
        }
        self.last = Some(decision.clone());
        decision
    }

    fn check(&self, evidence: &Evidence, decision: &Decision) {
        let (old, new) = (shares(&self.state), shares(&decision.state));
        if !old.same_effect(&new) {
            assert!(
                new.pair > old.pair,
                "a new share needs a new pair: {old:?} {new:?}"
            );
            assert!(decision.persist, "a new share is written first");
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
                "a live rollout is looked at again"
            );
        } else {
            assert_eq!(
                decision.wake_at.is_some(),
                decision.state.previous.is_some(),
                "rest is rest"
            );
        }
        let again = decide(self.now, &self.function, &decision.state, evidence);
        assert!(
            again.state == decision.state,
            "deciding twice changes more:\n{}",
            difference(&decision.state, &again.state)
        );
        assert!(
            again.transitions.is_empty() && !again.persist,
            "{:?}",
            again.transitions
        );
        if let Some(hint) = &decision.hint {
            assert!(hint.weight < old.weight && hint.pair > old.pair && hint.pair < new.pair);
            assert_eq!(
                (&hint.stable, &hint.candidate),
                (&old.stable, &old.candidate)
            );
        }
        let said = message(self.now, &self.function, &decision.state);
        let line = said
            .find("kubectl -n")
            .map_or("", |start| said.get(start..).unwrap_or_default());
        assert!(
            line.is_empty() || line.split(' ').count() == 8 && line.ends_with(" --overwrite"),
            "people copy to the end: {said}"
        );
        let sum: u32 = traffic(&decision.state)
            .iter()
            .map(|(_, w)| w.parts())
            .sum();
        assert!(sum == 10_000 || sum == 0 && decision.state.stable.is_none());
    }

    fn log_line(&mut self, decision: &Decision, t: &EventRecord) {
        let telling = t.kind.telling();
        let event = telling.event.map_or("-".into(), |(kind, reason)| {
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
        let weight = shares(&decision.state).weight;
        let state = decision.state.state.as_str();
        let row = telling.row;
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

    /// Follows `wake_at` for so long, as a controller would.
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

    /// The leader is gone and another one takes over after a while, with what was written.
    pub fn restart(&mut self, seconds: i64) {
        self.state = self.persisted.clone();
        self.epoch += 1;
        self.after(seconds);
    }

    pub fn kinds(&self) -> Vec<TransitionKind> {
        self.told.iter().map(|t| t.kind).collect()
    }

    pub fn message(&self) -> String {
        message(self.now, &self.function, &self.state)
    }

    pub fn condition(&self, kind: ConditionType) -> (bool, String) {
        let all = conditions(&self.function, &self.state, None, &self.message());
        let c = all.into_iter().find(|c| c.kind == kind).unwrap();
        (c.status, c.reason)
    }

    /// A line with state and message, for timelines.
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

/// The state as it comes back from where it is persisted.
pub fn through_text(state: &RolloutState) -> RolloutState {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}
