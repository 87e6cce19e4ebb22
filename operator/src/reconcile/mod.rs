//! A reconcile is a sentence: observe, validate, ensure, measure, decide, persist, apply, report.
//!
//! ```text
//! 1 observe   IO    the newest object, and a snapshot of everything that its spec refers to     observe.rs
//! 2 validate  pure  snapshot → desired revision, or what is wrong with the spec                 desired.rs, image.rs, ../validate
//! 3 ensure    IO    HostClaims and the EdgeRevision exist; a registry is asked in a task        ensure.rs, claims.rs, resolution.rs
//! 4 measure   IO    exactly the samples that the decision needs                                 measure.rs
//! 5 decide    pure  operator_core::rollout::decide
//! 6 persist   IO    status patch with a resourceVersion; 409: read again, decide again          persist.rs, status.rs
//! 7 apply     IO    node tables and revisions are a function of what was persisted              apply.rs, revision_status.rs, table_projection/
//! 8 report    IO    Events and metrics for what was persisted                                   report.rs, events.rs, metrics.rs
//! ```
//!
//! A fall of the candidate's weight is hinted to the nodes between 5 and 6, ahead of the write (rollback_hint.rs).
//!
//! `controller.rs` is the sentence, `stages.rs` what its steps hand on to each other. All of them are functions over one
//! [`Context`], which the process has once, and the `FunctionContext` of the function. Nothing that only lives in memory
//! is ever needed to go on; see `context.rs`.

mod abandoned;
pub mod api;
mod apply;
mod certificates;
mod claims;
pub(crate) mod conditions;
mod context;
mod controller;
mod core_input;
mod desired;
mod ensure;
mod events;
mod host_claim_gc;
mod image;
mod measure;
mod metrics;
mod moving;
mod nodes;
mod observe;
mod persist;
pub mod pick_nodes;
mod remembered_secrets;
mod report;
mod resolution;
mod revision_status;
mod rollback_hint;
mod rollout_slot;
mod stages;
mod status;
mod status_rate_limit;
pub mod table_projection;
mod unreadable;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kube::Client;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use api::CallError;
pub(crate) use claims::{contested as contested_hosts, overlaps as hosts_overlap};
pub use controller::reconcile;
pub use report::Reporter;
pub(crate) use status::merge_patch;
pub use status_rate_limit::StatusRateLimit;
pub use table_projection::Projector;

use crate::failure_log::FailureLog;
use crate::measure::PrometheusQueries;
use crate::metrics::Metrics;
use crate::node_api::{Fleet, FunctionKey};
use crate::queue::{Class, Queue};
use crate::resolve::Resolver;
use crate::watch::{Caches, ConfigMaps, ObjectKey, Secrets};
use context::FunctionContext;

/// What a reconcile needs to know about the installation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `namespace:name` of the operator's service account, for the line that grants Secrets.
    pub service_account: String,
    /// Nodes return to stable after this long without contact.
    pub unsupervised_ttl: Duration,
    /// Number of slots for rollouts.
    pub max_rollouts: usize,
    /// How often Prometheus scrapes.
    pub scrape_interval: Duration,
}

/// Everything that a reconcile works with. The process has one.
pub struct Context {
    /// Client for the API server.
    pub client: Client,
    /// Caches of the objects that the operator watches.
    pub caches: Caches,
    /// Secrets of the namespaces that grant them.
    pub secrets: Secrets,
    /// ConfigMaps that functions refer to.
    pub config_maps: ConfigMaps,
    /// Client for registries.
    pub resolver: Arc<Resolver>,
    /// Reports of the nodes.
    pub fleet: Fleet,
    /// Writer of the tables that nodes receive.
    pub projector: Projector,
    /// Source of the counters of requests.
    pub source: PrometheusQueries,
    /// Metrics of the operator.
    pub metrics: Metrics,
    /// Queue of the functions to reconcile.
    pub queue: Queue,
    /// Writer of Events.
    pub reporter: Reporter,
    /// Key of the hashes of referenced content. `None` until the operator has read its own Secret.
    pub hash_key: Arc<ArcSwapOption<Zeroizing<Vec<u8>>>>,
    /// Settings of this installation.
    pub settings: Settings,
    /// What is remembered of each function.
    pub contexts: ContextStore,
    /// Rollouts that hold one of the places.
    pub slots: Mutex<BTreeSet<ObjectKey>>,
    /// Rate of the status writes that report what nodes do to functions at rest.
    pub status_rate_limit: StatusRateLimit,
    /// Which failures of reconciles are logged.
    pub(crate) failure_log: Mutex<FailureLog>,
}

/// What is remembered between reconciles, per function.
#[derive(Debug, Default)]
pub struct ContextStore(Mutex<HashMap<ObjectKey, Arc<AsyncMutex<FunctionContext>>>>);

/// When to reconcile again, and how urgent that is.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Class for the queue.
    pub class: Class,
    /// Latest time of the next reconcile. `None` waits for a change.
    pub wake: Option<Instant>,
}

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A call of the API server failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The state cannot be encoded, which is a bug.
    #[error("the state cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    /// A write has to wait for its time.
    #[error("the last write failed; the next one is not yet due")]
    Waits(Instant),
    /// Other writers kept changing the object.
    #[error(
        "another writer changed the object {} times in a row",
        controller::CONFLICTS
    )]
    Contended,
}

/// Does everything that only the leader does, under `epoch`. It never returns.
pub async fn run(ctx: Arc<Context>, epoch: u64) {
    tokio::join!(
        worker::work(Arc::clone(&ctx), epoch),
        host_claim_gc::sweep_claims(Arc::clone(&ctx)),
        unreadable::report_unreadable(Arc::clone(&ctx)),
        metrics::count_rollouts(&ctx),
    );
}

impl ContextStore {
    fn of(&self, key: &ObjectKey) -> Arc<AsyncMutex<FunctionContext>> {
        let mut all = self.0.lock();
        Arc::clone(all.entry(key.clone()).or_default())
    }

    fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

/// Drops everything that belongs to a function that does not exist.
fn forget(ctx: &Context, key: &ObjectKey, context: &mut FunctionContext) -> Outcome {
    context.cancel_writes(&ctx.status_rate_limit);
    ctx.contexts.forget(key);
    ctx.source
        .forget(&FunctionKey::new(&key.namespace, &key.name));
    ctx.metrics.set_function(key, &[]);
    slots(ctx).remove(key);
    Outcome {
        class: Class::Normal,
        wake: None,
    }
}

fn slots(ctx: &Context) -> MutexGuard<'_, BTreeSet<ObjectKey>> {
    ctx.slots.lock()
}

#[cfg(test)]
mod tests;
