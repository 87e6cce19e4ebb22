//! Step 4 of a reconcile: exactly the samples that the next decision needs.
//!
//! Nothing here waits. What Prometheus has not answered yet is missing in this decision, and its answer causes the next one. An
//! evaluation does not wait long for Prometheus if it has the counters of the nodes, which are as accurate.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use operator_core::analysis::{History, stable_traffic};
use operator_core::evaluator::{Evaluator, Sampled};
use operator_core::function::Function;
use operator_core::rollout::{
    self as core, AnalysisSource, DecisionInput, LatencyMeasure, Measured, RequiredMeasurements,
    Rollout, RolloutState, Traffic, UnmeasuredKind,
};
use operator_core::samples::{Snapshot, merge};
use tokio::time::Instant;

use super::context::{Before, FunctionContext};
use super::core_input::named;
use super::nodes::FunctionNodes;
use super::observe::Observed;
use super::rollout_slot::RolloutSlot;
use super::stages::Target;
use super::{Context, rollback_hint};
use crate::measure::{MeasureError, QueryState, SampleQuery, Samples};
use crate::node_api::{CounterSelector, FunctionKey, Latency};
use crate::persist::last_promoted;
use crate::watch::ObjectKey;

/// Longest wait, from the begin of the rollout, for two reports of the counters that nodes kept while a function rested. Nodes
/// report every five seconds.
const AT_REST: SignedDuration = SignedDuration::from_secs(15);
/// A revision that became stable more recently than this has no traffic worth waiting for.
const RESTED: SignedDuration = SignedDuration::from_mins(1);
/// Longest wait of an evaluation for Prometheus if it has the counters of the nodes.
const PROMETHEUS_WAIT: Duration = Duration::from_secs(2);
/// Shortest time between two queries for the past of the stable revision.
const PAST: Duration = Duration::from_secs(10);
/// Longest wait for stable's past, and, once after a start, for the samples of evaluations that the last leader did not persist.
const HISTORY_WAIT: Duration = Duration::from_secs(10);
/// Number of evaluations after which one of them has been written, so that the time before the first one is not needed again.
const BEGUN: u64 = 20;
/// Maximum number of in-band snapshots that are kept from the time before the candidate got traffic.
const KEPT: usize = 20_000;

/// Nodes of a function, and the evidence for its next decision.
pub(super) struct Measurement {
    pub(super) nodes: FunctionNodes,
    pub(super) input: DecisionInput,
    /// Place for a rollout with traffic.
    pub(super) slot: RolloutSlot,
    /// When to decide without the answer of Prometheus, if it has not arrived by then.
    pub(super) decide_without_prometheus_at: Option<Instant>,
}

/// The samples that a decision needs.
pub(super) struct Needed<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) state: &'a RolloutState,
    pub(super) required: RequiredMeasurements,
    /// Nodes that placement picks.
    pub(super) placed: &'a BTreeSet<String>,
    /// Nodes that act on the present traffic split.
    pub(super) exposed: BTreeSet<String>,
    pub(super) now: Timestamp,
}

/// Collects the evidence for the next decision.
pub(super) fn measure(
    target: Target<'_>,
    observed: &Observed,
    function: &Function,
    context: &mut FunctionContext,
) -> Measurement {
    let Target { ctx, key, .. } = target;
    let (state, now) = (&observed.state, observed.snapshot.now);
    let placed = ctx.projector.placed(key, target.object);
    let nodes = FunctionNodes {
        reports: ctx
            .fleet
            .function_nodes(&FunctionKey::new(&key.namespace, &key.name)),
        placed: placed.nodes,
        retained: placed.retained,
        epoch: target.epoch,
    };
    let seen = nodes.reports();
    rollback_hint::follow(ctx, &seen, &mut context.rollback);
    let needed = Needed {
        key,
        state,
        required: core::required_measurements(now, function, state),
        placed: &nodes.placed,
        exposed: seen.following(state),
        now,
    };
    let (measured, traffic) = sample(ctx, &needed, context);
    let slot = RolloutSlot::take(ctx, key, function, state);
    let revisions = observed.snapshot.revisions.iter();
    let input = DecisionInput {
        epoch: target.epoch,
        nodes: seen.view(state, &named(state, function)),
        measured,
        slot: slot.has_place(),
        traffic,
        promoted: last_promoted(revisions.map(AsRef::as_ref)),
        unsupervised_ttl: ctx.settings.unsupervised_ttl,
    };
    Measurement {
        nodes,
        input,
        slot,
        decide_without_prometheus_at: context.decide_without_prometheus_at,
    }
}

