//! State that the admin port reads: health, readiness, metrics and debug pages.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::admin_status::AdminStatus;
use super::state_writer::DiskUsage;
use super::{Options, metrics};
use crate::admin::{
    DebugPage, HEALTH_CHECK_TIMEOUT, MetricsPage, NotReady, ProcessStatus, Unhealthy,
};
use crate::code_cache::CodeCache;
use crate::data_plane::DataPlane;
use crate::disk::DiskHealth;
use crate::engine::Engine;
use crate::function_cache::FunctionCache;
use crate::metrics::Metrics;
use crate::native_cache::NativeCache;
use crate::node_api::NodeStatus;
use crate::routing_table::{RevisionSlot, ServedFunction};

/// Handles to the parts of a running node.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) engine: Engine,
    pub(super) code_cache: Arc<CodeCache>,
    pub(super) cache: Arc<NativeCache>,
    pub(super) functions: Arc<FunctionCache>,
    pub(super) plane: Arc<DataPlane>,
    pub(super) admin_status: Arc<AdminStatus>,
    pub(super) disk_usage: Arc<DiskUsage>,
    pub(super) health: Arc<DiskHealth>,
    pub(super) metrics: Metrics,
    pub(super) node_status: watch::Receiver<Arc<NodeStatus>>,
}

impl ProcessStatus for Shared {
    fn health(&self) -> BoxFuture<'_, Result<(), Unhealthy>> {
        async {
            let age = self.engine.since_tick();
            if age > HEALTH_CHECK_TIMEOUT {
                return Err(Unhealthy::EpochThread(age));
            }
            if !self.plane.responds_within(HEALTH_CHECK_TIMEOUT).await {
                return Err(Unhealthy::DataPlane);
            }
            Ok(())
        }
        .boxed()
    }

    fn readiness(&self) -> Result<(), NotReady> {
        self.admin_status.readiness()
    }

    fn metrics(&self, accept: &str) -> MetricsPage {
        self.metrics
            .page(&self.plane, metrics::families(self), accept)
    }

    fn debug(&self, page: DebugPage) -> Value {
        match page {
            DebugPage::Table => {
                let table = self.plane.table();
                let functions: Vec<Value> = table.functions().iter().map(function).collect();
                json!({ "version": table.version, "functions": functions })
            }
            DebugPage::Functions => self.functions(),
            DebugPage::Connections => json!({
                "open": self.plane.open_connections(),
                "byThread": self.plane.connections_by_thread(),
                "freeSlots": self.plane.free_instance_slots(),
                "slots": self.engine.instance_slots(),
            }),
            DebugPage::Cache => {
                let load = std::sync::atomic::Ordering::Relaxed;
                json!({
                    "blobBytes": self.disk_usage.blob_bytes.load(load),
                    "nativeBytes": self.disk_usage.native_bytes.load(load),
                    "functionBytes": self.disk_usage.function_bytes.load(load),
                    "loaded": self.code_cache.mapped(),
                    "loadedLimit": self.code_cache.cap(),
                    "trouble": self.health.trouble(),
                    "failedWrites": self.health.errors(),
                })
            }
            DebugPage::Config => json!({
                "node": self.options.api.node,
                "operators": self.options.api.endpoints,
                "stateDir": self.options.state_dir,
                "insecureRegistries": self.options.insecure_registries,
                "drainPropagationMs": self.options.drain_propagation.as_millis() as u64,
                "drainTimeoutMs": self.options.drain_timeout.as_millis() as u64,
            }),
        }
    }
}

impl Shared {
    fn functions(&self) -> Value {
        let node_status = self.node_status.borrow().clone();
        let name = |key: &Option<node_api::v1::FunctionKey>| {
            key.as_ref()
                .map(|key| format!("{}/{}", key.namespace, key.name))
        };
        let revisions: Vec<Value> = node_status
            .revisions
            .iter()
            .map(|state| {
                json!({
                    "function": name(&state.function),
                    "revision": state.revision,
                    "state": state.state().as_str_name(),
                    "permanent": state.permanent,
                })
            })
            .collect();
        let exceptions: Vec<Value> = node_status
            .exceptions
            .iter()
            .map(|exception| {
                json!({
                    "function": name(&exception.function),
                    "revision": exception.revision,
                    "reason": exception.reason,
                    "message": exception.message,
                    "since": exception.since,
                })
            })
            .collect();
        json!({ "revisions": revisions, "exceptions": exceptions })
    }
}

/// Returns hosts and traffic split of a function. Environment and configuration are omitted because they may contain
/// secrets.
fn function(served: &ServedFunction) -> Value {
    let entry = &served.entry;
    let split = &entry.split;
    let hosts: Vec<&String> = entry.routes.iter().flat_map(|route| &route.hosts).collect();
    let slot = |slot: &RevisionSlot| match slot {
        RevisionSlot::Absent => "absent".to_string(),
        RevisionSlot::Loading | RevisionSlot::LoadingHere(_) => "loading".to_string(),
        RevisionSlot::Failed(reason) => format!("failed: {}", reason.label()),
        RevisionSlot::Ready(_) => "ready".to_string(),
    };
    json!({
        "function": entry.key.to_string(),
        "hosts": hosts,
        "suspended": entry.suspended,
        "token": [split.token.epoch, split.token.serial],
        "stable": split.stable.as_ref().map(ToString::to_string),
        "stableState": slot(&served.stable),
        "candidate": split.candidate.as_ref().map(ToString::to_string),
        "candidateState": slot(&served.candidate),
        "weight": split.weight,
    })
}
