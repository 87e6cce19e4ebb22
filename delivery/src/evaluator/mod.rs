//! Computes the evaluations that rollouts are decided by, from the samples that were read.
//!
//! The operator calls [`Evaluator::measure`] whenever an evaluation is due and keeps the [`Evaluator`] in memory between the calls.
//! What it needs after a restart is persisted with the rollout's state, and the memory is used only while it equals the
//! persisted state. If an evaluation was dropped (a failed write, another leader), the analysis continues from the
//! persisted state, so no evaluation counts twice. Dropped evaluations are computed again if the samples of that time
//! still exist (`recompute`).

mod recompute;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::analysis::{
    self, Analysis, AnalysisPlan, EvaluationInput, EvaluationResult, History, MissedSlo,
    TotalFailure,
};
use crate::rollout::{
    Evaluation, EvidenceSummary, Measured, RequestCounts, Rollout, RolloutState, StableHealth,
    State, UnmeasuredKind, Verdict,
};
use crate::samples::Snapshot;

/// Input of one evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Sampled<'a> {
    /// Time of the evaluation.
    pub now: Timestamp,
    /// Nodes that have loaded the candidate and acknowledged its share, chosen before the samples were read.
    pub exposed: &'a BTreeSet<String>,
    /// Snapshots that were read for this evaluation, from all sources.
    pub snapshots: &'a [Snapshot],
    /// Raw snapshots of the minutes before the candidate got its first requests. They are read at the first evaluation of a
    /// rollout only, for stable's rates and quantiles, the dispersion of the nodes, and the baselines.
    pub before: &'a [Snapshot],
    /// Raw snapshots of the period that [`Evaluator::forgotten`] returned. Evaluations without snapshots stay lost.
    pub forgotten: &'a [Snapshot],
    /// Source of the counts for display: `Prometheus`, `InBand` or `Both`.
    pub source: &'a str,
    /// Clause that says why counts are missing, if that is known.
    pub problem: Option<&'a str>,
    /// Scrape interval of Prometheus.
    pub scrape_interval: Duration,
}

/// The analysis of one rollout, kept between evaluations.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluator {
    /// On the heap, because most functions have no rollout and keep only the place for an evaluator.
    analysis: Box<Analysis>,
    /// Persisted form of the analysis after the last evaluation; empty before the first.
    text: String,
}

impl Evaluator {
    /// Evaluates the samples. `memory` holds the value that the last call for the same function left; it may be lost at any time.
    pub fn measure(
        memory: &mut Option<Self>,
        state: &RolloutState,
        sampled: &Sampled<'_>,
    ) -> Measured {
        let (Some(rollout), Some(stable)) = (&state.rollout, &state.stable) else {
            *memory = None;
            return Measured::NotDue;
        };
        let stable = stable.revision.name.as_str();
        let mut evaluator = Self::continued(memory.take(), state.state, rollout, stable, sampled);
        evaluator.enter_step(state.state, rollout, sampled.now);
        let result = evaluator.analysis.evaluate(&EvaluationInput {
            now: sampled.now,
            candidate: &rollout.candidate.revision.name,
            stable,
            exposed: sampled.exposed,
            in_force_since: rollout.acked_at,
            pass_frozen: recompute::is_frozen(rollout),
            snapshots: sampled.snapshots,
        });
        let measured = if result.usable {
            Measured::Evaluation(Box::new(evaluator.evaluation(rollout, sampled, &result)))
        } else {
            evaluator.no_samples(sampled)
        };
        *memory = Some(evaluator);
        measured
    }

    fn continued(
        memory: Option<Self>,
        state: State,
        rollout: &Rollout,
        stable: &str,
        sampled: &Sampled<'_>,
    ) -> Self {
        let plan = AnalysisPlan::new(&rollout.plan.analysis, sampled.scrape_interval);
        let Some(persisted) = &rollout.analysis else {
            // before the first evaluation the memory contains only baselines
            return memory
                .filter(|evaluator| {
                    evaluator.text.is_empty() && evaluator.analysis.is_of(rollout.started_at)
                })
                .unwrap_or_else(|| Self::fresh(&plan, rollout, stable, sampled));
        };
        if let Some(evaluator) = memory.filter(|evaluator| evaluator.text == persisted.state) {
            return evaluator;
        }
        let Ok(analysis) = Analysis::decode(&plan, &persisted.state) else {
            return Self::fresh(&plan, rollout, stable, sampled);
        };
        let mut evaluator = Self {
            analysis: Box::new(analysis),
            text: persisted.state.clone(),
        };
        evaluator.enter_step(state, rollout, sampled.now);
        evaluator.recompute(rollout, stable, sampled, persisted.evaluated_at);
        evaluator
    }

