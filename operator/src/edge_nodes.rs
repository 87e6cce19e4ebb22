//! Maintains one `EdgeNode` object per node with a shim. The leader writes it on change, and every ten minutes as a
//! heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crds::conditions::{reasons, types};
use crds::{
    EdgeNode, EdgeNodeSpec, EdgeNodeStatus, LABEL_MANAGED_BY, MANAGED_BY_VALUE, NodeException,
    NodeFunctions,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use node_api::v1;

use crate::failure_log::FailureLog;
use crate::node_api::{Fleet, NodeView};
use crate::reconcile::CallError;
use crate::reconcile::api::{call, patch_status};
use crate::reconcile::{conditions, merge_patch};
use crate::watch::{Cache, Caches, ObjectKey};

const PERIOD: Duration = Duration::from_secs(2);
/// Interval between two heartbeat writes of a node, in seconds.
const CONTACT: i64 = 600;
/// Maximum number of writes in one period: 8 a second at 5,000 nodes.
const AT_ONCE: usize = 16;

/// Keeps the `EdgeNode` objects in step with the fleet. Run it on the leader; it never returns.
pub async fn maintain(client: Client, caches: Caches, fleet: Fleet) {
    let api: Api<EdgeNode> = Api::all(client);
    let mut log = FailureLog::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        match update_all(&api, &caches, &fleet).await {
            Ok(()) => {
                log.succeeded();
            }
            Err(error) => {
                if let Some(failures) = log.failed(&error) {
                    tracing::warn!(%error, failures, "EdgeNode objects could not be updated; they are retried");
                }
            }
        }
    }
}

/// Names of the nodes whose shim the previous leader reported as connected.
pub fn serving(known: &Cache<EdgeNode>) -> BTreeSet<String> {
    let ready = |node: &EdgeNode| {
        let conditions = node.status.as_ref().map(|status| &status.conditions);
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == types::READY && condition.status == "True")
    };
    let all = known.all().into_iter();
    all.filter(|(_, node)| ready(node))
        .map(|(key, _)| key.name.to_string())
        .collect()
}

