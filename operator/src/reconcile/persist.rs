//! Step 6 of a reconcile: one status patch, with the version it was decided on as its precondition.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::EdgeFunction;
use kube::Api;
use operator_core::status_rate::NodeStatusChange;
use serde_json::Value;

use super::context::{FunctionContext, Present, RetryBackoff};
use super::moving::{self, Arrival};
use super::remembered_secrets::unknown_values;
use super::stages::{Made, Persisted, Target};
use super::status::{self, Difference, Parts};
use super::status_rate_limit::Admitted;
use super::{CallError, Context, ReconcileError, api, table_projection};
use crate::watch::slim_function;

/// Result of a write of the status.
enum Written {
    /// Nothing had to be written.
    Unchanged,
    /// The status was written; this is the new object.
    Yes(Arc<EdgeFunction>),
    /// Another writer changed the object first.
    Conflict,
}

/// Writes the status if it differs enough to be worth a write. Returns `None` if another writer changed the
/// object meanwhile.
///
/// # Errors
/// The write failed, or it failed so recently that it is not repeated yet.
pub(super) async fn persist(
    target: Target<'_>,
    made: &Made,
    context: &mut FunctionContext,
) -> Result<Option<Persisted>, ReconcileError> {
    let parts = parts(target, made);
    let asked = made.decision.persist || made.observed.owed.is_some();
    // Until the last step is done: whether a write without an answer happened is unknown, and so is what is still to be
    // applied and reported.
    let first = !std::mem::replace(&mut context.reported, false);
    let written = write(target, &parts, asked, context).await;
    if matches!(written, Err(_) | Ok(Written::Conflict)) {
        context.present = Some(unwritten(target, made));
    }
    let written = written?;
    if matches!(written, Written::Conflict) {
        context.reported = !first;
        return Ok(None);
    }
    let written = match written {
        Written::Yes(object) => Some(object),
        Written::Unchanged | Written::Conflict => None,
    };
    Ok(Some(Persisted { written, first }))
}

fn parts<'a>(target: Target<'a>, made: &'a Made) -> Parts<'a> {
    let state = &made.decision.state;
    let nodes = &made.measured.nodes;
    let seen = nodes.reports();
    let picked: BTreeSet<String> = nodes.placed.difference(&nodes.retained).cloned().collect();
    Parts {
        serving: serving(target, made, &picked),
        moving: moving::sentence(picked.len(), nodes.retained.len()),
        object: target.object,
        function: &made.function,
        desired: &made.ensured.desired,
        state,
        exceptions: seen.exceptions(),
        unknown: unknown_values(target.ctx, target.key, state, &seen),
        certificate_problem: made.ensured.certificates.problem.as_deref(),
        epoch: target.epoch,
        now: made.at,
    }
}

/// Returns the nodes that the status remembers as those that serve the function.
fn serving(target: Target<'_>, made: &Made, picked: &BTreeSet<String>) -> Vec<String> {
    let spec = made.ensured.desired.spec.as_ref();
    let placement = spec.map(|spec| spec.placement.clone());
    let placement = placement.unwrap_or_else(|| table_projection::placement(target.object));
    let status = target.object.status.as_ref();
    let former = status.and_then(|status| status.nodes.as_ref());
    let former = former.map_or(&[][..], |nodes| &nodes.serving);
    let stable = made.decision.state.stable.as_ref();
    let stable = stable.map_or("", |stable| &stable.revision.name);
    let arrival = Arrival::of(&made.measured.nodes.reports, picked, stable);
    moving::serving(&placement, picked, former, &arrival)
}

