//! Step 4 of a reconcile: exactly the samples that the next decision needs.
//!
//! Everything that is due within a moment is asked of Prometheus in one query per metric. An evaluation does
//! not wait for a slow Prometheus if it has the counters of the nodes, which are as accurate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use operator_core::analysis::{History, resting_traffic};
use operator_core::evaluator::{Evaluator, Sampled};
use operator_core::function::Function;
use operator_core::rollout::{
    self as core, Due, Evidence, LatencyMeasure, Measured, Rollout, RolloutState, Source, Traffic,
    UnmeasuredKind,
};
use operator_core::samples::{Snapshot, merge};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::context::{Before, FunctionContext};
use super::input::named;
use super::nodes::FunctionNodes;
use super::observe::Observed;
use super::pass::Target;
use super::slot::Slot;
use super::{Context, rollback_hint};
use crate::measure::{MeasureError, Prometheus, Wanted};
use crate::node_api::{FunctionKey, Latency, Reading};
use crate::persist::last_promoted;
use crate::watch::ObjectKey;

/// Maximum number of functions in one query.
const AT_ONCE: usize = 50;
/// Time in which functions are collected for one query.
const GATHER: Duration = Duration::from_millis(50);
/// Longest wait, from the begin of the rollout, for two reports of the counters that nodes kept while a function rested. Nodes
/// report every five seconds.
const AT_REST: SignedDuration = SignedDuration::from_secs(15);
/// A revision that became stable more recently than this has no traffic worth waiting for.
const RESTED: SignedDuration = SignedDuration::from_mins(1);
/// Longest wait of an evaluation for Prometheus if it has the counters of the nodes.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shortest time between two queries for the past of the stable revision.
const PAST: Duration = Duration::from_secs(10);
/// Longest wait, once after a start, for the samples of evaluations that the last leader did not persist.
const RECOMPUTE: Duration = Duration::from_secs(10);
/// Maximum number of in-band snapshots that are kept from the time before the candidate got traffic.
const KEPT: usize = 20_000;

type Answer = Result<Vec<Snapshot>, MeasureError>;

/// Source of counters. Clones share it.
#[derive(Clone, Default)]
pub struct SampleSource(Option<Asker>);

#[derive(Clone)]
struct Asker {
    prometheus: Arc<Prometheus>,
    ask: mpsc::Sender<(Wanted, oneshot::Sender<Answer>)>,
}

impl std::fmt::Debug for SampleSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleSource")
            .field("prometheus", &self.0.is_some())
            .finish()
    }
}

// === impl SampleSource ===

impl SampleSource {
    /// Asks `prometheus`, one query at a time; must be called within the runtime.
    #[must_use]
    pub fn new(prometheus: Prometheus) -> Self {
        let prometheus = Arc::new(prometheus);
        let (ask, asked) = mpsc::channel(1024);
        tokio::spawn(answer(Arc::clone(&prometheus), asked));
        Self(Some(Asker { prometheus, ask }))
    }

    /// The newest snapshots of one function.
    async fn newest(&self, wanted: Wanted) -> Option<Answer> {
        let asker = self.0.as_ref()?;
        let (reply, answer) = oneshot::channel();
        let gone = || Err(MeasureError::NoAnswer("too many questions".to_owned()));
        if asker.ask.try_send((wanted, reply)).is_err() {
            return Some(gone());
        }
        Some(answer.await.unwrap_or_else(|_| gone()))
    }

    /// The last minutes of one function; empty when they are not known.
    async fn past(&self, wanted: &Wanted) -> Vec<Snapshot> {
        let Some(asker) = &self.0 else {
            return Vec::new();
        };
        let found = asker.prometheus.history(wanted).await;
        known(wanted, found, "stable's past is not known")
    }

    /// The samples that evaluations in the last `past` could have used; empty if they are not known.
    async fn since(&self, wanted: &Wanted, past: Duration) -> Vec<Snapshot> {
        let Some(asker) = &self.0 else {
            return Vec::new();
        };
        let asked = tokio::time::timeout(RECOMPUTE, asker.prometheus.since(wanted, past));
        let found = asked.await.unwrap_or(Err(MeasureError::Timeout));
        known(
            wanted,
            found,
            "evaluations since the last written state are lost",
        )
    }
}

fn known(
    wanted: &Wanted,
    found: Result<crate::measure::Sampled, MeasureError>,
    otherwise: &str,
) -> Vec<Snapshot> {
    match found {
        Ok(mut found) => found.snapshots.remove(&wanted.function).unwrap_or_default(),
        Err(error) => {
            tracing::debug!(%error, "{otherwise}");
            Vec::new()
        }
    }
}

