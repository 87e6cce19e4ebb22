//! Everything that the page shows of one function. It contains names, states and figures of the status, and neither
//! environment variables nor configuration.

use std::sync::Arc;

use crds::function::{EdgeFunctionStatus, FunctionNodes};
use crds::rollout::{PlanKind, RolloutStatus, State, WaitingFor};
use crds::{EdgeFunction, EdgeRevision, RolloutPolicy};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

use super::charts::{Point, Record};
use super::evidence::{EvidenceView, limit};
use super::row::{Row, percent};
use super::timeline::{Entry, timeline};

/// The objects from which a view is made.
pub(super) struct Shown<'a> {
    pub(super) function: &'a EdgeFunction,
    /// Kept revisions of the function.
    pub(super) revisions: &'a [Arc<EdgeRevision>],
    /// The policy that the function names.
    pub(super) policy: Option<&'a RolloutPolicy>,
    /// Name of this replica.
    pub(super) replica: &'a str,
}

/// A function in full. Times are milliseconds since 1970, weights basis points (1/10,000).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    row: Row,
    message: String,
    /// Command at the end of the message.
    command: Option<String>,
    urls: Vec<String>,
    revisions: Vec<RevisionView>,
    rollout: Option<RolloutView>,
    evidence: Option<EvidenceView>,
    chart: Chart,
    nodes: Option<FunctionNodes>,
    timeline: Vec<Entry>,
    history: Vec<Outcome>,
    /// Conditions that are not as they should be.
    conditions: Vec<ConditionView>,
    replica: String,
}

/// A revision in one of its roles.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct RevisionView {
    role: &'static str,
    name: String,
    weight: Option<u32>,
    created: Option<i64>,
    /// Image string, or `inline`.
    source: Option<String>,
    note: String,
}

/// The rollout that runs, or how far the last one came.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct RolloutView {
    is_running: bool,
    state: &'static str,
    kind: &'static str,
    attempt: u32,
    steps: Vec<StepView>,
    since: Option<i64>,
    paused: Option<String>,
    held: Option<String>,
    stopped_since: Option<i64>,
    waits_for: Vec<Waiting>,
}

/// A step of the plan.
#[derive(Debug, Clone, Serialize)]
struct StepView {
    /// Weight as text, or `bake 10m`.
    name: String,
    /// `done`, `current` or `ahead`.
    state: &'static str,
}

#[derive(Debug, Clone, Serialize)]
struct Waiting {
    word: &'static str,
    meaning: &'static str,
}

/// What the charts draw.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Chart {
    /// Times at which the weight changed, and the weights. Those of steps are from the status, so they go back to the start.
    weights: Vec<(i64, u32)>,
    /// Points since this replica started to watch.
    points: Vec<Point>,
    metrics: Vec<String>,
}

/// How a rollout ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    revision: String,
    attempt: u32,
    outcome: &'static str,
    reason: String,
    started: Option<i64>,
    finished: Option<i64>,
    weight: Option<u32>,
    by: String,
    message: String,
}

#[derive(Debug, Clone, Serialize)]
struct ConditionView {
    name: String,
    reason: String,
    message: String,
    since: i64,
}

impl View {
    pub(super) fn of(shown: &Shown<'_>, record: Option<&Record>) -> Self {
        let empty = EdgeFunctionStatus::default();
        let status = shown.function.status.as_ref().unwrap_or(&empty);
        let rollout = status.rollout.as_ref();
        let (message, command) = split_command(status.message.as_deref().unwrap_or_default());
        let evidence = rollout.and_then(|rollout| rollout.evidence.as_ref());
        Self {
            row: Row::of(shown.function),
            message: message.to_owned(),
            command,
            urls: status.urls.clone(),
            revisions: revisions(status, shown.revisions),
            rollout: rollout.map(RolloutView::of),
            evidence: evidence
                .map(|evidence| EvidenceView::of(evidence, limit(shown.function, shown.policy))),
            chart: chart(status, record),
            nodes: status.nodes.clone(),
            timeline: rollout.map_or_else(Vec::new, |rollout| timeline(status, rollout)),
            history: outcomes(status),
            conditions: conditions(status),
            replica: shown.replica.to_owned(),
        }
    }
}

