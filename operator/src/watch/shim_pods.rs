//! Where nodes receive the requests of other nodes: the addresses of the pods of the node-shims, from the API server and never
//! from a node itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

use super::BACKOFF;
use super::cache::version;
use crate::failure_log::FailureLog;
use crate::node_api::Tables;

/// Labels that the chart gives to the pods.
const SELECTOR: &str = "app.kubernetes.io/name=selvage,app.kubernetes.io/component=node-shim";
/// Name of the container port for requests over HTTP.
const DATA_PORT: &str = "data";

/// Keeps the addresses of nodes in the tables in step with the pods of the node-shims. Clones share the state.
#[derive(Clone, Debug)]
pub struct ShimPods {
    filled: Arc<watch::Sender<bool>>,
}

/// A pod of a node-shim.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ShimPod {
    node: String,
    address: Option<SocketAddr>,
    rank: Rank,
}

/// Which of several pods on a node receives requests: one that is ready, else one that is not being deleted, else the newest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    deleted: bool,
    not_ready: bool,
    created: Reverse<Option<Timestamp>>,
}

/// The pods by name.
#[derive(Debug, Default)]
struct Pods {
    by_name: HashMap<String, ShimPod>,
    by_node: BTreeMap<String, BTreeSet<String>>,
}

// === impl ShimPods ===

impl Default for ShimPods {
    fn default() -> Self {
        Self {
            filled: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl ShimPods {
    /// Waits for the first complete list.
    pub async fn filled(&self) {
        // The sender lives as long as this handle, so this wait cannot fail.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// Watches the pods in `namespace` that run as `service_account`, and never returns.
    pub async fn follow(
        self,
        client: Client,
        namespace: String,
        service_account: String,
        tables: Tables,
    ) {
        let api: Api<Pod> = Api::namespaced(client, &namespace);
        let config = watcher::Config::default().labels(SELECTOR);
        let mut events = watcher(api, config).backoff(BACKOFF.delays()).boxed();
        let mut pods = Pods::default();
        let mut listed: Option<HashSet<String>> = None;
        let mut log = FailureLog::default();
        let set = |pods: &Pods, nodes: BTreeSet<String>, version| {
            for node in nodes {
                tables.set_address(&node, pods.address(&node), version);
            }
        };
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed = Some(HashSet::new()),
                Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) => {
                    let (name, version) = (pod.name_any(), version(&pod));
                    if let Some(listed) = &mut listed {
                        listed.insert(name.clone());
                    }
                    let changed = pods.put(name, shim_pod(&pod, &service_account));
                    set(&pods, changed, version);
                }
                Ok(watcher::Event::Delete(pod)) => {
                    let changed = pods.put(pod.name_any(), None);
                    set(&pods, changed, version(&pod));
                }
                Ok(watcher::Event::InitDone) => {
                    log.succeeded();
                    let gone = pods.missing_from(&listed.take().unwrap_or_default());
                    for name in gone {
                        let changed = pods.put(name, None);
                        set(&pods, changed, 0);
                    }
                    if !self.filled.send_replace(true) {
                        tables.addresses_complete();
                    }
                }
                Err(error) => {
                    if let Some(failures) = log.failed(&error) {
                        tracing::warn!(%error, failures, "the pods of the node-shims cannot be watched, so nodes do not learn new addresses of each other");
                    }
                }
            }
        }
    }
}

// === impl Pods ===

impl Pods {
    /// Replaces a pod. Returns the nodes whose address may have changed.
    fn put(&mut self, name: String, pod: Option<ShimPod>) -> BTreeSet<String> {
        let mut nodes = BTreeSet::new();
        let former = match pod {
            Some(pod) => {
                let names = self.by_node.entry(pod.node.clone()).or_default();
                names.insert(name.clone());
                nodes.insert(pod.node.clone());
                self.by_name.insert(name.clone(), pod)
            }
            None => self.by_name.remove(&name),
        };
        let former = former.map(|former| former.node);
        if let Some(node) = former.filter(|node| {
            let present = self.by_name.get(&name);
            present.is_none_or(|present| present.node != *node)
        }) {
            if let Some(names) = self.by_node.get_mut(&node) {
                names.remove(&name);
                if names.is_empty() {
                    self.by_node.remove(&node);
                }
            }
            nodes.insert(node);
        }
        nodes
    }

    fn missing_from(&self, listed: &HashSet<String>) -> Vec<String> {
        let names = self.by_name.keys();
        names
            .filter(|name| !listed.contains(*name))
            .cloned()
            .collect()
    }

