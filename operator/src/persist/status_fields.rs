//! The rollout state as readable status fields. The operator never reads these fields back.

use crds::function::{FencingToken, HistoryEntry, Outcome};
use crds::rollout::{self as api, Evidence, RolloutStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use operator_core::rollout::{
    self as core, ActionResult, Advance, Decisive, EvidenceSummary, Fallback, Holdback, PassedBy,
    Plan, PlanKind, Rollout, RolloutState, StepRecord, StepWeight, Strategy, Weight,
};

// Limits of the schema, in characters.
const MESSAGE: usize = 1000;
const VALUE: usize = 256;
const BY: usize = 128;
const NODE: usize = 253;
const WHY: usize = 512;
/// Largest integer that every JSON parser represents exactly.
const COUNT: u64 = (1 << 53) - 1;

/// Formats a time with a resolution of one second, as Kubernetes does for most times.
#[must_use]
pub fn time(at: Timestamp) -> Time {
    Time(at)
}

/// Formats a time with a resolution of one microsecond.
#[must_use]
pub fn micro(at: Timestamp) -> MicroTime {
    MicroTime(at)
}

/// Builds `status.rollout` without the record.
#[must_use]
pub fn rollout(state: &RolloutState) -> RolloutStatus {
    let running = state.rollout.as_ref();
    let flags = running.map(|rollout| &rollout.flags);
    RolloutStatus {
        state: variant(api::State::ALL, state.state.as_str(), api::State::as_str),
        paused: flags
            .and_then(|flags| flags.paused.as_ref())
            .map(|paused| api::Paused {
                since: micro(paused.since),
                by: some(&cut(&paused.by, BY)),
                reason: some(&paused.reason),
            }),
        hold: flags
            .and_then(|flags| flags.hold.as_ref())
            .map(|hold| api::Hold {
                reason: hold.reason.as_str().to_owned(),
                since: micro(hold.since),
                message: some(&hold.message),
            }),
        waiting_for: flags
            .map(|flags| flags.waiting_for.as_slice())
            .unwrap_or_default()
            .iter()
            .filter_map(|waiting| {
                variant(
                    api::WaitingFor::ALL,
                    waiting.as_str(),
                    api::WaitingFor::as_str,
                )
            })
            .collect(),
        previous: state.previous.as_ref().map(|previous| api::Previous {
            revision: previous.revision.name.clone(),
            until: micro(previous.until),
        }),
        version: Some(FencingToken {
            epoch: state.token.epoch,
            serial: state.token.serial,
        }),
        attempt: running.map(|rollout| rollout.attempt),
        plan: running.map(|rollout| plan(&rollout.plan)),
        step: running.map(|rollout| u32::try_from(rollout.step).unwrap_or(u32::MAX)),
        weight: running.map(|_| percent(answered(state))),
        started_at: running.map(|rollout| micro(rollout.started_at)),
        step_started_at: running.map(|rollout| micro(rollout.step_started_at)),
        stopped_duration: running.and_then(stopped_duration),
        stopped_since: flags.and_then(core::Flags::stopped_since).map(micro),
        approved: running.map(approved).unwrap_or_default(),
        rejected: state.rejected.as_ref().map(|rejected| api::Rejected {
            revision: rejected.revision.name.clone(),
            reason: rejected.reason.clone(),
            at: micro(rejected.at),
        }),
        actions: state.actions.iter().map(action_record).collect(),
        backstops: running
            .map(|rollout| rollout.backstops)
            .filter(|backstops| *backstops > 0),
        superseded: Some(state.superseded).filter(|count| *count > 0),
        evidence: state
            .evidence_summary
            .as_ref()
            .map(|summary| evidence(summary, &state.steps)),
        working_record: None,
    }
}

/// Builds `status.history`.
#[must_use]
pub fn history(state: &RolloutState) -> Vec<HistoryEntry> {
    let entry = |entry: &core::HistoryEntry| HistoryEntry {
        revision: entry.revision.name.clone(),
        digest: some(&entry.revision.digest),
        attempt: entry.attempt,
        outcome: variant(Outcome::ALL, entry.outcome.as_str(), Outcome::as_str)
            .unwrap_or(Outcome::Withdrawn),
        reason: some(&entry.reason),
        started_at: Some(micro(entry.started_at)),
        finished_at: Some(micro(entry.finished_at)),
        final_weight: Some(entry.final_weight.parts()),
        by: entry.by.as_deref().map(|by| cut(by, BY)),
        message: some(&entry.message),
    };
    state.history.iter().take(10).map(entry).collect()
}

/// Share of the requests that the candidate answers. A first revision answers them on the nodes that have loaded it.
fn answered(state: &RolloutState) -> Weight {
    let nodes = &state.nodes;
    if nodes.desired == 0 || (state.stable.is_none() && nodes.loaded == 0) {
        return Weight::ZERO;
    }
    core::traffic_split(state).weight
}

/// Time of the current step during which its clock was stopped, up to the last update of the clocks.
fn stopped_duration(rollout: &Rollout) -> Option<String> {
    let passed = rollout.clock_at.duration_since(rollout.step_started_at);
    let passed = std::time::Duration::try_from(passed).unwrap_or_default();
    let stopped = passed.saturating_sub(rollout.active).as_secs();
    (stopped > 0).then(|| span(std::time::Duration::from_secs(stopped)))
}

fn plan(plan: &Plan) -> api::PlanStatus {
    let steps = plan
        .steps
        .iter()
        .enumerate()
        .map(|(index, step)| api::PlanStep {
            weight: match step.weight {
                StepWeight::Fixed(weight) => weight.parts(),
                StepWeight::Auto => plan.weight(index).parts(),
            },
            advance: Some(match step.advance {
                Advance::Evidence => api::Advance::Evidence,
                Advance::Time => api::Advance::Time,
            }),
            min_duration: Some(span(step.min_duration)),
            min_requests: u32::try_from(step.min_requests)
                .ok()
                .filter(|least| *least > 0),
            deadline: Some(span(step.deadline)),
            on_deadline: Some(match step.on_deadline {
                Fallback::Hold => api::OnDeadline::Hold,
                Fallback::Rollback => api::OnDeadline::Rollback,
            }),
            gates: step.gates.clone(),
        });
    api::PlanStatus {
        kind: Some(match plan.kind {
            PlanKind::First => api::PlanKind::First,
            PlanKind::Rollout => api::PlanKind::Rollout,
            PlanKind::Revert => api::PlanKind::Revert,
        }),
        strategy: Some(match plan.strategy {
            Strategy::Canary => api::Strategy::Canary,
            Strategy::AllAtOnce => api::Strategy::AllAtOnce,
        }),
        steps: steps.collect(),
        bake: Some(span(plan.bake.duration)),
        holdback: match plan.bake.holdback {
            Holdback::Fixed(weight) => Some(weight.parts()),
            Holdback::Auto => None,
        },
    }
}

fn approved(rollout: &Rollout) -> Vec<api::ApprovedGate> {
    let gate = |name: &String| {
        let (gate, step) = name
            .split_once("/step-")
            .map_or((name.as_str(), None), |(gate, step)| {
                (gate, step.parse().ok())
            });
        api::ApprovedGate {
            gate: gate.to_owned(),
            step,
        }
    };
    rollout.approved.iter().map(gate).collect()
}

fn action_record(record: &core::ActionRecord) -> api::ActionRecord {
    let (result, message) = match &record.result {
        ActionResult::Done => (api::ActionResult::Done, None),
        ActionResult::Ignored(why) => (api::ActionResult::Ignored, some(&cut(why, WHY))),
    };
    api::ActionRecord {
        action: record.action.as_str().to_owned(),
        value: cut(&record.value, VALUE),
        at: micro(record.at),
        by: some(&cut(&record.by, BY)),
        result,
        message,
    }
}

fn evidence(summary: &EvidenceSummary, steps: &[StepRecord]) -> Evidence {
    let sources = [
        api::EvidenceSource::Prometheus,
        api::EvidenceSource::InBand,
        api::EvidenceSource::Both,
    ];
    Evidence {
        evaluations: Some(summary.evaluations),
        evaluated_at: summary.evaluated_at.map(micro),
        source: sources
            .into_iter()
            .find(|source| source.as_str() == summary.source),
        coverage: summary
            .coverage
            .map(|share| format!("{}%", decimal((share * 1e4).round() / 100.0))),
        candidate: Some(request_counts(summary.candidate)),
        stable: Some(request_counts(summary.stable)),
        steps: steps.iter().take(64).map(step).collect(),
        metrics: summary
            .metrics
            .iter()
            .map(|metric| api::MetricEvidence {
                name: metric.name.clone(),
                e: Some(decimal(metric.ln_e.min(690.0).exp())),
                p: Some(decimal(metric.p)),
                tolerance: Some(points(metric.tolerance)),
                observed: metric.observed.map(|(candidate, stable)| api::Observed {
                    candidate: Some(decimal(candidate)),
                    stable: Some(decimal(stable)),
                }),
                bound: metric.bound.map(bound),
                dispersion: Some(decimal(metric.dispersion)),
                share: Some(decimal(metric.share)),
            })
            .collect(),
        pass: Some(api::PassProgress {
            progress: Some(decimal(summary.pass.progress)),
            limiting_metric: summary.pass.limiting.clone(),
            remaining_requests: summary.pass.need_requests.map(|count| count.min(COUNT)),
            eta_seconds: summary.pass.eta.map(|eta| eta.as_secs().min(COUNT)),
        }),
        power: summary
            .power
            .iter()
            .map(|power| api::Power {
                increase: points(power.increase),
                requests50: Some(power.requests_50.min(COUNT)),
                requests95: Some(power.requests_95.min(COUNT)),
            })
            .collect(),
        decisive: summary.decisive.as_ref().map(decisive),
        dominant_node: summary.dominant.as_deref().map(|node| cut(node, NODE)),
    }
}

fn step(step: &StepRecord) -> api::StepEvidence {
    api::StepEvidence {
        weight: step.weight.parts(),
        started_at: Some(micro(step.started_at)),
        finished_at: step.ended_at.map(micro),
        candidate: Some(request_counts(step.candidate)),
        stable: Some(request_counts(step.stable)),
        passed_by: step.passed_by.and_then(|by| match by {
            PassedBy::Evidence => Some(api::PassedBy::Evidence),
            PassedBy::Time => Some(api::PassedBy::Time),
            PassedBy::Action => Some(api::PassedBy::Action),
            PassedBy::Lowered => None,
        }),
    }
}

fn decisive(decisive: &Decisive) -> api::Decisive {
    let of = |(requests, events): (u64, u64)| Some(format!("{events} of {requests}"));
    api::Decisive {
        metric: decisive.metric.clone(),
        evaluation: Some(decisive.evaluation),
        at: Some(micro(decisive.at)),
        e: Some(decimal(decisive.ln_e.min(690.0).exp())),
        candidate: of(decisive.candidate),
        stable: of(decisive.stable),
    }
}

fn request_counts(counts: core::RequestCounts) -> api::RequestCounts {
    api::RequestCounts {
        requests: counts.requests,
        errors: counts.errors,
        client_errors: counts.client_errors,
    }
}

fn variant<T: Copy>(all: &[T], text: &str, as_str: impl Fn(T) -> &'static str) -> Option<T> {
    all.iter().copied().find(|variant| as_str(*variant) == text)
}

/// Formats a number with at most four significant decimals; uses an exponent only for extreme values.
fn decimal(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e6).contains(&size) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Formats an increase in percentage points: `+0.5 pp`.
fn points(share: f64) -> String {
    format!("+{} pp", decimal(share * 100.0))
}

fn percent(weight: Weight) -> String {
    weight.to_string().replace(' ', "")
}

fn span(duration: std::time::Duration) -> String {
    crds::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).to_string()
}

/// Formats a latency threshold; the finest are fractions of a millisecond.
fn bound(duration: std::time::Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    format!("{}ms", decimal(millis))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| cut(text, MESSAGE))
}

fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_below_a_millisecond_are_not_zero() {
        let texts =
            [250, 2_000, 1_500_000].map(|micros| bound(std::time::Duration::from_micros(micros)));
        assert_eq!(texts, ["0.25ms", "2ms", "1500ms"]);
    }

    #[test]
    fn increases_are_points() {
        assert_eq!(
            [0.005, 0.01, 1.0].map(points),
            ["+0.5 pp", "+1 pp", "+100 pp"]
        );
    }

    #[test]
    fn decimals_have_a_readable_form() {
        let texts = [0.0, 1.0, 0.5, 0.0012, 0.00001, 236.04, 1e9, f64::INFINITY].map(decimal);
        assert_eq!(
            texts,
            [
                "0", "1", "0.5", "0.0012", "1.00e-5", "236.04", "1.00e9", "0"
            ]
        );
    }
}
