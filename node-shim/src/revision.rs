//! A revision that can run: native code, limits, configuration, permits, counters.

use std::sync::Arc;

use node_shim_core::table::{FunctionKey, Limits, RevisionName};

use crate::code_cache::CompiledComponent;
use crate::concurrency_limit::ConcurrencyLimit;
use crate::config_value::ConfigValue;
use crate::counters::{CounterTable, RevisionCounters};
use crate::guest_log::token_bucket::TokenBucket;

/// Everything of a definition that shows while a request runs.
#[derive(Clone, Debug)]
pub struct RevisionSpec {
    /// The function that owns the revision.
    pub function: FunctionKey,
    /// Name of the revision.
    pub name: RevisionName,
    /// Limits of every request and instance.
    pub limits: Limits,
    /// Environment.
    pub env: Vec<(String, ConfigValue)>,
    /// `wasi:config/store`.
    pub config: Vec<(String, ConfigValue)>,
}

/// Shared by every table that names it and by every request that runs it.
pub struct Revision {
    pub(crate) spec: RevisionSpec,
    pub(crate) code: Arc<CompiledComponent>,
    pub(crate) concurrency: Arc<ConcurrencyLimit>,
    pub(crate) counters: Arc<RevisionCounters>,
    pub(crate) log: TokenBucket,
}

/// Why a component cannot run under its limits, told before there is any traffic.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// The memory that the component declares is larger than its limit.
    #[error("the component starts with {needs} bytes of memory, limits.memory is {limit}")]
    Memory {
        /// Linear memory of a fresh instance, in bytes.
        needs: u64,
        /// `limits.memory`, in bytes.
        limit: u64,
    },
}

impl Revision {
    /// Its series exist at 0 from here on.
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
            log: TokenBucket::default(),
        }))
    }

    /// The function that owns the revision.
    pub fn function(&self) -> &FunctionKey {
        &self.spec.function
    }

    /// Name of the revision.
    pub fn name(&self) -> &RevisionName {
        &self.spec.name
    }
}

impl std::fmt::Debug for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Revision({} {})", self.spec.function, self.spec.name)
    }
}
