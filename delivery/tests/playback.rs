//! Rollouts that are played without a cluster, from counters to the division of requests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test may fail"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use delivery::function::Revision;
use delivery::playback::Playback;
use delivery::rollout::{
    Advance, BakePolicy, Holdback, Outcome as Result, Policy, Step, StepWeight, Transition,
    TransitionKind, Weight, evidence_against,
};
use delivery::samples::{Counters, Outcome, Snapshot, StatusClass};
use jiff::Timestamp;

fn revision(name: &str) -> Revision {
    Revision {
        name: name.into(),
        digest: format!("sha256:{name}"),
    }
}

/// Steps of 10 % and 50 %, and a bake of 10 s.
fn policy() -> Policy {
    let steps = [10, 50].map(|percent| Step {
        weight: StepWeight::Fixed(Weight::percent(percent)),
        min_duration: Duration::from_secs(5),
        ..Step::default()
    });
    let mut policy = Policy {
        steps: steps.to_vec(),
        bake: BakePolicy {
            duration: Duration::from_secs(10),
            holdback: Holdback::Auto,
        },
        ..Policy::default()
    };
    policy.analysis.evaluation_interval = Duration::from_secs(1);
    policy.analysis.dispersion = Some(1.0);
    policy
}

/// A process that divides requests as it is asked to.
struct Process {
    playback: Playback,
    counters: BTreeMap<String, Counters>,
    now: Timestamp,
}

impl Process {
    fn new(policy: Policy) -> Self {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let second = Duration::from_secs(1);
        Self {
            playback: Playback::new(("shop", "cart"), revision("v1"), policy, second, now),
            counters: BTreeMap::new(),
            now,
        }
    }

    fn desire(&mut self, name: &str, policy: Policy) -> Vec<Transition> {
        self.playback.desire(revision(name), policy);
        self.advance()
    }

    fn advance(&mut self) -> Vec<Transition> {
        let snapshot = Snapshot {
            process: "localhost".into(),
            boot: Some(1),
            at: self.now,
            revisions: self.counters.clone(),
        };
        self.playback.advance(self.now, &[snapshot])
    }

    /// Counts the requests of one second, of which every `fails`-th to the candidate fails, and decides.
    fn second(&mut self, requests: u64, fails: u64) -> Vec<Transition> {
        self.now += Duration::from_secs(1);
        let split = self.playback.traffic_split();
        let candidate = requests * u64::from(split.weight.parts()) / 10_000;
        let failed = candidate.checked_div(fails).unwrap_or(0);
        let rows = [
            (split.candidate.unwrap_or_default(), candidate, failed),
            (split.stable.unwrap(), requests - candidate, 0),
        ];
        for (name, requests, failed) in rows {
            let counters = self.counters.entry(name).or_default();
            counters.add(Outcome::Ok, StatusClass::Other, requests - failed);
            counters.add(Outcome::GuestError, StatusClass::ServerError, failed);
            counters.latency.0[3] += requests;
        }
        self.advance()
    }

    /// How the last rollout ended, except that of the first revision.
    fn outcome(&self) -> Option<Result> {
        let history = &self.playback.state().history;
        let last = history.first().filter(|_| history.len() > 1);
        last.map(|ended| ended.outcome)
    }

    fn weight(&self) -> Weight {
        self.playback.traffic_split().weight
    }
}

fn kinds(transitions: &[Transition]) -> Vec<TransitionKind> {
    transitions.iter().map(|t| t.kind).collect()
}

#[test]
fn a_good_revision_takes_each_step_and_is_promoted() {
    let mut process = Process::new(policy());
    assert_eq!(process.playback.wake_at(), None);
    let began = process.desire("v2", policy());
    assert!(
        kinds(&began).ends_with(&[TransitionKind::FirstTraffic]),
        "{began:?}"
    );
    let mut weights = vec![process.weight().parts()];
    for _ in 0..200 {
        process.second(1_000, 0);
        if weights.last() != Some(&process.weight().parts()) {
            weights.push(process.weight().parts());
        }
    }
    assert_eq!(weights, [1_000, 5_000, 9_000, 0]);
    assert_eq!(process.outcome(), Some(Result::Promoted));
    let split = process.playback.traffic_split();
    assert_eq!(split.stable.as_deref(), Some("v2"));
    assert_eq!(split.candidate, None);
}

