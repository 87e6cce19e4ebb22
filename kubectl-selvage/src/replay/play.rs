//! One play: the rollout of a candidate on a timeline, decided by `delivery::playback`.

use std::collections::BTreeMap;
use std::time::Duration;

use delivery::function::Revision;
use delivery::playback::Playback;
use delivery::rollout::{
    EventType, MetricEvidence, Outcome as Ended, Policy, RequestCounts, RolloutState, Transition,
    TransitionKind, Weight,
};
use delivery::samples::{self, Counters, Snapshot, StatusClass, Tally};
use jiff::{SignedDuration, Timestamp};

use super::thin::{Thinner, Used};
use super::timeline::Timeline;

/// Stable's requests before the rollout that the evaluation reads, as in a cluster without Prometheus.
pub(crate) const HISTORY: Duration = Duration::from_secs(600);
/// Part of the recording that is the history, if nothing was recorded before the candidate.
const HISTORY_PART: usize = 10;
/// Empty intervals in a row that are a gap.
const GAP: usize = 2;

/// What is played.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) policy: Policy,
    /// Seed of the choice of requests.
    pub(crate) seed: u64,
}

/// A decision that an Event would report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decided {
    pub(crate) at: Timestamp,
    /// Weight of the candidate after the decision.
    pub(crate) weight: Weight,
    /// Counts since the rollout began.
    pub(crate) candidate: RequestCounts,
    pub(crate) stable: RequestCounts,
    /// ln of the evidence against the candidate; `None` before the first evaluation.
    pub(crate) ln_evidence: Option<f64>,
    pub(crate) is_warning: bool,
    /// Reason of the Event.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The rollout after one interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) at: Timestamp,
    /// Weight that applied in the interval.
    pub(crate) weight: Weight,
    pub(crate) candidate: RequestCounts,
    pub(crate) stable: RequestCounts,
    pub(crate) ln_evidence: f64,
}

/// How a play ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Promoted,
    RolledBack {
        reason: String,
    },
    /// The recording ended before the rollout did.
    DataEnded {
        state: &'static str,
        weight: Weight,
    },
}

/// A period without rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

/// Result of a play.
#[derive(Clone, Debug)]
pub(crate) struct Play {
    pub(crate) stable: String,
    pub(crate) candidate: String,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Timestamp,
    pub(crate) decisions: Vec<Decided>,
    /// Empty unless they were asked for.
    pub(crate) points: Vec<Point>,
    /// Requests that were played since the rollout began.
    pub(crate) requests: u64,
    /// Those of them that the candidate served.
    pub(crate) candidate_requests: u64,
    /// Requests that the recording has in that time.
    pub(crate) served: u64,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) metrics: Vec<MetricEvidence>,
    /// ln of the evidence against the candidate after the last evaluation.
    pub(crate) ln_evidence: Option<f64>,
    /// ln of the evidence at which it is rolled back.
    pub(crate) ln_limit: f64,
    pub(crate) outcome: Outcome,
    /// The outcome in the words of the status.
    pub(crate) message: String,
}

impl Play {
    pub(crate) fn took(&self) -> SignedDuration {
        self.ended_at.duration_since(self.started_at)
    }
}

/// Returns the interval at whose end a rollout starts, unless a person names one: when both versions serve requests, and stable
/// has a history.
pub(crate) fn first_start(timeline: &Timeline) -> usize {
    let history = timeline.intervals(HISTORY);
    let part = timeline.slots.len() / HISTORY_PART;
    let shared = timeline.first_shared().unwrap_or(0);
    shared.max(history.min(part))
}