impl RolloutView {
    fn of(rollout: &RolloutStatus) -> Self {
        let plan = rollout.plan.as_ref();
        let kind = match plan.and_then(|plan| plan.kind) {
            Some(PlanKind::First) => "first revision",
            Some(PlanKind::Revert) => "revert",
            _ => "rollout",
        };
        let paused = rollout.paused.as_ref().map(|paused| {
            let by = paused.by.as_deref().unwrap_or("an unknown field manager");
            format!("by {by}")
        });
        let held = rollout.hold.as_ref().map(|hold| {
            let message = hold.message.as_deref().unwrap_or("no details");
            format!("{}: {message}", hold.reason)
        });
        let since = rollout
            .step_started_at
            .as_ref()
            .or(rollout.started_at.as_ref());
        Self {
            is_running: rollout.is_running(),
            state: rollout.state.map_or("Idle", State::as_str),
            kind,
            attempt: rollout.attempt.unwrap_or(1),
            steps: steps(rollout),
            since: since.map(|at| at.0.as_millisecond()),
            paused,
            held,
            stopped_since: rollout
                .stopped_since
                .as_ref()
                .map(|at| at.0.as_millisecond()),
            waits_for: rollout.waiting_for.iter().map(waiting).collect(),
        }
    }
}

fn steps(rollout: &RolloutStatus) -> Vec<StepView> {
    let Some(plan) = rollout.plan.as_ref().filter(|_| rollout.is_running()) else {
        return Vec::new();
    };
    let is_baking = rollout.state == Some(State::Baking);
    let has_started = is_baking || rollout.state == Some(State::Stepping);
    let current = rollout.step.unwrap_or(0);
    let mut steps: Vec<StepView> = plan
        .steps
        .iter()
        .zip(0_u32..)
        .map(|(step, index)| StepView {
            name: percent(step.weight),
            state: if is_baking || (has_started && index < current) {
                "done"
            } else if has_started && index == current {
                "current"
            } else {
                "ahead"
            },
        })
        .collect();
    if let Some(bake) = plan
        .bake
        .as_ref()
        .filter(|_| plan.kind != Some(PlanKind::First))
    {
        steps.push(StepView {
            name: format!("bake {bake}"),
            state: if is_baking { "current" } else { "ahead" },
        });
    }
    steps
}

fn revisions(status: &EdgeFunctionStatus, kept: &[Arc<EdgeRevision>]) -> Vec<RevisionView> {
    let rollout = status.rollout.as_ref();
    let mut views = Vec::new();
    let mut add = |role, name: &str, note: Option<String>| {
        let revision = kept
            .iter()
            .find(|kept| kept.metadata.name.as_deref() == Some(name));
        let weight = status.traffic.iter().find(|entry| entry.revision == name);
        let nodes = revision.and_then(|revision| revision.status.as_ref()?.nodes.as_ref());
        let loaded = nodes.map(|nodes| match nodes.failed {
            0 => format!("on {} nodes", nodes.loaded),
            failed => format!("on {} nodes, {failed} cannot load it", nodes.loaded),
        });
        let created = revision.and_then(|it| it.metadata.creation_timestamp.as_ref());
        let source = |revision: &Arc<EdgeRevision>| {
            let image = revision.spec.image.clone();
            image.unwrap_or_else(|| "inline".to_owned())
        };
        views.push(RevisionView {
            role,
            name: name.to_owned(),
            weight: weight.map(|entry| entry.weight),
            created: created.map(|at| at.0.as_millisecond()),
            source: revision.map(source),
            note: note.or(loaded).unwrap_or_default(),
        });
    };
    if let Some(stable) = &status.stable {
        add("stable", &stable.revision, None);
    }
    if let Some(candidate) = &status.candidate {
        add("candidate", &candidate.revision, None);
    }
    if let Some(rejected) = rollout.and_then(|rollout| rollout.rejected.as_ref()) {
        add(
            "rejected",
            &rejected.revision,
            Some(rejected.reason.clone()),
        );
    }
    if let Some(previous) = rollout.and_then(|rollout| rollout.previous.as_ref()) {
        let until = previous.until.0.strftime("%Y-%m-%dT%H:%M:%SZ");
        add(
            "previous",
            &previous.revision,
            Some(format!("kept until {until}")),
        );
    }
    views
}

