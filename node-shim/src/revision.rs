//! A revision that can run: its code, limits, configuration, concurrency limit and counters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use node_shim_core::egress::AllowList;
use node_shim_core::instance_reuse::{ReuseGuard, ReusePolicy};
use node_shim_core::table::{FunctionKey, Limits, RevisionName};
use parking_lot::Mutex;

use crate::clock::unix_ms;
use crate::code_cache::CompiledComponent;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::config_value::ConfigValue;
use crate::counters::{CounterTable, RevisionCounters};
use crate::egress::FunctionAuthorities;
use crate::guest_log::FunctionLog;
use crate::key_value::StoreSpec;

/// The parts of a revision's definition that are needed while a request runs.
#[derive(Clone, Debug)]
pub struct RevisionSpec {
    /// Function of the revision.
    pub function: FunctionKey,
    /// Name of the revision.
    pub name: RevisionName,
    /// Resource limits.
    pub limits: Limits,
    /// Environment variables of the guest.
    pub env: Vec<(String, ConfigValue)>,
    /// Entries of `wasi:config/store`.
    pub config: Vec<(String, ConfigValue)>,
    /// Key-value stores that the guest opens by label.
    pub key_value: Vec<StoreSpec>,
    /// Outbound requests that the guest may send.
    pub egress: AllowList,
    /// Certificate authorities that outbound requests trust in addition to those of the node.
    pub authorities: Option<Arc<FunctionAuthorities>>,
    /// Number of requests that one instance answers.
    pub reuse: ReusePolicy,
}

/// Maximum number of concurrent requests of a node that name the same revision: a user tries it.
const PREVIEWS: u32 = 1;

/// A revision, shared by the routing tables that contain it and the requests that run it.
pub struct Revision {
    pub(crate) spec: RevisionSpec,
    pub(crate) code: Arc<CompiledComponent>,
    pub(crate) concurrency: Arc<ConcurrencyLimit>,
    /// Limits requests that name the revision. They have permits of their own, because those of a candidate are few and
    /// their lack is evidence against it.
    pub(crate) previews: Arc<ConcurrencyLimit>,
    pub(crate) counters: Arc<RevisionCounters>,
    /// Log of the function, set by the first request.
    pub(crate) log: OnceLock<Arc<FunctionLog>>,
    reuse: Mutex<ReuseState>,
    /// Whether its guests compute for longer than an event loop can wait, as far as the latest one shows.
    computes: AtomicBool,
}

/// Experience with the reuse of instances.
#[derive(Default)]
struct ReuseState {
    guard: ReuseGuard,
    /// Time at which reuse ended, in ms since the Unix epoch.
    ended: Option<u64>,
}

/// Why a component cannot run within its limits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// The memories and tables with which an instance starts exceed the limit.
    #[error(
        "the component starts with {needs} bytes of memories and tables, but limits.memory is {limit} bytes"
    )]
    Memory {
        /// Initial size of memories and tables in bytes.
        needs: u64,
        /// Limit in bytes.
        limit: u64,
    },
}

impl Revision {
    /// Creates a revision. Its metrics exist at 0 from then on.
    ///
    /// # Errors
    /// Returns an error when the component cannot run within its limits.
    pub fn new(
        spec: RevisionSpec,
        code: impl Into<Arc<CompiledComponent>>,
        counters: &CounterTable,
    ) -> Result<Arc<Self>, RevisionError> {
        let (code, limit) = (code.into(), spec.limits.memory);
        if let Some(needs) = code.initial_memory.filter(|needs| *needs > limit) {
            return Err(RevisionError::Memory { needs, limit });
        }
        let counters = counters.revision(&spec.function, &spec.name);
        let permits = |limit| ConcurrencyLimit::new(limit, counters.clone());
        Ok(Arc::new(Self {
            concurrency: permits(spec.limits.concurrency),
            previews: permits(PREVIEWS),
            spec,
            code,
            counters,
            log: OnceLock::new(),
            reuse: Mutex::default(),
            computes: AtomicBool::new(false),
        }))
    }

    /// Returns the function of the revision.
    pub fn function(&self) -> &FunctionKey {
        &self.spec.function
    }

    /// Returns whether the latest guest computed for longer than an event loop can wait.
    pub(crate) fn computes(&self) -> bool {
        self.computes.load(Ordering::Relaxed)
    }

    /// Records whether a guest computed for longer than an event loop can wait.
    pub(crate) fn set_computes(&self, computes: bool) {
        // most requests change nothing
        if self.computes() != computes {
            self.computes.store(computes, Ordering::Relaxed);
        }
    }

    /// Returns whether an instance may answer more than one request.
    pub(crate) fn reuses_instances(&self) -> bool {
        self.spec.reuse.is_enabled() && self.reuse.lock().ended.is_none()
    }

    /// Counts a request on an instance that had answered others. `ran_again` is whether it failed and ran again on a fresh
    /// one. Returns true when too many did, so that this was the last one.
    pub(crate) fn count_reuse(&self, ran_again: bool) -> bool {
        let mut state = self.reuse.lock();
        let ends = state.guard.record(ran_again);
        if ends {
            state.ended = Some(unix_ms());
            tracing::warn!(
                function = %self.spec.function,
                revision = %self.spec.name,
                "requests keep failing on used instances; every request gets a fresh one from now on"
            );
        }
        ends
    }

    /// Returns when the reuse of instances ended because requests failed, in ms since the Unix epoch.
    pub(crate) fn reuse_ended(&self) -> Option<u64> {
        let enabled = self.spec.reuse.is_enabled();
        enabled.then(|| self.reuse.lock().ended).flatten()
    }

    /// Returns the name of the revision.
    pub fn name(&self) -> &RevisionName {
        &self.spec.name
    }
}

impl std::fmt::Debug for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Revision({} {})", self.spec.function, self.spec.name)
    }
}
