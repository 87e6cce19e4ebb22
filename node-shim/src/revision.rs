//! A revision that can run: its code, limits, configuration, concurrency limit and counters.

use std::sync::{Arc, OnceLock};

use node_shim_core::egress::AllowList;
use node_shim_core::table::{FunctionKey, Limits, RevisionName};

use crate::code_cache::CompiledComponent;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::config_value::ConfigValue;
use crate::counters::{CounterTable, RevisionCounters};
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
}

/// A revision, shared by the routing tables that contain it and the requests that run it.
pub struct Revision {
    pub(crate) spec: RevisionSpec,
    pub(crate) code: Arc<CompiledComponent>,
    pub(crate) concurrency: Arc<ConcurrencyLimit>,
    pub(crate) counters: Arc<RevisionCounters>,
    /// Log of the function, set by the first request.
    pub(crate) log: OnceLock<Arc<FunctionLog>>,
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
        let permits = ConcurrencyLimit::new(spec.limits.concurrency, counters.clone());
        Ok(Arc::new(Self {
            spec,
            code,
            concurrency: permits,
            counters,
            log: OnceLock::new(),
        }))
    }

    /// Returns the function of the revision.
    pub fn function(&self) -> &FunctionKey {
        &self.spec.function
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