async fn write(
    target: Target<'_>,
    parts: &Parts<'_>,
    asked: bool,
    context: &mut FunctionContext,
) -> Result<Written, ReconcileError> {
    let Target { ctx, object, .. } = target;
    let old = object.status.clone().unwrap_or_default();
    let new = status::build(parts)?;
    let difference = status::difference(&old, &new, &parts.state.nodes);
    let drifted = may_write_nodes(ctx, difference, asked, context);
    let keep = |record: Option<String>| {
        Some(Present {
            state: parts.state.clone(),
            uid: object.metadata.uid.clone(),
            record,
            owed: None,
        })
    };
    if !asked && !drifted && difference != Difference::Plain {
        context.present = keep(old.rollout.and_then(|rollout| rollout.working_record));
        return Ok(Written::Unchanged);
    }
    let rollout = new.rollout.as_ref();
    let record = rollout.and_then(|rollout| rollout.working_record.clone());
    let Some(change) =
        status::merge_patch(&serde_json::to_value(&old)?, &serde_json::to_value(&new)?)
    else {
        context.present = keep(record);
        return Ok(Written::Unchanged);
    };
    let version = object.metadata.resource_version.as_ref();
    if let Some(until) = RetryBackoff::lasts(context.write_backoff.as_ref(), version) {
        return Err(ReconcileError::Waits(until));
    }
    match patch(target, &change).await {
        Ok(mut written) => {
            ctx.metrics.status_written("written");
            slim_function(&mut written);
            let written = Arc::new(written);
            context.written = Some(Arc::clone(&written));
            context.present = keep(record);
            context.write_backoff = None;
            Ok(Written::Yes(written))
        }
        Err(error) if error.is_conflict() || error.is_gone_object(&target.key.name) => {
            ctx.metrics.status_written("conflict");
            Ok(Written::Conflict)
        }
        Err(error) => {
            ctx.metrics.status_written("failed");
            context.write_backoff = Some(RetryBackoff::after(&error, context.failures, version));
            Err(error.into())
        }
    }
}

/// Writes a change of the status to exactly the version that it was decided on.
async fn patch(target: Target<'_>, change: &Value) -> Result<EdgeFunction, CallError> {
    let Target {
        ctx, key, object, ..
    } = target;
    let meta = &object.metadata;
    let patch = serde_json::json!({
        "metadata": { "resourceVersion": meta.resource_version, "uid": meta.uid },
        "status": change,
    });
    let functions: Api<EdgeFunction> = Api::namespaced(ctx.client.clone(), &key.namespace);
    api::patch_status(&functions, &key.name, &patch).await
}

/// Decides whether the progress of nodes with a function at rest is written now. If not, notes when it may be.
fn may_write_nodes(
    ctx: &Context,
    difference: Difference,
    asked: bool,
    context: &mut FunctionContext,
) -> bool {
    context.nodes_due = None;
    let change = match difference {
        // This write includes the progress of the nodes.
        Difference::Plain => {
            ctx.status_rate_limit.carried(&mut context.limit);
            return false;
        }
        Difference::Nodes(_) if asked => {
            ctx.status_rate_limit.carried(&mut context.limit);
            return false;
        }
        Difference::Nodes(change) => change,
        Difference::None => NodeStatusChange::None,
    };
    match ctx.status_rate_limit.admit(&mut context.limit, change) {
        Admitted::Idle => false,
        Admitted::Write => true,
        Admitted::Wait(until) => {
            context.nodes_due = Some(until);
            false
        }
    }
}

/// What the next pass continues from after a failed write. It is dropped if the write happened after all, because the
/// persisted record is another one then.
fn unwritten(target: Target<'_>, made: &Made) -> Present {
    let (before, decision) = (&made.observed, &made.decision);
    let status = target.object.status.as_ref();
    let rollout = status.and_then(|status| status.rollout.as_ref());
    // Nodes have stopped the candidate, so no further evidence would lead to the same decision.
    let acted_on = decision.hint.is_some();
    let state = if acted_on {
        let mut state = decision.state.clone();
        if before.owed.is_some() {
            state.events = before.state.events.clone();
            state.events.extend(decision.transitions.iter().cloned());
        }
        state
    } else {
        before.state.with_evidence_of(&decision.state)
    };
    let first = || acted_on.then(|| Box::new(before.state.clone()));
    Present {
        state,
        uid: target.object.metadata.uid.clone(),
        record: rollout.and_then(|rollout| rollout.working_record.clone()),
        owed: before.owed.clone().or_else(first),
    }
}
