//! The workers: take the next function, reconcile it in a task of its own, give it back.

use std::sync::Arc;
use std::time::Duration;

use crds::EdgeFunction;
use crds::conditions::{reasons, types};
use crds::function::Phase;
use crds::rollout::State;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use operator_core::rollout::EventType;
use tokio::time::Instant;

use super::conditions::{self, Report, condition};
use super::context::FunctionContext;
use super::report::NewEvent;
use super::{Context, Outcome, ReconcileError, api, reconcile};
use crate::backoff::Backoff;
use crate::queue::{Class, WorkItem};
use crate::watch::ObjectKey;

const WORKERS: usize = 8;
/// Workers that take only functions with a candidate in traffic, so that a rollback does not wait for other functions.
const RESERVED: usize = 2;
/// A function with a candidate in traffic is evaluated this often also while its status cannot be written.
const WATCH: Duration = Duration::from_secs(5);
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));

/// Decides under `epoch` until the future is dropped.
pub(super) async fn work(ctx: Arc<Context>, epoch: u64) {
    let workers = (0..WORKERS).map(|index| worker(&ctx, epoch, index < RESERVED));
    futures::future::join_all(workers).await;
}

async fn worker(ctx: &Arc<Context>, epoch: u64, urgent_only: bool) {
    loop {
        let item = ctx.queue.take(urgent_only).await;
        let class = if item.class == Class::Urgent {
            "urgent"
        } else {
            "normal"
        };
        ctx.metrics.waited(item.waiting, class, item.waited);
        let outcome = isolated(ctx, &item, epoch).await;
        ctx.queue.done(&item.key, outcome.class, outcome.wake);
    }
}

/// A panic ends this reconcile and no other.
async fn isolated(ctx: &Arc<Context>, item: &WorkItem, epoch: u64) -> Outcome {
    let started = Instant::now();
    let (shared, key) = (Arc::clone(ctx), item.key.clone());
    let task = Ended(tokio::spawn(async move {
        reconcile(&shared, &key, epoch).await
    }));
    let result = task.join().await;
    let label = match &result {
        Ok(Ok(_)) => "ok",
        Ok(Err(ReconcileError::Waits(_))) => "waits",
        Ok(Err(_)) => "error",
        Err(_) => "panic",
    };
    ctx.metrics
        .reconciled(label, started.elapsed().as_secs_f64());
    match result {
        Ok(Ok(outcome)) => {
            settle(ctx, &item.key).await;
            outcome
        }
        Ok(Err(error)) => fail(ctx, &item.key, &error).await,
        Err(_) => {
            tracing::error!(function = %item.key, "a reconcile panicked; the function is tried again later");
            ctx.metrics.reconcile_failed("panic");
            let failures = start_over(ctx, &item.key).await;
            stall(ctx, &item.key).await;
            let wait = backoff(failures);
            Outcome {
                class: Class::Normal,
                wake: Some(Instant::now() + wait),
            }
        }
    }
}

async fn settle(ctx: &Context, key: &ObjectKey) {
    ctx.failure_log.lock().succeeded();
    ctx.contexts.of(key).lock().await.failures = 0;
}

/// Records a failed reconcile, and decides when to try again.
async fn fail(ctx: &Context, key: &ObjectKey, error: &ReconcileError) -> Outcome {
    let now = Instant::now();
    let next = match error {
        ReconcileError::Waits(until) => *until,
        ReconcileError::Call(_) | ReconcileError::Encode(_) | ReconcileError::Contended => {
            ctx.metrics.reconcile_failed("call");
            let failures = count_failure(ctx, key).await;
            // while a part of the API server is away, many functions fail for the same reason
            let due = ctx.failure_log.lock().failed(error);
            if let Some(all) = due {
                tracing::warn!(function = %key, %error, failures, all, "a reconcile ended early");
            }
            let asked = match error {
                ReconcileError::Call(error) => error.retry_after(),
                _ => None,
            };
            now + backoff(failures).max(asked.unwrap_or_default())
        }
    };
    // A candidate with traffic is evaluated also while its status cannot be written: a hint to the nodes needs no write.
    let (class, wake) = if has_traffic(ctx, key) {
        (Class::Urgent, next.min(now + WATCH))
    } else {
        (Class::Normal, next)
    };
    Outcome {
        class,
        wake: Some(wake),
    }
}