/// Plays the rollout that starts at the end of the interval `start`. The points are kept if `with_points` is set.
pub(crate) fn play(timeline: &Timeline, setup: &Setup, start: usize, with_points: bool) -> Play {
    let mut stage = Stage::new(timeline, setup, start);
    let first = start.saturating_sub(timeline.intervals(HISTORY));
    for index in first..=start {
        stage.count(index, Weight::ZERO);
        let at = timeline.at(index);
        stage.playback.advance(at, &stage.snapshots());
    }
    stage.begin(timeline.at(start));
    for index in start + 1..timeline.slots.len() {
        if stage.is_over() {
            break;
        }
        let weight = stage.playback.traffic_split().weight;
        stage.follow_gap(index);
        let used = stage.count(index, weight);
        stage.play.requests += used.played;
        stage.play.served += used.served;
        stage.decide(timeline.at(index));
        if with_points {
            stage.add_point(timeline.at(index), weight);
        }
    }
    stage.finish()
}

struct Stage<'a> {
    timeline: &'a Timeline,
    setup: &'a Setup,
    playback: Playback,
    thinner: Thinner,
    /// Counters of each process since the begin, and the end of its last interval with rows.
    processes: BTreeMap<&'a str, (Timestamp, Tally, Tally)>,
    began: Timestamp,
    /// Number of past rollouts when the candidate was desired.
    past: usize,
    gap: usize,
    play: Play,
}

impl<'a> Stage<'a> {
    fn new(timeline: &'a Timeline, setup: &'a Setup, start: usize) -> Self {
        let stable = timeline.versions.stable.clone();
        let candidate = match &timeline.versions.candidate {
            Some(candidate) => candidate.clone(),
            None => format!("{stable}-again"),
        };
        let first = start.saturating_sub(timeline.intervals(HISTORY));
        // the counters of the first interval began at its begin
        let interval = SignedDuration::try_from(timeline.interval).unwrap_or_default();
        let began = timeline.at(first).saturating_sub(interval);
        let began = began.unwrap_or(Timestamp::MIN);
        let playback = Playback::new(
            (&setup.namespace, &setup.name),
            revision(&stable),
            setup.policy.clone(),
            timeline.interval,
            began,
        );
        let started_at = timeline.at(start);
        let false_rollbacks = setup.policy.analysis.false_rollbacks;
        Self {
            timeline,
            setup,
            playback,
            thinner: Thinner::new(setup.seed, timeline.versions.candidate.is_none()),
            processes: BTreeMap::new(),
            began,
            past: 0,
            gap: 0,
            play: Play {
                stable,
                candidate,
                started_at,
                ended_at: started_at,
                decisions: Vec::new(),
                points: Vec::new(),
                requests: 0,
                candidate_requests: 0,
                served: 0,
                gaps: Vec::new(),
                metrics: Vec::new(),
                ln_evidence: None,
                ln_limit: -false_rollbacks.ln(),
                outcome: Outcome::Promoted,
                message: String::new(),
            },
        }
    }

    /// Adds the requests of an interval at a weight of the candidate.
    fn count(&mut self, index: usize, weight: Weight) -> Used {
        let Some(slot) = self.timeline.slots.get(index) else {
            return Used::default();
        };
        let at = self.timeline.at(index);
        let (rows, used) = self.thinner.play(slot, weight);
        for (process, candidate, stable) in rows {
            let counters = self.processes.entry(process).or_default();
            counters.0 = at;
            counters.1.add(&candidate);
            counters.2.add(&stable);
            self.play.candidate_requests += candidate.requests;
        }
        used
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let boot = u64::try_from(self.began.as_millisecond()).ok();
        let snapshot = |(process, (at, candidate, stable)): (&&str, &(Timestamp, Tally, Tally))| {
            let rows = [
                (&self.play.candidate, candidate),
                (&self.play.stable, stable),
            ];
            let rows = rows.map(|(name, tally)| (name.clone(), counters(tally)));
            Snapshot {
                process: (*process).to_owned(),
                boot,
                at: *at,
                revisions: rows.into(),
            }
        };
        self.processes.iter().map(snapshot).collect()
    }

    fn begin(&mut self, at: Timestamp) {
        self.past = self.playback.state().history.len();
        let candidate = revision(&self.play.candidate);
        self.playback.desire(candidate, self.setup.policy.clone());
        self.decide(at);
    }

    /// Whether the rollout has ended.
    fn is_over(&self) -> bool {
        self.playback.state().history.len() > self.past
    }