/// Evaluates the candidate and determines the traffic of stable, each only if it is due.
pub(super) fn sample(
    ctx: &Context,
    needed: &Needed<'_>,
    context: &mut FunctionContext,
) -> (Measured, Option<Traffic>) {
    let Needed {
        state, required, ..
    } = needed;
    let FunctionContext {
        evaluator,
        before,
        decide_without_prometheus_at,
        ..
    } = context;
    *decide_without_prometheus_at = None;
    let Some(rollout) = &state.rollout else {
        *before = Before::default();
        ctx.source.forget(&function_key(needed.key));
        return (Measured::NotDue, None);
    };
    if before.started_at != Some(rollout.started_at) {
        *before = Before {
            started_at: Some(rollout.started_at),
            ..Before::default()
        };
    }
    let stable = state.stable.as_ref();
    let stable = stable.map(|stable| stable.revision.name.as_str());
    let wanted = wanted(needed.key, rollout, stable);
    let source = rollout.plan.analysis.source;
    let traffic = if required.traffic {
        traffic(ctx, needed, &wanted, rollout, before)
    } else {
        None
    };
    if !required.evaluation {
        return (Measured::NotDue, traffic);
    }
    if rollout.analysis.is_none() && evaluator.is_none() {
        // the first evaluation needs stable's past
        if remember(ctx, &wanted, source, needed.placed, before) {
            return (Measured::NotDue, traffic);
        }
    } else if rollout
        .analysis
        .as_ref()
        .is_some_and(|analysis| analysis.evaluations >= BEGUN)
    {
        (before.scraped, before.in_band) = (Vec::new(), Vec::new());
    }
    let measured = match evaluate(ctx, needed, &wanted, source, evaluator, before) {
        Ok(measured) => measured,
        Err(until) => {
            *decide_without_prometheus_at = until;
            Measured::NotDue
        }
    };
    (measured, traffic)
}

/// Stable's traffic before the candidate gets any; `None` while it may become known soon.
fn traffic(
    ctx: &Context,
    needed: &Needed<'_>,
    wanted: &SampleQuery,
    rollout: &Rollout,
    before: &mut Before,
) -> Option<Traffic> {
    let analysis = &rollout.plan.analysis;
    let pending = remember(ctx, wanted, analysis.source, needed.placed, before);
    let stable = needed.state.stable.as_ref();
    let name = stable.map_or("", |stable| stable.revision.name.as_str());
    let past = History::from_snapshots(before.snapshots(), name, analysis.evaluation_interval);
    let known = past.requests_per_second().map(|rate| Traffic {
        requests_per_second: Some(rate),
    });
    let at_rest = || stable_traffic(&before.in_band, name, stable?.since);
    let unknown = || {
        (!may_be_known_soon(ctx, needed, analysis.source)).then_some(Traffic {
            requests_per_second: None,
        })
    };
    if pending {
        return known;
    }
    known.or_else(at_rest).or_else(unknown)
}

/// Whether the counters that nodes kept while the function rested may still arrive.
fn may_be_known_soon(ctx: &Context, needed: &Needed<'_>, allowed: AnalysisSource) -> bool {
    let (Some(rollout), Some(stable)) = (&needed.state.rollout, &needed.state.stable) else {
        return false;
    };
    let age = |since: Timestamp| needed.now.duration_since(since);
    allowed != AnalysisSource::Prometheus
        && age(rollout.started_at) < AT_REST
        && age(stable.since) >= RESTED
        && ctx.fleet.reports_counters(needed.placed)
}

/// One evaluation of the candidate. While Prometheus has not answered, returns as the error when to evaluate without it, if ever.
fn evaluate(
    ctx: &Context,
    needed: &Needed<'_>,
    wanted: &SampleQuery,
    allowed: AnalysisSource,
    evaluator: &mut Option<Evaluator>,
    before: &Before,
) -> Result<Measured, Option<Instant>> {
    let past = Evaluator::forgotten(evaluator.as_ref(), needed.state, needed.now)
        .filter(|_| allowed != AnalysisSource::InBand);
    let forgotten = match past.map(|past| ctx.source.since(wanted, past)) {
        Some(QueryState::Pending(since)) if since.elapsed() < HISTORY_WAIT => return Err(None),
        Some(QueryState::Answered(Ok(samples))) => samples.snapshots,
        Some(QueryState::Answered(Err(_)) | QueryState::Pending(_) | QueryState::NotConfigured)
        | None => Vec::new(),
    };
    let (samples, source) = match samples(ctx, wanted, allowed) {
        Ok(found) => found,
        Err(Missing::Pending(until)) => return Err(until),
        Err(Missing::Failed(error)) => {
            ctx.metrics.evaluated("unavailable", error.reason());
            return Ok(Measured::Unavailable {
                kind: UnmeasuredKind::NoAnswer,
                message: error.to_string(),
            });
        }
    };
    ctx.source.forget_past(&wanted.function);
    let sampled = Sampled {
        now: needed.now,
        exposed: &needed.exposed,
        snapshots: &samples.snapshots,
        before: before.snapshots(),
        forgotten: &forgotten,
        source,
        problem: samples.problem.as_deref(),
        scrape_interval: ctx.settings.scrape_interval,
    };
    let mut measured = Evaluator::measure(evaluator, needed.state, &sampled);
    if let (Measured::Unavailable { message, .. }, Some(problem)) =
        (&mut measured, &samples.problem)
    {
        message.push_str("; ");
        message.push_str(problem);
    }
    ctx.metrics.evaluated(word(&measured), "");
    Ok(measured)
}