#[test]
fn a_failing_revision_is_rolled_back_within_seconds_and_not_tried_again() {
    let mut process = Process::new(policy());
    process.desire("v2", policy());
    let mut seconds = 0;
    while process.outcome().is_none() {
        process.second(1_000, 2);
        seconds += 1;
    }
    assert!(seconds <= 5, "{seconds}");
    assert_eq!(process.outcome(), Some(Result::RolledBack));
    let rejected = process.playback.state().rejected.clone().unwrap();
    assert_eq!(rejected.reason, "ErrorsWorse");
    assert_eq!(process.weight(), Weight::ZERO);
    assert!(process.desire("v2", policy()).is_empty());
    assert!(process.playback.revisions().contains("v2"));
    // another revision starts from the first step
    let began = process.desire("v3", policy());
    assert!(kinds(&began).contains(&TransitionKind::Started));
    assert_eq!(process.weight(), Weight::percent(10));
}

#[test]
fn another_revision_supersedes_the_candidate() {
    let mut process = Process::new(policy());
    process.desire("v2", policy());
    process.second(1_000, 0);
    let changed = process.desire("v3", policy());
    assert!(kinds(&changed).contains(&TransitionKind::Superseded));
    assert_eq!(process.outcome(), Some(Result::Superseded));
    assert_eq!(
        process.playback.traffic_split().candidate.as_deref(),
        Some("v3")
    );
    // evidence about v2 is none about v3
    assert_eq!(process.playback.state().evidence_summary, None);
    // the stable revision again ends it
    process.desire("v1", policy());
    assert_eq!(process.outcome(), Some(Result::Withdrawn));
    assert_eq!(process.weight(), Weight::ZERO);
}

#[test]
fn without_requests_it_waits_and_says_how_many_it_needs() {
    let mut process = Process::new(policy());
    process.desire("v2", policy());
    for _ in 0..60 {
        process.second(0, 0);
    }
    assert_eq!(process.weight(), Weight::percent(10));
    let message = process.playback.message(process.now);
    assert!(
        message.starts_with("at 10 %: no requests to the candidate yet."),
        "{message}"
    );
    assert!(
        message.contains(" more requests to the next step, 0 % of the way."),
        "{message}"
    );
    let state = process.playback.state();
    let need = state.evidence_summary.as_ref().unwrap().pass.need_requests;
    assert!(need.is_some_and(|need| need > 10), "{need:?}");
    let evidence = evidence_against(state).unwrap();
    assert_eq!(evidence, "Evidence against it 1.0 to 1, limit 100 to 1.");
}

#[test]
fn gates_are_left_out_and_a_step_may_end_by_time() {
    let mut timed = policy();
    timed.gates.push(delivery::rollout::Gate {
        name: "owner".into(),
        at: delivery::rollout::GateAt::Start,
    });
    for step in &mut timed.steps {
        step.advance = Advance::Time;
        step.gates.push("owner".into());
    }
    let mut process = Process::new(timed.clone());
    process.desire("v2", timed);
    for _ in 0..40 {
        process.second(10, 0);
    }
    assert_eq!(process.outcome(), Some(Result::Promoted));
}

#[test]
fn an_automatic_weight_follows_from_the_requests_to_stable() {
    let mut auto = policy();
    auto.steps[0].weight = StepWeight::Auto;
    let mut process = Process::new(auto.clone());
    for _ in 0..10 {
        process.second(20, 0);
    }
    process.desire("v2", auto);
    // 100 requests a minute of 1200
    assert_eq!(process.weight().parts(), 833);
}
