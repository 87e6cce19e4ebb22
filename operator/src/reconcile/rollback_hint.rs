//! The way of a rollback to the nodes: a hint that arrives before the status is written, and how long it takes.

use jiff::Timestamp;
use node_api::v1;
use operator_core::rollout::{Outcome, RolloutState};

use super::context::Rollback;
use super::nodes::NodeReports;
use super::stages::{Made, Target};
use super::{Context, table_projection};
use crate::node_api::FunctionKey;

/// Sends the traffic split of a rollback to the nodes ahead of the status write, which is safe because it can only lower
/// the share of the candidate.
pub(super) fn hint(target: Target<'_>, made: &Made) {
    let Target { ctx, key, .. } = target;
    let Some(split) = &made.decision.hint else {
        return;
    };
    let decided = u64::try_from(made.at.as_millisecond()).unwrap_or(0);
    let update = v1::SplitUpdate {
        key: Some((&FunctionKey::new(&key.namespace, &key.name)).into()),
        version: crate::watch::version(&**target.object),
        split: Some(table_projection::wire_split(split, decided)),
    };
    if let Err(error) = ctx.fleet.hint(&update) {
        tracing::debug!(?error, "the hint was not needed");
    }
}

/// Starts to measure a rollback if the state `after`, which was persisted, ends a rollout with one.
pub(super) fn begin(
    before: &RolloutState,
    after: &RolloutState,
    decided: Timestamp,
    rollback: &mut Option<Rollback>,
) {
    let ended = after.history.first();
    let back = |outcome| matches!(outcome, Outcome::RolledBack | Outcome::Aborted);
    if ended != before.history.first() && ended.is_some_and(|ended| back(ended.outcome)) {
        *rollback = Some(Rollback {
            decided,
            token: after.token,
            begun: false,
        });
    }
}

/// Measures how long a running rollback takes to the first and to the last node.
pub(super) fn follow(ctx: &Context, seen: &NodeReports<'_>, rollback: &mut Option<Rollback>) {
    let Some(running) = rollback else { return };
    let (reached, live) = seen.at(running.token);
    let seconds = Timestamp::now()
        .duration_since(running.decided)
        .as_secs_f64()
        .max(0.0);
    if reached > 0 && !running.begun {
        running.begun = true;
        ctx.metrics.rollback_stage("first_node", seconds);
    }
    if reached > 0 && reached >= live {
        ctx.metrics.rollback_stage("last_node", seconds);
        *rollback = None;
    }
}
