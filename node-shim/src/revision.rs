//! A revision that can run: native code, limits, configuration, permits, counters.

use std::sync::Arc;

use node_shim_core::table::{FunctionKey, Limits, RevisionName};

use crate::admit::Permits;
use crate::counters::{Counters, RevisionCounters};
use crate::guest_log::bucket::Bucket;
use crate::residency::Code;
use crate::value::Value;

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
    pub env: Vec<(String, Value)>,
    /// `wasi:config/store`.
    pub config: Vec<(String, Value)>,
}

/// Shared by every table that names it and by every request that runs it.
pub struct Revision {
    pub(crate) spec: RevisionSpec,
    pub(crate) code: Arc<Code>,
    pub(crate) permits: Arc<Permits>,
    pub(crate) counters: Arc<RevisionCounters>,
    pub(crate) log: Bucket,
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
        code: impl Into<Arc<Code>>,
        counters: &Counters,
    ) -> Result<Arc<Self>, RevisionError> {
        let (code, limit) = (code.into(), spec.limits.memory);
        if let Some(needs) = code.initial_memory.filter(|needs| *needs > limit) {
            return Err(RevisionError::Memory { needs, limit });
        }
        let counters = counters.revision(&spec.function, &spec.name);
        let permits = Permits::new(spec.limits.concurrency, counters.clone());
        Ok(Arc::new(Self {
            spec,
            code,
            permits,
            counters,
            log: Bucket::default(),
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
