//! A reconcile is a sentence: observe, wish, measure, decide, persist, apply, report.
//!
//! ```text
//! 1 observe   IO    caches; tag → digest once per change of the image string        code.rs
//! 2 validate  pure  EdgeFunction → Function, or what is wrong with it               wish.rs, ../validate
//! 3 measure   IO    exactly what the core says is due                               measure.rs
//! 4 decide    pure  operator_core::rollout::decide
//! 5 persist   IO    status patch with a resourceVersion; 409: read again, decide again   persist.rs
//! 6 apply     IO    owned objects and node tables are a function of what was persisted   apply.rs, project.rs
//! 7 report    IO    Events and metrics for what was persisted                       report.rs, gauges.rs
//! ```
//!
//! Nothing that only lives in memory is ever needed to go on; see `memory.rs`.

mod abandoned;
pub mod api;
mod apply;
mod claims;
mod image;
mod metrics;
mod input;
mod measure;
mod context;
mod nodes;
mod persist;
pub mod placement;
pub mod project;
mod projector;
mod report;
mod secret_values;
mod status;
mod status_writes;
mod host_claim_gc;
mod unreadable;
mod desired;
mod worker;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use kube::Client;
use operator_core::rollout::{self as core, Decision, Evidence, RolloutState};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use api::CallError;
pub(crate) use claims::overlaps as hosts_overlap;
pub use projector::Projector;
pub use report::Reporter;
pub use status_writes::StatusWrites;

use crate::metrics::Metrics;
use crate::node_api::{Fleet, FunctionKey};
use crate::persist::last_promoted;
use crate::queue::{Class, Queue};
use crate::resolve::Resolver;
use crate::watch::{Caches, ObjectKey, Secrets, Term};
use input::{function, named, present};
use context::{FunctionContext, RetryBackoff, Resolution};
use nodes::NodeReports;
use desired::DesiredRevision;

/// How often a decision is made again after somebody else wrote in between.
const CONFLICTS: u32 = 5;

/// What a reconcile needs to know of the installation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `namespace:name` of the operator's service account, for the line that grants Secrets.
    pub service_account: String,
    /// Nodes return to stable after this long without contact.
    pub unsupervised_ttl: Duration,
    /// Rollouts that may carry traffic at one time.
    pub max_rollouts: usize,
    /// How often Prometheus scrapes.
    pub scrape_interval: Duration,
}

/// Everything a reconcile works with.
pub struct Reconciler {
    /// The API server.
    pub client: Client,
    /// What it has.
    pub caches: Caches,
    /// Secrets, where granted.
    pub secrets: Secrets,
    /// Registries.
    pub resolver: Arc<Resolver>,
    /// What nodes say.
    pub fleet: Fleet,
    /// What nodes are told.
    pub projector: Projector,
    /// Where counters come from.
    pub source: SampleSource,
    /// Series.
    pub metrics: Metrics,
    /// Who is next.
    pub queue: Queue,
    /// Events.
    pub reporter: Reporter,
    /// Keys the hashes of referenced content; none until the own Secret was read.
    pub hash_key: Arc<ArcSwapOption<Zeroizing<Vec<u8>>>>,
    /// The installation.
    pub settings: Settings,
    /// Per function.
    pub memories: ContextStore,
    /// Rollouts that hold one of the places.
    pub slots: Mutex<BTreeSet<ObjectKey>>,
    /// Rate of the status writes that report what nodes do to functions at rest.
    pub status_writes: StatusWrites,
}

pub use measure::SampleSource;

/// What is remembered between reconciles, per function.
#[derive(Debug, Default)]
pub struct ContextStore(Mutex<HashMap<ObjectKey, Arc<AsyncMutex<FunctionContext>>>>);

/// When to look again, and how urgent that is.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Class for the queue.
    pub class: Class,
    /// At the latest.
    pub wake: Option<Instant>,
}

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The state has no text form, which is a fault of ours.
    #[error("the state cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    /// A write has to wait for its time.
    #[error("the last write failed; the next one is not yet due")]
    Waits(Instant),
    /// Somebody else kept writing.
    #[error("the status was written by somebody else {CONFLICTS} times in a row")]
    Contended,
}

impl ContextStore {
    fn of(&self, key: &ObjectKey) -> Arc<AsyncMutex<FunctionContext>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(key.clone()).or_default())
    }

    fn forget(&self, key: &ObjectKey) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