async fn answer(
    prometheus: Arc<Prometheus>,
    mut asked: mpsc::Receiver<(Wanted, oneshot::Sender<Answer>)>,
) {
    while let Some(first) = asked.recv().await {
        tokio::time::sleep(GATHER).await;
        let mut batch = vec![first];
        while batch.len() < AT_ONCE
            && let Ok(next) = asked.try_recv()
        {
            batch.push(next);
        }
        let wanted: Vec<Wanted> = batch.iter().map(|(wanted, _)| wanted.clone()).collect();
        let mut answer = prometheus.sample(&wanted).await;
        for (wanted, reply) in batch {
            let part = match &mut answer {
                Ok(found) => Ok(found.snapshots.remove(&wanted.function).unwrap_or_default()),
                Err(error) => Err(error.clone()),
            };
            // The reconcile that asked may have stopped waiting.
            let _ = reply.send(part);
        }
    }
}

/// Nodes of a function, and the evidence for its next decision.
pub(super) struct Measurement {
    pub(super) nodes: FunctionNodes,
    pub(super) evidence: Evidence,
    /// Place for a rollout with traffic.
    pub(super) slot: Slot,
}

/// The samples that a decision needs.
pub(super) struct Needed<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) state: &'a RolloutState,
    pub(super) due: Due,
    /// Nodes that placement picks.
    pub(super) placed: &'a BTreeSet<String>,
    /// Nodes that act on the present traffic split.
    pub(super) exposed: BTreeSet<String>,
    pub(super) now: Timestamp,
}

/// Collects the evidence for the next decision.
pub(super) async fn measure(
    target: Target<'_>,
    observed: &Observed,
    function: &Function,
    memory: &mut FunctionContext,
) -> Measurement {
    let Target { ctx, key, .. } = target;
    let (state, now) = (&observed.state, observed.snapshot.now);
    let nodes = FunctionNodes {
        heard: ctx
            .fleet
            .function_nodes(&FunctionKey::new(&key.namespace, &key.name)),
        placed: ctx.projector.placed(key, target.object),
        epoch: target.epoch,
    };
    let seen = nodes.reports();
    rollback_hint::follow(ctx, &seen, &mut memory.rollback);
    let needed = Needed {
        key,
        state,
        due: core::due(now, function, state),
        placed: &nodes.placed,
        exposed: seen.following(state),
        now,
    };
    let (measured, traffic) = sample(ctx, &needed, memory).await;
    let slot = Slot::take(ctx, key, function, state);
    let revisions = observed.snapshot.revisions.iter();
    let evidence = Evidence {
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
        evidence,
        slot,
    }
}

