//! The sentence of a reconcile: each step is one call in `pass`, and `reconcile` retries a pass after a conflict. `mod.rs`
//! describes the steps.

use std::sync::Arc;

use jiff::Timestamp;
use operator_core::rollout::decide;
use tracing::Span;
use tracing::field::Empty;

use super::context::FunctionContext;
use super::stages::{Made, Target};
use super::{
    Context, Outcome, ReconcileError, apply::apply, core_input::describe_function,
    desired::validate, ensure::ensure, forget, measure::measure, observe, persist::persist,
    report::report, rollback_hint,
};
use crate::watch::ObjectKey;

/// How many times at most one reconcile decides. It decides again when another writer changed the object meanwhile.
pub(super) const CONFLICTS: u32 = 5;

/// Brings one function forward.
///
/// # Errors
/// The API server failed in a way that may not recur, or other writers kept changing the object.
pub async fn reconcile(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    epoch: u64,
) -> Result<Outcome, ReconcileError> {
    let context = ctx.contexts.of(key);
    let mut context = context.lock().await;
    let mut newest = observe::newest(ctx, key, &mut context);
    for _ in 0..CONFLICTS {
        let Some(object) = &newest else {
            return Ok(forget(ctx, key, &mut context));
        };
        let target = Target {
            ctx,
            key,
            object,
            epoch,
        };
        if let Some(outcome) = pass(target, &mut context).await? {
            return Ok(outcome);
        }
        newest = observe::reread(ctx, key, &mut context).await?;
    }
    Err(ReconcileError::Contended)
}

/// One pass. Returns `None` if another writer changed the object meanwhile.
#[tracing::instrument(
    name = "reconcile", level = "debug", skip_all,
    fields(function = %target.key, generation = target.object.metadata.generation, revision = Empty)
)]
async fn pass(
    target: Target<'_>,
    context: &mut FunctionContext,
) -> Result<Option<Outcome>, ReconcileError> {
    let observed = observe::observe(target, context);
    let validated = validate(&observed.snapshot, &context.resolution);
    let ensured = ensure(target, &observed, validated, context).await?;
    if let Some(revision) = &ensured.desired.revision {
        Span::current().record("revision", revision.name.as_str());
    }
    let function = describe_function(&observed, &ensured.desired);
    let measured = measure(target, &observed, &function, context);
    let at = Timestamp::now();
    let decision = decide(at, &function, &observed.state, &measured.input);
    let mut made = Made {
        observed,
        ensured,
        function,
        measured,
        decision,
        at,
    };
    // A fall of the candidate's weight, such as a rollback, is hinted to the nodes ahead of the write. It is safe even if the
    // write fails, because a hint never raises the weight.
    rollback_hint::hint(target, &made);
    let Some(persisted) = persist(target, &made, context).await? else {
        return Ok(None);
    };
    made.measured.slot.settle(&made.decision.state);
    apply(target, &made, &persisted, context).await?;
    report(target, &made, &persisted, context);
    made.outcome(context).map(Some)
}