impl Reconciler {
    /// Brings one function forward.
    ///
    /// # Errors
    /// The API server failed in a way that another try may not.
    pub async fn reconcile(
        self: &Arc<Self>,
        key: &ObjectKey,
        epoch: u64,
    ) -> Result<Outcome, ReconcileError> {
        let memory = self.memories.of(key);
        let mut memory = memory.lock().await;
        let Some(mut object) = self.observe(key, &mut memory) else {
            self.forget(key, &mut memory);
            return Ok(Outcome {
                class: Class::Normal,
                wake: None,
            });
        };
        for _ in 0..CONFLICTS {
            match self.once(key, &object, epoch, &mut memory).await? {
                Some(outcome) => return Ok(outcome),
                // Written by somebody else since: what was remembered is as stale as the object.
                None => {
                    memory.present = None;
                    memory.judge = None;
                    let Some(fresh) = self.read(key).await? else {
                        self.forget(key, &mut memory);
                        return Ok(Outcome {
                            class: Class::Normal,
                            wake: None,
                        });
                    };
                    object = Arc::new(fresh);
                    memory.written = Some(Arc::clone(&object));
                }
            }
        }
        Err(ReconcileError::Contended)
    }

    /// The newest version of the object that is known.
    fn observe(&self, key: &ObjectKey, memory: &mut FunctionContext) -> Option<Arc<EdgeFunction>> {
        let cached = self.caches.functions.get(key)?;
        if memory
            .written
            .as_ref()
            .is_some_and(|written| written.metadata.uid != cached.metadata.uid)
        {
            self.status_writes.cancel(&mut memory.limit);
            *memory = FunctionContext::default();
        }
        let version = |object: &EdgeFunction| crate::watch::version(object);
        match memory.written.take() {
            Some(written) if version(&written) > version(&cached) => {
                memory.written = Some(Arc::clone(&written));
                Some(written)
            }
            _ => Some(cached),
        }
    }

    /// One pass of the sentence; `None` when the object was written by somebody else meanwhile.
    async fn once(
        self: &Arc<Self>,
        key: &ObjectKey,
        object: &Arc<EdgeFunction>,
        epoch: u64,
        memory: &mut FunctionContext,
    ) -> Result<Option<Outcome>, ReconcileError> {
        let now = Timestamp::now();
        // 1 observe, 2 validate
        let revisions = self.revisions(key);
        let state = present(key, object, memory);
        let wished = self.wished(key, object, &revisions, memory, now).await;
        let (wish, failed) = match wished {
            Ok(wish) => (wish, None),
            // A failure to record the desired revision must not stop the evaluation of a running candidate.
            Err(error) if state.state.is_exposed() => (DesiredRevision::unknown(&error), Some(error)),
            Err(error) => return Err(error),
        };
        let abandoned = match wish.revision {
            Some(_) => None,
            None => self.abandoned(key, object, &revisions, &state),
        };
        let function = function(object, &wish, &state, abandoned);
        // 3 measure
        let due = core::due(now, &function, &state);
        let seen_nodes = self
            .fleet
            .function_nodes(&FunctionKey::new(&key.namespace, &key.name));
        let placed = self.projector.placed(key, object);
        let seen = NodeReports::new(&seen_nodes, &placed);
        let exposed = seen.following(&state);
        self.follow_rollback(&seen, &mut memory.rollback);
        let (measured, traffic) = self
            .measure(
                key,
                &state,
                &due,
                &exposed,
                &mut memory.judge,
                &mut memory.before,
                now,
            )
            .await;
        // 4 decide
        let evidence = Evidence {
            epoch,
            nodes: seen.view(&state, &named(&state, &function)),
            measured,
            slot: self.may_take_slot(key),
            traffic,
            promoted: last_promoted(revisions.iter().map(AsRef::as_ref)),
            unsupervised_ttl: self.settings.unsupervised_ttl,
        };
        let decided = Timestamp::now();
        let decision = core::decide(decided, &function, &state, &evidence);
        // Ahead of the write, because it can only lower a share.
        if let Some(share) = &decision.hint {
            self.hint(key, object, share, decided);
        }
        // 5 persist
        let parts = status::Parts {
            object,
            function: &function,
            wish: &wish,
            state: &decision.state,
            exceptions: seen.exceptions(),
            unknown: self.unknown_values(key, &decision.state, &seen),
            epoch,
            now: decided,
        };
        // Until the last step is done: of a write whose answer was lost nobody knows what is still to be applied and told.
        let first = !std::mem::replace(&mut memory.reported, false);
        let written = match self.persist(key, &parts, decision.persist, memory).await? {
            persist::Persisted::Conflict => {
                memory.reported = !first;
                return Ok(None);
            }
            persist::Persisted::Unchanged => None,
            persist::Persisted::Written(written) => Some(written),
        };
        // 6 apply
        if let Some(written) = &written {
            self.projector.project(key, written);
        }
        if first || (written.is_some() && !decision.transitions.is_empty()) {
            let keep = wish
                .spec
                .as_ref()
                .map_or(usize::MAX, |spec| spec.history_limit);
            let view = seen.view(&decision.state, &named(&decision.state, &function));
            self.apply(key, &decision.state, &view, &revisions, keep, decided)
                .await?;
        }
        // 7 report
        if written.is_some() {
            metrics::note_rollback(&state, &decision.state, decided, &mut memory.rollback);
        }
        self.report(
            key,
            object,
            written.as_deref(),
            &state,
            &decision,
            first,
            decided,
        );
        memory.reported = true;
        match failed {
            Some(error) => Err(error),
            None => Ok(Some(self.outcome(&wish, &decision, memory))),
        }
    }