/// Whether a candidate gets requests according to the cached status.
fn has_traffic(ctx: &Context, key: &ObjectKey) -> bool {
    let object = ctx.caches.functions.get(key);
    let status = object.as_ref().and_then(|object| object.status.as_ref());
    let rollout = status.and_then(|status| status.rollout.as_ref());
    rollout.is_some_and(|rollout| matches!(rollout.state, Some(State::Stepping | State::Baking)))
}

async fn count_failure(ctx: &Context, key: &ObjectKey) -> u32 {
    let context = ctx.contexts.of(key);
    let mut context = context.lock().await;
    context.failures = context.failures.saturating_add(1);
    context.failures
}

/// Drops the context of a function except for the number of its failures in a row, which it increments, so that a fault that
/// repeats is tried less and less often.
async fn start_over(ctx: &Context, key: &ObjectKey) -> u32 {
    let context = ctx.contexts.of(key);
    let mut context = context.lock().await;
    context.cancel_writes(&ctx.status_rate_limit);
    let failures = context.failures.saturating_add(1);
    *context = FunctionContext::default();
    context.failures = failures;
    failures
}

/// Message for users about a reconcile that fails because of a bug.
const FAILED: &str =
    "the operator failed on this object; it is tried again, and the operator's log has the details";

/// Reports on the object that its reconcile fails because of a bug.
pub(super) async fn stall(ctx: &Context, key: &ObjectKey) {
    let Some(object) = ctx.caches.functions.get(key) else {
        return;
    };
    let now = jiff::Timestamp::now();
    let status = object.status.as_ref();
    let old = status.map(|status| status.conditions.clone());
    let old = old.unwrap_or_default();
    let generation = object.metadata.generation;
    let is_reported = |stalled: &Condition| {
        stalled.reason == reasons::INTERNAL_ERROR && stalled.observed_generation == generation
    };
    if conditions::find(&old, types::STALLED).is_some_and(is_reported) {
        return;
    }
    let reported = [
        (types::READY, "False"),
        (types::RECONCILING, "False"),
        (types::STALLED, "True"),
    ];
    let mut conditions = old.clone();
    conditions.retain(|condition| reported.iter().all(|(kind, _)| condition.type_ != *kind));
    conditions.extend(reported.map(|(kind, status)| {
        let report = Report {
            status,
            reason: reasons::INTERNAL_ERROR,
            message: FAILED,
            generation,
        };
        condition(&old, kind, report, now)
    }));
    // a rollout keeps its phase
    let phase = match status.and_then(|status| status.phase) {
        None | Some(Phase::Pending | Phase::Ready) => Some(Phase::Failed),
        other => other,
    };
    let patch = serde_json::json!({
        "metadata": { "resourceVersion": object.metadata.resource_version },
        "status": { "conditions": conditions, "observedGeneration": generation, "phase": phase },
    });
    let functions: Api<EdgeFunction> = Api::namespaced(ctx.client.clone(), &key.namespace);
    if let Err(error) = api::patch_status(&functions, &key.name, &patch).await {
        tracing::warn!(function = %key, %error, "the failure could not be reported on the object");
        return;
    }
    let event = NewEvent {
        kind: EventType::Warning,
        reason: reasons::INTERNAL_ERROR,
        note: FAILED,
        dedup_key: &generation.unwrap_or(0).to_string(),
    };
    ctx.reporter.record_event(&*object, now, event);
}

/// Delay after the `failures`-th failure in a row: doubles from 1 s to 5 min.
pub(super) fn backoff(failures: u32) -> Duration {
    RETRY.delay(failures, fastrand::f64())
}

/// A task that is aborted when its handle is dropped: a worker that is dropped must not leave a decision running.
struct Ended<T>(tokio::task::JoinHandle<T>);

impl<T> Ended<T> {
    async fn join(mut self) -> Result<T, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