    fn decide(&mut self, at: Timestamp) {
        let transitions = self.playback.advance(at, &self.snapshots());
        self.play.ended_at = at;
        let state = self.playback.state();
        if let Some(summary) = &state.evidence_summary {
            self.play.ln_evidence = Some(summary.ln_evidence());
            self.play.metrics.clone_from(&summary.metrics);
        }
        let weight = self.playback.traffic_split().weight;
        let decided = transitions.iter();
        let decided = decided.filter_map(|one| decided_by(one, state, weight));
        self.play.decisions.extend(decided);
    }

    fn add_point(&mut self, at: Timestamp, weight: Weight) {
        if let Some(summary) = &self.playback.state().evidence_summary {
            self.play.points.push(Point {
                at,
                weight,
                candidate: summary.candidate,
                stable: summary.stable,
                ln_evidence: summary.ln_evidence(),
            });
        }
    }

    /// Notes a gap when it ends, or when it has become one.
    fn follow_gap(&mut self, index: usize) {
        let slot = self.timeline.slots.get(index);
        if slot.is_some_and(|slot| slot.processes.is_empty()) {
            self.gap += 1;
            return;
        }
        if self.gap >= GAP {
            self.play.gaps.push(Gap {
                from: self.timeline.at(index - self.gap - 1),
                to: self.timeline.at(index),
            });
        }
        self.gap = 0;
    }

    fn finish(mut self) -> Play {
        let state = self.playback.state();
        let ended = state.history.first().filter(|_| self.is_over());
        let (outcome, message) = match ended {
            Some(entry) if entry.outcome == Ended::Promoted => {
                (Outcome::Promoted, entry.message.clone())
            }
            Some(entry) => {
                let reason = entry.reason.clone();
                (Outcome::RolledBack { reason }, entry.message.clone())
            }
            None => {
                let weight = self.playback.traffic_split().weight;
                let state = state.state.as_str();
                let message = self.playback.message(self.play.ended_at);
                (Outcome::DataEnded { state, weight }, message)
            }
        };
        self.play.outcome = outcome;
        self.play.message = message;
        self.play
    }
}

fn decided_by(transition: &Transition, state: &RolloutState, weight: Weight) -> Option<Decided> {
    let (kind, reason) = transition.kind.effects().event?;
    // the end of the previous rollout, which was not played
    if transition.kind == TransitionKind::PreviousExpired {
        return None;
    }
    let summary = state.evidence_summary.as_ref();
    let counts = |of: fn(&delivery::rollout::EvidenceSummary) -> RequestCounts| {
        summary.map(of).unwrap_or_default()
    };
    let message = match &state.rejected {
        // its own text ends with a command for a cluster
        Some(rejected) if kind == EventType::Warning => rejected.message.clone(),
        _ => transition.message.clone(),
    };
    // several decisions may be made at one time, and the weight is that after all of them
    let weight = match transition.kind {
        TransitionKind::Started | TransitionKind::RevertStarted => Weight::ZERO,
        TransitionKind::Promoted => Weight::FULL,
        _ => weight,
    };
    Some(Decided {
        at: transition.at,
        weight,
        candidate: counts(|it| it.candidate),
        stable: counts(|it| it.stable),
        ln_evidence: summary.map(delivery::rollout::EvidenceSummary::ln_evidence),
        is_warning: kind == EventType::Warning,
        reason,
        message,
    })
}

fn revision(name: &str) -> Revision {
    Revision {
        name: name.to_owned(),
        digest: String::new(),
    }
}

/// Converts counts to counters that the tests compare in the same way.
fn counters(tally: &Tally) -> Counters {
    let mut counters = Counters::default();
    let failed = tally.errors + tally.client_errors;
    counters.add(
        samples::Outcome::Ok,
        StatusClass::Other,
        tally.requests.saturating_sub(failed),
    );
    counters.add(samples::Outcome::Ok, StatusClass::ServerError, tally.errors);
    counters.add(
        samples::Outcome::Ok,
        StatusClass::ClientError,
        tally.client_errors,
    );
    counters.latency = tally.latency;
    counters
}