    fn fresh(plan: &AnalysisPlan, rollout: &Rollout, stable: &str, sampled: &Sampled<'_>) -> Self {
        let history = History::from_snapshots(sampled.before, stable, plan.evaluation_interval);
        let mut analysis = Analysis::start(rollout.started_at, plan, &history);
        let candidate = &rollout.candidate.revision.name;
        let first_weight_at = rollout.step_started_at.min(sampled.now);
        analysis.baseline(first_weight_at, sampled.before, candidate, stable);
        Self {
            analysis: Box::new(analysis),
            text: String::new(),
        }
    }

    /// Begins a step of the analysis if the weight has changed since the last evaluation.
    fn enter_step(&mut self, state: State, rollout: &Rollout, now: Timestamp) {
        let weight = |parts: u32| u16::try_from(parts).unwrap_or(analysis::WHOLE);
        let next = (state == State::Stepping)
            .then(|| weight(rollout.plan.weight(rollout.step + 1).parts()));
        let present = weight(rollout.weight.parts());
        if self.analysis.step_shares() != (present, next) {
            self.analysis
                .begin_step(rollout.step_started_at.min(now), present, next);
        }
    }

    fn evaluation(
        &mut self,
        rollout: &Rollout,
        sampled: &Sampled<'_>,
        result: &EvaluationResult,
    ) -> Evaluation {
        let missed = self.analysis.missed_slo();
        let total = self.analysis.total_failure();
        if result.backstop_reached || total.is_some() {
            // the rollout reacts to it once; later evaluations report it again only if it is reached again
            self.analysis.restart_backstop();
        }
        self.text = self.analysis.encode();
        Evaluation {
            revision: rollout.candidate.revision.name.clone(),
            number: rollout.analysis.as_ref().map_or(0, |a| a.evaluations) + 1,
            at: sampled.now,
            analysis: self.text.clone(),
            verdict: match &result.verdict {
                analysis::Verdict::Good => Verdict::Good,
                analysis::Verdict::Bad(metric) => Verdict::Bad {
                    reason: metric.reason().to_owned(),
                },
                analysis::Verdict::NotEnough(_) => Verdict::NotEnough,
            },
            backstop: result.backstop_reached,
            shared_failure: shared_failure(missed.as_ref(), total.as_ref()),
            stable_meets_slo: missed.is_none_or(|p| p.stable_meets_it) && total.is_none(),
            covered: result.covered,
            share_mismatch: result.share_mismatch.then(|| {
                let (candidate, stable) = self.analysis.split();
                format!(
                    "{candidate} of {} requests went to the candidate at a weight of {}",
                    candidate + stable,
                    rollout.weight
                )
            }),
            stable_health: stable_health(result),
            candidate_requests: self.analysis.last_candidate_requests(),
            evidence_summary: EvidenceSummary {
                source: sampled.source.to_owned(),
                dominant: result.dominant.clone(),
                stale: stale(result, sampled.problem),
                ..self.analysis.evidence_summary()
            },
        }
    }

    /// Result without new samples: nothing is due between two scrapes, and samples are missing after that.
    fn no_samples(&self, sampled: &Sampled<'_>) -> Measured {
        let silence = sampled.now.duration_since(self.analysis.usable_at());
        if silence <= self.analysis.stale_after() {
            return Measured::NotDue;
        }
        let message = if sampled.exposed.is_empty() {
            "no node serves the candidate".to_owned()
        } else {
            format!(
                "no new samples from {} nodes for {} s",
                sampled.exposed.len(),
                silence.as_secs()
            )
        };
        Measured::Unavailable {
            kind: UnmeasuredKind::NothingUsable,
            message,
        }
    }
}

/// Clause that says that both revisions miss the objective, or that both fail more than usual.
fn shared_failure(missed: Option<&MissedSlo>, total: Option<&TotalFailure>) -> Option<String> {
    let missed = missed.filter(|missed| !missed.stable_meets_it).map(|it| {
        let what = "miss the SLO";
        (what, it.candidate, it.stable, it.limit)
    });
    let total = total.map(|it| ("fail more than usual", it.candidate, it.stable, it.limit));
    let (what, candidate, stable, limit) = missed.or(total)?;
    Some(format!(
        "both revisions {what} ({} and {}, limit {}), so the cause is shared",
        percent(candidate),
        percent(stable),
        percent(limit)
    ))
}

/// The node whose counts are missed most and, if known, why they are missing: `node-2 (the target 10.0.0.7:9180 claims …)`.
fn stale(result: &EvaluationResult, problem: Option<&str>) -> Option<String> {
    /// Maximum length of the reason in characters: it contains labels of targets, and the summary is persisted.
    const REASON: usize = 200;
    let node = result.stale.as_deref()?;
    Some(match problem {
        Some(problem) => {
            let problem: String = problem.chars().take(REASON).collect();
            format!("{node} ({problem})")
        }
        None => node.to_owned(),
    })
}

/// What the requests to stable in this evaluation show about it.
fn stable_health(result: &EvaluationResult) -> Option<StableHealth> {
    let counts = RequestCounts {
        requests: result.errors.stable_requests.round() as u64,
        errors: result.errors.stable_events.round() as u64,
        client_errors: 0,
    };
    StableHealth::of(counts, "stable", "one evaluation")
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
