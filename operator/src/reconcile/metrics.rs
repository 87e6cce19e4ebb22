//! Metrics that follow from a persisted decision.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::rollout::State;
use jiff::Timestamp;
use operator_core::rollout::{Outcome, RolloutState, Strategy};

use super::Context;
use crate::metrics::FunctionGauge;
use crate::watch::ObjectKey;

/// Time between two counts of all rollouts.
const PERIOD: Duration = Duration::from_secs(5);

/// Counts the rollouts of all functions by state, periodically. It never returns.
pub(super) async fn count_rollouts(ctx: &Context) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let mut counts: BTreeMap<&str, usize> =
            State::ALL.iter().map(|state| (state.as_str(), 0)).collect();
        for function in ctx.caches.functions.all().into_values() {
            let status = function.status.as_ref();
            let state = status
                .and_then(|status| status.rollout.as_ref())
                .and_then(|rollout| rollout.state);
            if let Some(count) = state.and_then(|state| counts.get_mut(state.as_str())) {
                *count += 1;
            }
        }
        for (state, count) in counts {
            ctx.metrics.set_rollouts(state, count);
        }
    }
}

/// Sets the gauges of one function. Without a rollout only the state is set.
pub(super) fn gauge(ctx: &Context, key: &ObjectKey, state: &RolloutState) {
    let Some(rollout) = &state.rollout else {
        ctx.metrics.set_function(
            key,
            &[(FunctionGauge::State, vec![state.state.as_str()], 1.0)],
        );
        return;
    };
    let strategy = strategy(rollout.plan.strategy);
    let stable = state
        .stable
        .as_ref()
        .map_or("", |stable| stable.revision.name.as_str());
    let weight = if state.state.is_exposed() {
        rollout.weight.parts()
    } else {
        0
    };
    let mut values = vec![
        (FunctionGauge::State, vec![state.state.as_str()], 1.0),
        (
            FunctionGauge::Info,
            vec![rollout.candidate.revision.name.as_str(), stable, strategy],
            1.0,
        ),
        (FunctionGauge::Weight, vec![""], f64::from(weight)),
        (FunctionGauge::Step, vec![], rollout.step as f64),
    ];
    if let Some(hold) = &rollout.flags.hold {
        values.push((FunctionGauge::Hold, vec![hold.reason.as_str()], 1.0));
    }
    if let Some(summary) = &state.evidence_summary {
        values.push((FunctionGauge::PassProgress, vec![], summary.pass.progress));
        for (arm, sums) in [("candidate", summary.candidate), ("stable", summary.stable)] {
            values.push((FunctionGauge::Requests, vec![arm], sums.requests as f64));
            values.push((
                FunctionGauge::Events,
                vec![arm, "errors"],
                sums.errors as f64,
            ));
            values.push((
                FunctionGauge::Events,
                vec![arm, "clientErrors"],
                sums.client_errors as f64,
            ));
        }
        for metric in &summary.metrics {
            values.push((
                FunctionGauge::LogE,
                vec![metric.name.as_str(), "rollback"],
                metric.ln_e,
            ));
            values.push((
                FunctionGauge::Dispersion,
                vec![metric.name.as_str()],
                metric.dispersion,
            ));
        }
    }
    ctx.metrics.set_function(key, &values);
}

/// Counts rollouts that ended with this write.
pub(super) fn count_transitions(
    ctx: &Context,
    before: &RolloutState,
    after: &RolloutState,
    decided: Timestamp,
) {
    for action in &after.actions {
        if !before.actions.contains(action) {
            let result = match action.result {
                operator_core::rollout::ActionResult::Done => "done",
                operator_core::rollout::ActionResult::Ignored(_) => "ignored",
            };
            ctx.metrics.action(action.action.as_str(), result);
        }
    }
    let Some(ended) = after
        .history
        .first()
        .filter(|ended| before.history.first() != Some(ended))
    else {
        return;
    };
    let strategy = before
        .rollout
        .as_ref()
        .map_or("", |rollout| strategy(rollout.plan.strategy));
    let seconds = ended
        .finished_at
        .duration_since(ended.started_at)
        .as_secs_f64();
    ctx.metrics.rollout_ended(
        strategy,
        ended.outcome.as_str(),
        &ended.reason,
        seconds.max(0.0),
    );
    if ended.outcome == Outcome::RolledBack {
        let since = |at: Timestamp| Timestamp::now().duration_since(at).as_secs_f64().max(0.0);
        if let Some(decisive) = &ended.decisive {
            ctx.metrics.rollback_stage(
                "decided",
                decided.duration_since(decisive.at).as_secs_f64().max(0.0),
            );
        }
        ctx.metrics.rollback_stage("persisted", since(decided));
    }
}

fn strategy(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Canary => "Canary",
        Strategy::AllAtOnce => "AllAtOnce",
    }
}
