//! Step 5 of a reconcile: one status patch, with the version it was decided on as its precondition.

use std::sync::Arc;

use crds::{EdgeFunction, FIELD_MANAGER};
use kube::Api;
use kube::api::{Patch, PatchParams};
use operator_core::status_rate::NodeDrift;

use super::context::{FunctionContext, RetryBackoff, Present};
use super::status::{self, Difference, Parts};
use super::status_writes::Admitted;
use super::{ReconcileError, Reconciler, api};
use crate::watch::ObjectKey;

/// What became of a decision.
pub(super) enum Persisted {
    /// Nothing had to be written.
    Unchanged,
    /// It is the truth now.
    Written(Arc<EdgeFunction>),
    /// Somebody else wrote first.
    Conflict,
}

impl Reconciler {
    /// Writes the status if it says something new that is worth a write.
    pub(super) async fn persist(
        &self,
        key: &ObjectKey,
        parts: &Parts<'_>,
        asked: bool,
        memory: &mut FunctionContext,
    ) -> Result<Persisted, ReconcileError> {
        let old = parts.object.status.clone().unwrap_or_default();
        let new = status::build(parts)?;
        let difference = status::difference(&old, &new, &parts.state.nodes);
        let drifted = self.may_write_nodes(difference, asked, memory);
        let keep = |record: Option<String>| {
            Some(Present {
                state: parts.state.clone(),
                record,
            })
        };
        if !asked && !drifted && difference != Difference::Plain {
            memory.present = keep(old.rollout.and_then(|rollout| rollout.working_record));
            return Ok(Persisted::Unchanged);
        }
        let record = new
            .rollout
            .as_ref()
            .and_then(|rollout| rollout.working_record.clone());
        let Some(change) =
            status::merge_patch(&serde_json::to_value(&old)?, &serde_json::to_value(&new)?)
        else {
            memory.present = keep(record);
            return Ok(Persisted::Unchanged);
        };
        let version = parts.object.metadata.resource_version.as_ref();
        if let Some(until) = RetryBackoff::lasts(memory.patience.as_ref(), version) {
            forget_unwritten(memory);
            return Err(ReconcileError::Waits(until));
        }
        let patch = serde_json::json!({
            "metadata": { "resourceVersion": parts.object.metadata.resource_version, "uid": parts.object.metadata.uid },
            "status": change,
        });
        let functions: Api<EdgeFunction> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let answer =
            api::call(functions.patch_status(&key.name, &params, &Patch::Merge(&patch))).await;
        // Whatever came of it, what was remembered no longer continues what is persisted.
        memory.present = None;
        match answer {
            Ok(written) => {
                self.metrics.status_written("written");
                let written = Arc::new(written);
                memory.written = Some(Arc::clone(&written));
                memory.present = keep(record);
                memory.patience = None;
                Ok(Persisted::Written(written))
            }
            Err(error) if error.is_conflict() || error.is_gone() => {
                self.metrics.status_written("conflict");
                Ok(Persisted::Conflict)
            }
            Err(error) => {
                self.metrics.status_written("failed");
                forget_unwritten(memory);
                memory.patience = Some(RetryBackoff::after(&error, memory.failures, version));
                Err(error.into())
            }
        }
    }

    /// Decides whether what nodes did to a function at rest is written now. If not, notes when it may be.
    fn may_write_nodes(&self, difference: Difference, asked: bool, memory: &mut FunctionContext) -> bool {
        memory.nodes_due = None;
        let drift = match difference {
            // This write carries what the nodes did.
            Difference::Plain => {
                self.status_writes.carried(&mut memory.limit);
                return false;
            }
            Difference::Nodes(_) if asked => {
                self.status_writes.carried(&mut memory.limit);
                return false;
            }
            Difference::Nodes(drift) => drift,
            Difference::None => NodeDrift::None,
        };
        match self.status_writes.admit(&mut memory.limit, drift) {
            Admitted::Idle => false,
            Admitted::Write => true,
            Admitted::Wait(until) => {
                memory.nodes_due = Some(until);
                false
            }
        }
    }

    /// The object as the API server has it now.
    pub(super) async fn read(
        &self,
        key: &ObjectKey,
    ) -> Result<Option<EdgeFunction>, api::CallError> {
        let functions: Api<EdgeFunction> = Api::namespaced(self.client.clone(), &key.namespace);
        api::call(functions.get_opt(&key.name)).await
    }
}

/// The next decision starts from what is persisted, with the looks since then taken again.
pub(super) fn forget_unwritten(memory: &mut FunctionContext) {
    memory.present = None;
    memory.judge = None;
}