async fn update_all(api: &Api<EdgeNode>, caches: &Caches, fleet: &Fleet) -> Result<(), CallError> {
    let now = Timestamp::now();
    let mut writes = 0;
    for node in fleet.nodes() {
        let key = ObjectKey::new("", &node.name);
        let Some(kube_node) = caches.nodes.get(&key) else {
            continue;
        };
        let known = caches.edge_nodes.get(&key);
        let old = known
            .as_ref()
            .and_then(|known| known.status.clone())
            .unwrap_or_default();
        let labels = kube_node.metadata.labels.clone().unwrap_or_default();
        let new = status(&old, &node, &labels, now);
        let Some(change) = status_change(&old, &new) else {
            continue;
        };
        writes += 1;
        if writes > AT_ONCE {
            return Ok(());
        }
        if known.is_none() {
            create(api, &node.name).await?;
        }
        let patch = serde_json::json!({ "status": change });
        match patch_status(api, &node.name, &patch).await {
            Ok(_) => {}
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    for (key, _) in caches.edge_nodes.all() {
        if caches.nodes.get(&key).is_none() && caches.nodes.is_filled() {
            match call(api.delete(&key.name, &DeleteParams::default())).await {
                Ok(_) => {}
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

async fn create(api: &Api<EdgeNode>, name: &str) -> Result<(), CallError> {
    let object = EdgeNode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: EdgeNodeSpec::default(),
        status: None,
    };
    match call(api.create(&PostParams::default(), &object)).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_already_there() => Ok(()),
        Err(error) => Err(error),
    }
}

fn status(
    old: &EdgeNodeStatus,
    node: &NodeView,
    labels: &BTreeMap<String, String>,
    now: Timestamp,
) -> EdgeNodeStatus {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    EdgeNodeStatus {
        shim_version: some(&node.hello.shim_version),
        wasmtime_version: some(&node.hello.wasmtime_version),
        addresses: node.hello.addresses.iter().take(8).cloned().collect(),
        region: labels.get("topology.kubernetes.io/region").cloned(),
        zone: labels.get("topology.kubernetes.io/zone").cloned(),
        capabilities: node.hello.capabilities.iter().take(64).cloned().collect(),
        functions: Some(NodeFunctions {
            desired: node.functions_desired,
            loaded: node.functions_loaded,
            failed: node.functions_failed,
        }),
        // It rises with every change anywhere in the cluster and would cause a write for each.
        table_version: None,
        last_contact: Some(contact(
            old.last_contact.as_ref(),
            node.last_contact,
            node.live,
        )),
        exceptions: node.exceptions.iter().take(8).map(exception).collect(),
        conditions: node_conditions(old, node, now),
    }
}

/// Returns the JSON merge patch that turns `old` into `new`, `None` if they are equal. It sets what `new` does not have to null, such
/// as a list that is empty now: a merge patch leaves what it does not name.
fn status_change(old: &EdgeNodeStatus, new: &EdgeNodeStatus) -> Option<serde_json::Value> {
    let (old, new) = (serde_json::to_value(old), serde_json::to_value(new));
    merge_patch(&old.ok()?, &new.ok()?)
}

fn exception(reported: &v1::NodeException) -> NodeException {
    let function = reported.function.clone().unwrap_or_default();
    let message: String = reported.message.chars().take(256).collect();
    let since = i64::try_from(reported.since).ok();
    NodeException {
        namespace: function.namespace,
        function: function.name,
        revision: reported.revision.clone(),
        reason: reported.reason.clone(),
        message: Some(message).filter(|message| !message.is_empty()),
        since: since
            .and_then(|since| Timestamp::from_millisecond(since).ok())
            .map(whole_seconds),
    }
}

fn node_conditions(old: &EdgeNodeStatus, node: &NodeView, now: Timestamp) -> Vec<Condition> {
    let converged = node.functions_loaded + node.functions_failed >= node.functions_desired
        && node.functions_failed == 0;
    let functions = format!(
        "{} of {} functions are loaded, {} cannot be loaded{}",
        node.functions_loaded,
        node.functions_desired,
        node.functions_failed,
        exceptions_of(node)
    );
    let contact = if node.live {
        "the shim is connected"
    } else {
        "the shim has sent nothing for more than 10 s"
    };
    let loading = if converged {
        "Converged"
    } else {
        reasons::LOADING
    };
    let readiness = match (node.live, node.ready) {
        (true, true) => "Serving",
        (true, false) => "NotReady",
        (false, _) => "NoContact",
    };
    let ready = node.live && node.ready;
    vec![
        condition(old, types::CONVERGED, converged, loading, &functions, now),
        condition(old, types::READY, ready, readiness, contact, now),
    ]
}

/// `; 2 exceptions, first ReuseUnsafe of shop/cart`; empty without an exception.
fn exceptions_of(node: &NodeView) -> String {
    let Some(first) = node.exceptions.first() else {
        return String::new();
    };
    let count = node.exceptions.len() + node.exceptions_dropped as usize;
    let noun = if count == 1 {
        "exception"
    } else {
        "exceptions"
    };
    let function = first.function.as_ref();
    let of = function.map(|it| format!(" of {}/{}", it.namespace, it.name));
    format!(
        "; {count} {noun}, first {}{}",
        first.reason,
        of.unwrap_or_default()
    )
}

/// Time of the last contact to write. For a live node, the recorded time stays for ten minutes, so that not every
/// report causes a write; for a disconnected node it is exact.
fn contact(old: Option<&Time>, last_contact: Timestamp, live: bool) -> Time {
    let new = whole_seconds(last_contact);
    let age = |old: &Time| new.0.as_second() - old.0.as_second();
    let recent = |old: &&Time| live && (0..CONTACT).contains(&age(old));
    old.filter(recent).cloned().unwrap_or(new)
}

fn whole_seconds(at: Timestamp) -> Time {
    crate::persist::time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn condition(
    old: &EdgeNodeStatus,
    kind: &str,
    good: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Condition {
    let report = conditions::Report {
        status: conditions::status(good),
        reason,
        message,
        generation: None,
    };
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    conditions::condition(&old.conditions, kind, report, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_and_a_region_that_ended_are_removed() {
        let new = EdgeNodeStatus {
            shim_version: Some("0.1.0".to_owned()),
            ..EdgeNodeStatus::default()
        };
        let old = EdgeNodeStatus {
            region: Some("eu".to_owned()),
            exceptions: vec![exception(&v1::NodeException::default())],
            ..new.clone()
        };
        let change = status_change(&old, &new);
        let removed = serde_json::json!({ "region": null, "exceptions": null });
        assert_eq!(change, Some(removed));
        assert_eq!(status_change(&new, &new), None);
        let created = status_change(&EdgeNodeStatus::default(), &new);
        assert_eq!(created, Some(serde_json::json!({ "shimVersion": "0.1.0" })));
    }

    #[test]
    fn exceptions_are_counted_beside_the_functions_that_are_loaded() {
        let exception = |reason: &str| v1::NodeException {
            function: Some(v1::FunctionKey {
                namespace: "shop".to_owned(),
                name: "cart".to_owned(),
            }),
            reason: reason.to_owned(),
            ..v1::NodeException::default()
        };
        let message = |exceptions: Vec<v1::NodeException>, exceptions_dropped| {
            let node = NodeView {
                name: "n-1".to_owned(),
                live: true,
                connected: true,
                relayed: false,
                last_contact: Timestamp::UNIX_EPOCH,
                hello: v1::Hello::default(),
                applied_version: 0,
                functions_desired: 29,
                functions_loaded: 29,
                functions_failed: 0,
                ready: true,
                exceptions,
                exceptions_dropped,
            };
            let all = node_conditions(&EdgeNodeStatus::default(), &node, Timestamp::UNIX_EPOCH);
            all.into_iter().next().unwrap().message
        };
        let loaded = "29 of 29 functions are loaded, 0 cannot be loaded";
        assert_eq!(message(Vec::new(), 0), loaded);
        let one = vec![exception("ReuseUnsafe")];
        assert_eq!(
            message(one, 0),
            format!("{loaded}; 1 exception, first ReuseUnsafe of shop/cart")
        );
        let two = vec![exception("SecretsUnavailable"), exception("ReuseUnsafe")];
        assert_eq!(
            message(two, 7),
            format!("{loaded}; 9 exceptions, first SecretsUnavailable of shop/cart")
        );
        // an exception of the node itself belongs to no function
        assert_eq!(
            message(
                vec![v1::NodeException {
                    reason: "DiskFull".to_owned(),
                    ..v1::NodeException::default()
                }],
                0
            ),
            format!("{loaded}; 1 exception, first DiskFull")
        );
    }

    #[test]
    fn a_contact_is_written_every_ten_minutes_and_exactly_for_a_disconnected_node() {
        let at = |second: i64| crate::persist::time(Timestamp::from_second(second).unwrap());
        let recorded = |old: Option<i64>, second: i64, live| {
            let last_contact = Timestamp::from_millisecond(second * 1000 + 250).unwrap();
            contact(old.map(at).as_ref(), last_contact, live)
        };
        assert_eq!(
            recorded(None, 1_007, true),
            at(1_007),
            "rounded down to whole seconds"
        );
        assert_eq!(recorded(Some(1_007), 1_606, true), at(1_007));
        assert_eq!(recorded(Some(1_007), 1_607, true), at(1_607));
        assert_eq!(recorded(Some(1_007), 1_100, false), at(1_100));
        assert_eq!(
            recorded(Some(1_007), 900, true),
            at(900),
            "a clock set back"
        );
    }
}
