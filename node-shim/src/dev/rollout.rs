//! The rollout of one function of a session, and the lines about it. The counters of the process are the evidence; the
//! decisions are those of the operator. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use delivery::function::Revision;
use delivery::playback::Playback;
use delivery::rollout::{
    EventType, LatencyMeasure, Plan, Policy, RolloutState, State, Transition, TransitionKind,
    Weight, evidence_against,
};
use delivery::samples::{Counters, Histogram, Snapshot, StatusClass};
use jiff::{SignedDuration, Timestamp};
use node_api::v1 as wire;
use node_shim_core::request_labels::{Population, StatusClass as Code};
use node_shim_core::table::FunctionKey;

use crate::counters::RevisionSnapshot;

/// Minimum time between two lines about the progress of a step.
const PROGRESS: SignedDuration = SignedDuration::from_secs(5);

/// A line about a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// What happened, or how far it is.
    Note(String),
    /// What a person should look at.
    Warning(String),
}

/// Rollouts of one function.
#[derive(Debug)]
pub(super) struct Rollout {
    playback: Playback,
    began: Timestamp,
    measure: LatencyMeasure,
    /// Text and time of the last line about progress.
    shown: Option<(String, Timestamp)>,
}

impl Rollout {
    /// Starts with a revision that serves all requests.
    pub(super) fn new(
        key: &FunctionKey,
        stable: Revision,
        policy: &Policy,
        now: Timestamp,
    ) -> Self {
        let interval = policy.analysis.evaluation_interval;
        let name = (&*key.namespace, &*key.name);
        Self {
            playback: Playback::new(name, stable, policy.clone(), interval, now),
            began: now,
            measure: policy.analysis.latency_measure,
            shown: None,
        }
    }

    /// Changes the desired revision.
    pub(super) fn desire(&mut self, revision: Revision, policy: &Policy) {
        self.measure = policy.analysis.latency_measure;
        self.playback.desire(revision, policy.clone());
    }

    /// Makes the decisions that the counters allow, and returns the lines about them.
    pub(super) fn advance(&mut self, now: Timestamp, counted: &[RevisionSnapshot]) -> Vec<Line> {
        let snapshot = self.snapshot(now, counted);
        let transitions = self.playback.advance(now, &[snapshot]);
        let mut lines: Vec<Line> = transitions.iter().filter_map(|t| self.line(t)).collect();
        if !lines.is_empty() {
            self.shown = None;
        }
        lines.extend(self.progress(now));
        lines
    }

    /// Returns the time of the next decision.
    pub(super) const fn wake_at(&self) -> Option<Timestamp> {
        self.playback.wake_at()
    }

    /// Returns the names of the revisions that must be kept.
    pub(super) fn keeps(&self, revision: &str) -> bool {
        self.playback.revisions().contains(revision)
    }

    /// Returns how requests are divided, as the operator would send it.
    pub(super) fn split(&self) -> wire::TrafficSplit {
        let split = self.playback.traffic_split();
        wire::TrafficSplit {
            stable: split.stable.unwrap_or_default(),
            candidate: split.candidate.unwrap_or_default(),
            weight: split.weight.parts(),
            in_rollout: split.in_rollout,
            ..wire::TrafficSplit::default()
        }
    }

    fn snapshot(&self, now: Timestamp, counted: &[RevisionSnapshot]) -> Snapshot {
        let of = |one: &RevisionSnapshot| (one.revision.to_string(), counters(one, self.measure));
        Snapshot {
            process: "localhost".to_owned(),
            boot: u64::try_from(self.began.as_millisecond()).ok(),
            at: now,
            revisions: counted.iter().map(of).collect::<BTreeMap<_, _>>(),
        }
    }

    /// Returns the line about a transition, with the reason of its Event.
    fn line(&self, transition: &Transition) -> Option<Line> {
        let (kind, reason) = transition.kind.effects().event?;
        let state = self.playback.state();
        let text = match (transition.kind, &state.rollout, &state.rejected) {
            (TransitionKind::Started, Some(rollout), _) => {
                let stable = state.stable.as_ref();
                let stable = stable.map_or("", |stable| stable.revision.name.as_str());
                let name = &rollout.candidate.revision.name;
                format!("{name} is to replace {stable}: {}", course(&rollout.plan))
            }
            // its own text ends with a command for a cluster
            (_, _, Some(rejected)) if kind == EventType::Warning => {
                format!("{}: {}", rejected.revision.name, rejected.message)
            }
            _ => transition.message.clone(),
        };
        let text = format!("{reason}: {text}");
        Some(match kind {
            EventType::Normal => Line::Note(text),
            EventType::Warning => Line::Warning(text),
        })
    }

    /// Returns the line about the present step if it has changed, and not too often.
    fn progress(&mut self, now: Timestamp) -> Option<Line> {
        let state = self.playback.state();
        let rollout = state
            .rollout
            .as_ref()
            .filter(|_| state.state.is_exposed())?;
        // before the first evaluation of a step nothing is known of it
        if rollout.step_evaluations == 0 {
            return None;
        }
        let name = &rollout.candidate.revision.name;
        let waits = (rollout.step_requests == 0).then(|| waits_for(state, rollout.weight));
        let text = match waits.flatten() {
            Some(waits) => format!("at {}: {waits}", rollout.weight),
            None => self.playback.message(now),
        };
        let evidence = evidence_against(state).unwrap_or_default();
        let text = format!("{}: {name} {text} {evidence}", state.state.as_str());
        let recent = self
            .shown
            .as_ref()
            .is_some_and(|(last, at)| *last == text || now.duration_since(*at) < PROGRESS);
        if recent {
            return None;
        }
        self.shown = Some((text.clone(), now));
        Some(Line::Note(text))
    }
}

/// `waiting for requests: about 290 to the candidate, which are 2900 in all.`
fn waits_for(state: &RolloutState, weight: Weight) -> Option<String> {
    let pass = &state.evidence_summary.as_ref()?.pass;
    let need = pass
        .need_requests
        .filter(|_| state.state == State::Stepping)?;
    let all = need
        .saturating_mul(u64::from(Weight::FULL.parts()))
        .checked_div(u64::from(weight.parts()))?;
    Some(format!(
        "waiting for requests: about {need} to the candidate, which are {all} in all."
    ))
}

/// `10 %, 50 %, then 90 % for 10 s`
fn course(plan: &Plan) -> String {
    let steps: Vec<String> = (0..plan.steps.len())
        .map(|step| plan.weight(step).to_string())
        .collect();
    let bake = format!("{} for {}", plan.final_weight(), span(plan.bake.duration));
    if steps.is_empty() {
        bake
    } else {
        format!("{}, then {bake}", steps.join(", "))
    }
}

fn span(time: Duration) -> node_api::text::Duration {
    node_api::text::Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Converts the counters of ordinary requests.
fn counters(counted: &RevisionSnapshot, measure: LatencyMeasure) -> Counters {
    let mut counters = Counters::default();
    let live = counted
        .populations
        .iter()
        .filter(|one| one.population == Population::Live);
    for population in live {
        for row in &population.requests {
            let code = match row.code {
                Code::C4xx => StatusClass::ClientError,
                Code::C5xx => StatusClass::ServerError,
                Code::C2xx | Code::C3xx | Code::None => StatusClass::Other,
            };
            counters.add(row.outcome, code, row.count);
        }
        counters.saturated = population.saturated;
        counters.latency = Histogram(match measure {
            LatencyMeasure::Head => population.head.counts,
            LatencyMeasure::Full => population.duration.counts,
        });
    }
    counters
}