    /// What the object asks for, with its revision recorded, unless that failed a moment ago.
    async fn wished(
        self: &Arc<Self>,
        key: &ObjectKey,
        object: &EdgeFunction,
        revisions: &[Arc<EdgeRevision>],
        memory: &mut FunctionContext,
        now: Timestamp,
    ) -> Result<DesiredRevision, ReconcileError> {
        let version = object.metadata.resource_version.as_ref();
        if let Some(until) = RetryBackoff::lasts(memory.wish_patience.as_ref(), version) {
            return Err(ReconcileError::Waits(until));
        }
        let recorded = self.recorded(key, object, revisions, memory, now).await;
        let failed = recorded.as_ref().err();
        memory.wish_patience = failed.map(|error| RetryBackoff::after(error, memory.failures, version));
        Ok(recorded?)
    }

    async fn recorded(
        self: &Arc<Self>,
        key: &ObjectKey,
        object: &EdgeFunction,
        revisions: &[Arc<EdgeRevision>],
        memory: &mut FunctionContext,
        now: Timestamp,
    ) -> Result<DesiredRevision, CallError> {
        let wish = self.wish(key, object, revisions, memory, now).await?;
        if let Some(revision) = &wish.create
            && self.create_revision(key, revision).await?
        {
            self.tell_created(object, revision, now);
        }
        Ok(wish)
    }

    /// Everything that was persisted is told once; after a start what the last leader persisted is told again,
    /// which is the same Events by name.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call; a struct would be read once"
    )]
    fn report(
        &self,
        key: &ObjectKey,
        object: &EdgeFunction,
        written: Option<&EdgeFunction>,
        before: &RolloutState,
        decision: &Decision,
        first: bool,
        decided: Timestamp,
    ) {
        if first {
            for transition in &before.events {
                self.reporter.transition(object, transition);
            }
        }
        if let Some(written) = written {
            for transition in &decision.transitions {
                self.reporter.transition(written, transition);
                tracing::info!(function = %key, transition = ?transition.kind, "{}", transition.message);
            }
            self.tell_conditions(object, written, decided);
            self.count_transitions(before, &decision.state, decided);
        }
        self.gauge(key, &decision.state);
        self.keep_slot(key, &decision.state);
    }

    fn outcome(&self, wish: &DesiredRevision, decision: &Decision, memory: &FunctionContext) -> Outcome {
        let exposed = decision.state.state.is_exposed();
        let instant = Instant::now();
        let wall = Timestamp::now();
        let until = |at: Timestamp| {
            instant + Duration::try_from(at.duration_since(wall)).unwrap_or_default()
        };
        let wake = [
            decision.wake_at.map(until),
            wish.retry.map(|wait| instant + wait),
            memory.nodes_due,
        ]
        .into_iter()
        .flatten()
        .min();
        Outcome {
            class: if exposed {
                Class::Urgent
            } else {
                Class::Normal
            },
            wake,
        }
    }

    fn revisions(&self, key: &ObjectKey) -> Vec<Arc<EdgeRevision>> {
        self.caches.revisions.find(&Term::Function(key.clone()))
    }

    /// A resolve ended: remember what came of it, unless something else was asked for meanwhile.
    async fn finish_resolve(&self, key: &ObjectKey, run: u64, resolution: Resolution) {
        let memory = self.memories.of(key);
        let mut memory = memory.lock().await;
        if matches!(&memory.resolution, Resolution::Running { run: current, .. } if *current == run)
        {
            memory.resolution = resolution;
            self.queue.push(key);
        }
    }

    fn forget(&self, key: &ObjectKey, memory: &mut FunctionContext) {
        self.status_writes.cancel(&mut memory.limit);
        self.memories.forget(key);
        self.metrics.set_function(key, &[]);
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }

    fn may_take_slot(&self, key: &ObjectKey) -> bool {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken at once, so that two decisions at a time cannot take the last one twice.
        slots.contains(key)
            || (slots.len() < self.settings.max_rollouts && slots.insert(key.clone()))
    }

    fn keep_slot(&self, key: &ObjectKey, state: &RolloutState) {
        if !core::holds_slot(state) {
            self.slots
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(key);
        }
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod sentence_tests;