/// Evaluates the candidate and determines the traffic of stable, each only if it is due.
pub(super) async fn sample(
    ctx: &Context,
    needed: &Needed<'_>,
    memory: &mut FunctionContext,
) -> (Measured, Option<Traffic>) {
    let Needed { state, due, .. } = needed;
    let FunctionContext {
        evaluator, before, ..
    } = memory;
    let Some(rollout) = &state.rollout else {
        *before = Before::default();
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
    let traffic = if due.traffic {
        remember(ctx, &wanted, source, needed.placed, before).await;
        let past = History::from_snapshots(
            before.snapshots(),
            stable.unwrap_or_default(),
            rollout.plan.analysis.look_period,
        );
        let stable = state.stable.as_ref();
        let at_rest = || {
            let stable = stable?;
            resting_traffic(&before.in_band, &stable.revision.name, stable.since)
        };
        let known = |rate| Traffic {
            requests_per_second: Some(rate),
        };
        let unknown = Traffic {
            requests_per_second: None,
        };
        let traffic = past.requests_per_second().map(known).or_else(at_rest);
        let waits = || may_be_known_soon(ctx, needed, source);
        traffic.or_else(|| (!waits()).then_some(unknown))
    } else {
        None
    };
    if !due.evaluation {
        return (Measured::NotDue, traffic);
    }
    if rollout.analysis.is_none() && evaluator.is_none() {
        remember(ctx, &wanted, source, needed.placed, before).await;
    }
    let measured = evaluate(ctx, needed, &wanted, source, evaluator, before).await;
    (measured, traffic)
}

/// Whether the counters that nodes kept while the function rested may still arrive.
fn may_be_known_soon(ctx: &Context, needed: &Needed<'_>, allowed: Source) -> bool {
    let (Some(rollout), Some(stable)) = (&needed.state.rollout, &needed.state.stable) else {
        return false;
    };
    let age = |since: Timestamp| needed.now.duration_since(since);
    allowed != Source::Prometheus
        && age(rollout.started_at) < AT_REST
        && age(stable.since) >= RESTED
        && ctx.fleet.reports_counters(needed.placed)
}

/// One evaluation of the candidate.
async fn evaluate(
    ctx: &Context,
    needed: &Needed<'_>,
    wanted: &Wanted,
    allowed: Source,
    evaluator: &mut Option<Evaluator>,
    before: &Before,
) -> Measured {
    let (snapshots, source) = match samples(ctx, wanted, allowed).await {
        Ok(found) => found,
        Err(error) => {
            ctx.metrics.evaluated("unavailable", error.reason());
            return Measured::Unavailable {
                kind: UnmeasuredKind::NoAnswer,
                message: error.to_string(),
            };
        }
    };
    let past = Evaluator::forgotten(evaluator.as_ref(), needed.state, needed.now)
        .filter(|_| allowed != Source::InBand);
    let forgotten = match past {
        Some(past) => ctx.source.since(wanted, past).await,
        None => Vec::new(),
    };
    let sampled = Sampled {
        now: needed.now,
        exposed: &needed.exposed,
        snapshots: &snapshots,
        before: before.snapshots(),
        forgotten: &forgotten,
        source,
        scrape_interval: ctx.settings.scrape_interval,
    };
    let measured = Evaluator::measure(evaluator, needed.state, &sampled);
    ctx.metrics.evaluated(word(&measured), "");
    measured
}

/// The newest snapshots from every source that the plan allows, one per process.
async fn samples(
    ctx: &Context,
    wanted: &Wanted,
    allowed: Source,
) -> Result<(Vec<Snapshot>, &'static str), MeasureError> {
    let reading = Reading {
        latency: wanted.latency,
        population: &wanted.population,
    };
    let in_band = if allowed == Source::Prometheus {
        Vec::new()
    } else {
        ctx.fleet.counters(&wanted.function, reading)
    };
    if allowed == Source::InBand {
        return Ok((in_band, "InBand"));
    }
    let scraped = if in_band.is_empty() {
        ctx.source.newest(wanted.clone()).await
    } else {
        let patient = tokio::time::timeout(PATIENCE, ctx.source.newest(wanted.clone()));
        patient.await.unwrap_or(Some(Err(MeasureError::Timeout)))
    };
    match scraped {
        Some(Ok(scraped)) if in_band.is_empty() => Ok((scraped, "Prometheus")),
        Some(Ok(scraped)) if scraped.is_empty() => Ok((in_band, "InBand")),
        Some(Ok(scraped)) => Ok((merge(scraped.into_iter().chain(in_band)), "Both")),
        None if allowed == Source::Prometheus => Err(MeasureError::NoAnswer(
            "the plan wants Prometheus and none is configured".to_owned(),
        )),
        Some(Err(error)) if in_band.is_empty() => Err(error),
        Some(Err(_)) | None => Ok((in_band, "InBand")),
    }
}

/// Keeps the counters of nodes and Prometheus from the time before the candidate gets traffic.
async fn remember(
    ctx: &Context,
    wanted: &Wanted,
    allowed: Source,
    placed: &BTreeSet<String>,
    before: &mut Before,
) {
    if before.asked.is_some_and(|asked| asked.elapsed() < PAST) && !before.scraped.is_empty() {
        return;
    }
    before.asked = Some(Instant::now());
    if allowed != Source::InBand {
        let scraped = ctx.source.past(wanted).await;
        if !scraped.is_empty() {
            before.scraped = scraped;
        }
    }
    if allowed != Source::Prometheus && before.in_band.len() < KEPT {
        let reading = Reading {
            latency: wanted.latency,
            population: &wanted.population,
        };
        // reports count only for functions that are placed on the node
        let snapshots = ctx.fleet.counters(&wanted.function, reading);
        let placed = snapshots
            .into_iter()
            .filter(|snapshot| placed.contains(&snapshot.process));
        before.in_band.extend(placed);
    }
}

fn wanted(key: &ObjectKey, rollout: &Rollout, stable: Option<&str>) -> Wanted {
    let candidate = rollout.candidate.revision.name.as_str();
    Wanted {
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