/// Why an evaluation has no samples.
enum Missing {
    /// Prometheus has not answered yet. At this time the evaluation goes on without it, if nodes report counters.
    Pending(Option<Instant>),
    /// Prometheus has no usable answer.
    Failed(MeasureError),
}

/// The newest snapshots from every source that the plan allows, one per process.
fn samples(
    ctx: &Context,
    wanted: &SampleQuery,
    allowed: AnalysisSource,
) -> Result<(Samples, &'static str), Missing> {
    let in_band = if allowed == AnalysisSource::Prometheus {
        Vec::new()
    } else {
        in_band(ctx, wanted)
    };
    let only = |snapshots: Vec<Snapshot>, problem| Samples { snapshots, problem };
    if allowed == AnalysisSource::InBand {
        return Ok((only(in_band, None), "InBand"));
    }
    match ctx.source.newest(wanted) {
        QueryState::Pending(since) if in_band.is_empty() || since.elapsed() < PROMETHEUS_WAIT => {
            let until = (!in_band.is_empty()).then(|| since + PROMETHEUS_WAIT);
            Err(Missing::Pending(until))
        }
        QueryState::Answered(Ok(scraped)) if in_band.is_empty() => Ok((scraped, "Prometheus")),
        QueryState::Answered(Ok(scraped)) if scraped.snapshots.is_empty() => {
            Ok((only(in_band, scraped.problem), "InBand"))
        }
        QueryState::Answered(Ok(scraped)) => {
            let merged = merge(scraped.snapshots.into_iter().chain(in_band));
            Ok((only(merged, scraped.problem), "Both"))
        }
        QueryState::NotConfigured if allowed == AnalysisSource::Prometheus => Err(Missing::Failed(
            MeasureError::NoAnswer("the plan wants Prometheus and none is configured".to_owned()),
        )),
        QueryState::Answered(Err(error)) if in_band.is_empty() => Err(Missing::Failed(error)),
        QueryState::Answered(Err(error)) => {
            let problem = format!("Prometheus: {error}");
            Ok((only(in_band, Some(problem.into())), "InBand"))
        }
        QueryState::Pending(_) | QueryState::NotConfigured => Ok((only(in_band, None), "InBand")),
    }
}

fn in_band(ctx: &Context, wanted: &SampleQuery) -> Vec<Snapshot> {
    let selector = CounterSelector {
        latency: wanted.latency,
        population: &wanted.population,
    };
    ctx.fleet.counters(&wanted.function, selector)
}

/// Keeps the counters of nodes and Prometheus from the time before the candidate gets traffic. Returns whether those of Prometheus
/// are on their way and worth waiting for.
fn remember(
    ctx: &Context,
    wanted: &SampleQuery,
    allowed: AnalysisSource,
    placed: &BTreeSet<String>,
    before: &mut Before,
) -> bool {
    let recent = before.asked.is_some_and(|asked| asked.elapsed() < PAST);
    let mut pending = false;
    if allowed != AnalysisSource::InBand && !recent {
        match ctx.source.history(wanted) {
            QueryState::Pending(since) => {
                let wait = if allowed == AnalysisSource::Prometheus {
                    HISTORY_WAIT
                } else {
                    PROMETHEUS_WAIT
                };
                pending = since.elapsed() < wait;
            }
            QueryState::Answered(answer) => {
                ctx.source.forget_past(&wanted.function);
                before.asked = Some(Instant::now());
                let found = answer.unwrap_or_default().snapshots;
                if !found.is_empty() {
                    before.scraped = found;
                }
            }
            QueryState::NotConfigured => {}
        }
    }
    if allowed != AnalysisSource::Prometheus
        && before.scraped.is_empty()
        && before.in_band.len() < KEPT
    {
        // reports count only for functions that are placed on the node
        let snapshots = in_band(ctx, wanted).into_iter();
        let placed = snapshots.filter(|snapshot| placed.contains(&snapshot.process));
        before.in_band.extend(placed);
    }
    pending
}

fn function_key(key: &ObjectKey) -> FunctionKey {
    FunctionKey::new(&key.namespace, &key.name)
}

fn wanted(key: &ObjectKey, rollout: &Rollout, stable: Option<&str>) -> SampleQuery {
    let candidate = rollout.candidate.revision.name.as_str();
    SampleQuery {
        function: FunctionKey::new(&key.namespace, &key.name),
        revisions: stable
            .into_iter()
            .chain([candidate])
            .map(str::to_owned)
            .collect(),
        latency: match rollout.plan.analysis.latency_measure {
            LatencyMeasure::Head => Latency::Head,
            LatencyMeasure::Full => Latency::Duration,
        },
        population: "live".to_owned(),
    }
}

fn word(measured: &Measured) -> &'static str {
    match measured {
        Measured::NotDue => "nothing_new",
        Measured::Unavailable { .. } => "missing",
        Measured::Evaluation(evaluation) => match evaluation.verdict {
            operator_core::rollout::Verdict::Good => "good",
            operator_core::rollout::Verdict::Bad { .. } => "bad",
            operator_core::rollout::Verdict::NotEnough => "not_enough",
        },
    }
}