    /// Where the node receives requests.
    fn address(&self, node: &str) -> Option<SocketAddr> {
        let names = self.by_node.get(node)?.iter();
        let pods = names.filter_map(|name| self.by_name.get(name));
        let with_address = pods.filter_map(|pod| Some((&pod.rank, pod.address?)));
        with_address.min().map(|(_, address)| address)
    }
}

/// Reads a pod; `None` if it is not that of a node-shim, or not on a node yet.
fn shim_pod(pod: &Pod, service_account: &str) -> Option<ShimPod> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_deref() != Some(service_account) {
        return None;
    }
    let node = spec.node_name.clone().filter(|node| !node.is_empty())?;
    let mut ports = spec
        .containers
        .iter()
        .flat_map(|it| it.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(DATA_PORT));
    let port = port.and_then(|port| u16::try_from(port.container_port).ok());
    let status = pod.status.as_ref();
    let ended = status
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    let ip: Option<IpAddr> = status.and_then(|status| status.pod_ip.as_deref()?.parse().ok());
    let mut conditions = status.iter().flat_map(|it| it.conditions.iter().flatten());
    let ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
    Some(ShimPod {
        node,
        address: ip.zip(port).filter(|_| !ended).map(SocketAddr::from),
        rank: Rank {
            deleted: pod.metadata.deletion_timestamp.is_some(),
            not_ready: !ready,
            created: Reverse(pod.metadata.creation_timestamp.as_ref().map(|at| at.0)),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod of this name on the node, created at this second.
    fn pod(name: &str, node: &str, ip: &str, second: u32, change: Value) -> Pod {
        let mut pod = json!({
            "metadata": { "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") },
            "spec": {
                "nodeName": node,
                "serviceAccountName": "selvage-node-shim",
                "containers": [{ "name": "node-shim", "ports": [
                    { "name": "admin", "containerPort": 9180 },
                    { "name": "data", "containerPort": 8080, "hostPort": 80 },
                ] }],
            },
            "status": { "podIP": ip, "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        });
        merge(&mut pod, change);
        serde_json::from_value(pod).unwrap()
    }

    fn merge(into: &mut Value, change: Value) {
        match (into, change) {
            (Value::Object(into), Value::Object(change)) => {
                for (name, value) in change {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
            (into, change) => *into = change,
        }
    }

    fn put(pods: &mut Pods, pod: &Pod) -> Vec<String> {
        let read = shim_pod(pod, "selvage-node-shim");
        pods.put(pod.name_any(), read).into_iter().collect()
    }

    fn shown(pods: &Pods, node: &str) -> String {
        pods.address(node)
            .map_or_else(String::new, |address| address.to_string())
    }

    /// The address is that of the pod, also with IPv6 and in the network of the node; the port of the node does not matter.
    #[test]
    fn the_address_of_a_node_is_that_of_its_pod() {
        let mut pods = Pods::default();
        assert_eq!(
            put(&mut pods, &pod("a", "node-1", "10.0.0.1", 1, json!({}))),
            ["node-1"]
        );
        assert_eq!(shown(&pods, "node-1"), "10.0.0.1:8080");
        put(&mut pods, &pod("b", "node-2", "2001:db8::2", 1, json!({})));
        assert_eq!(shown(&pods, "node-2"), "[2001:db8::2]:8080");
        let host = json!({ "spec": { "hostNetwork": true, "containers": [
            { "name": "node-shim", "ports": [{ "name": "data", "containerPort": 80, "hostPort": 80 }] },
        ] } });
        put(&mut pods, &pod("c", "node-3", "192.0.2.3", 1, host));
        assert_eq!(shown(&pods, "node-3"), "192.0.2.3:80");
        let waiting = json!({ "status": { "podIP": null } });
        put(&mut pods, &pod("d", "node-4", "", 1, waiting));
        let failed = json!({ "status": { "phase": "Failed" } });
        put(&mut pods, &pod("e", "node-5", "10.0.0.5", 1, failed));
        let foreign = json!({ "spec": { "serviceAccountName": "other" } });
        put(&mut pods, &pod("f", "node-6", "10.0.0.6", 1, foreign));
        for node in ["node-4", "node-5", "node-6", "unknown"] {
            assert_eq!(shown(&pods, node), "", "{node}");
        }
    }

    #[test]
    fn a_ready_pod_replaces_the_one_that_is_deleted_after_it() {
        let mut pods = Pods::default();
        put(&mut pods, &pod("old", "node-1", "10.0.0.1", 1, json!({})));
        let starting =
            json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
        put(&mut pods, &pod("new", "node-1", "10.0.0.2", 2, starting));
        assert_eq!(shown(&pods, "node-1"), "10.0.0.1:8080", "not ready yet");
        put(&mut pods, &pod("new", "node-1", "10.0.0.2", 2, json!({})));
        assert_eq!(shown(&pods, "node-1"), "10.0.0.2:8080");
        let deleted = json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:01:00Z" } });
        put(
            &mut pods,
            &pod("old", "node-1", "10.0.0.1", 1, deleted.clone()),
        );
        assert_eq!(shown(&pods, "node-1"), "10.0.0.2:8080");
        put(&mut pods, &pod("new", "node-1", "10.0.0.2", 2, deleted));
        assert_eq!(
            shown(&pods, "node-1"),
            "10.0.0.2:8080",
            "it serves until it ends"
        );
        assert_eq!(pods.put("new".to_owned(), None).len(), 1);
        assert_eq!(shown(&pods, "node-1"), "10.0.0.1:8080");
        assert_eq!(pods.missing_from(&HashSet::new()), ["old"]);
        pods.put("old".to_owned(), None);
        assert!(pods.by_node.is_empty() && shown(&pods, "node-1").is_empty());
    }
}