/// The weights of the steps from the status, then those that this replica has seen later.
fn chart(status: &EdgeFunctionStatus, record: Option<&Record>) -> Chart {
    let rollout = status.rollout.as_ref();
    let evidence = rollout.and_then(|rollout| rollout.evidence.as_ref());
    let steps = evidence.map_or(&[][..], |evidence| &evidence.steps);
    let mut weights: Vec<(i64, u32)> = steps
        .iter()
        .filter_map(|step| Some((step.started_at.as_ref()?.0.as_millisecond(), step.weight)))
        .collect();
    let running = rollout.is_some_and(RolloutStatus::is_running);
    if let (Some(first), Some(start)) = (
        weights.first().copied(),
        rollout.and_then(|it| it.started_at.as_ref()),
    ) && start.0.as_millisecond() < first.0
    {
        weights.insert(0, (start.0.as_millisecond(), 0));
    }
    // the last entry of the history is that of the rollout of which the status has the evidence
    let ended = status
        .history
        .first()
        .filter(|_| !running && !weights.is_empty());
    if let Some((at, weight)) = ended.and_then(|entry| {
        let promoted = entry.outcome == crds::function::Outcome::Promoted;
        let at = entry.finished_at.as_ref()?.0.as_millisecond();
        Some((at, if promoted { 10_000 } else { 0 }))
    }) && weights.last().is_some_and(|last| last.0 <= at)
    {
        weights.push((at, weight));
    }
    let points = record.map_or(&[][..], |record| &record.points);
    if running || weights.is_empty() {
        // clocks of replicas and of the API server may differ by this much
        let after = weights.last().map_or(i64::MIN, |last| last.0 + 5_000);
        for point in points.iter().filter(|point| point.at > after) {
            if weights.last().is_none_or(|last| last.1 != point.weight) {
                weights.push((point.at, point.weight));
            }
        }
    }
    Chart {
        weights,
        points: points.to_vec(),
        metrics: record.map_or_else(Vec::new, |record| record.metrics.clone()),
    }
}

fn outcomes(status: &EdgeFunctionStatus) -> Vec<Outcome> {
    let millisecond = |at: Timestamp| at.as_millisecond();
    let entries = status.history.iter();
    entries
        .map(|entry| Outcome {
            revision: entry.revision.clone(),
            attempt: entry.attempt,
            outcome: entry.outcome.as_str(),
            reason: entry.reason.clone().unwrap_or_default(),
            started: entry.started_at.as_ref().map(|at| millisecond(at.0)),
            finished: entry.finished_at.as_ref().map(|at| millisecond(at.0)),
            weight: entry.final_weight,
            by: entry.by.clone().unwrap_or_default(),
            message: entry.message.clone().unwrap_or_default(),
        })
        .collect()
}

fn conditions(status: &EdgeFunctionStatus) -> Vec<ConditionView> {
    // `Ready`, `Reconciling` and `Progressing` say only that something is going on, and an unknown `Healthy` only that no rollout
    // has measured requests
    let is_wrong = |condition: &&Condition| match condition.type_.as_str() {
        "Stalled" => condition.status == "True",
        "Ready" | "Reconciling" | "Progressing" => false,
        "Healthy" => condition.status == "False",
        _ => condition.status != "True",
    };
    let wrong = status.conditions.iter().filter(is_wrong);
    wrong
        .map(|condition| ConditionView {
            name: format!("{}={}", condition.type_, condition.status),
            reason: condition.reason.clone(),
            message: split_command(&condition.message).0.to_owned(),
            since: condition.last_transition_time.0.as_millisecond(),
        })
        .collect()
}

fn waiting(waiting: &WaitingFor) -> Waiting {
    Waiting {
        word: waiting.as_str(),
        meaning: waiting.meaning(),
    }
}

/// Splits a message into its sentences and the command at its end, which needs no plugin.
fn split_command(message: &str) -> (&str, Option<String>) {
    let Some((before, command)) = message.rsplit_once(": kubectl ") else {
        return (message, None);
    };
    let by_plugin = before.rsplit_once(": kubectl selvage ");
    let sentences = by_plugin.map_or(before, |(sentences, _)| sentences);
    (sentences, Some(format!("kubectl {command}")))
}
