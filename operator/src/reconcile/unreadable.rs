//! Objects that cannot be decoded. The last version that could be decoded stays in use. A function reports the failure in its
//! conditions and by an Event; a claim, which has no conditions, by an Event alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::conditions::{reasons, types};
use crds::{EdgeFunction, HostClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, ResourceExt};
use operator_core::rollout::EventType;
use serde_json::{Value, json};

use super::conditions::{Report, condition};
use super::report::NewEvent;
use super::{CallError, Context, api};
use crate::failure_log::FailureLog;
use crate::watch::ObjectKey;

const PERIOD: Duration = Duration::from_secs(5);

/// Reports objects that cannot be decoded, periodically. It never returns.
pub(super) async fn report_unreadable(ctx: Arc<Context>) {
    let mut reported: BTreeMap<ObjectKey, String> = BTreeMap::new();
    let mut reported_claims: BTreeMap<ObjectKey, String> = BTreeMap::new();
    let mut log = FailureLog::default();
    loop {
        tokio::time::sleep(PERIOD).await;
        let found = ctx.caches.functions.unreadable();
        count_unreadable(&ctx, found.len());
        for (key, why) in news(&mut reported, found) {
            let result = report_function(&ctx, &key, &why).await;
            remember(&mut reported, key, why, result, &mut log);
        }
        for (key, why) in news(&mut reported_claims, ctx.caches.claims.unreadable()) {
            let result = report_claim(&ctx, &key, &why).await;
            remember(&mut reported_claims, key, why, result, &mut log);
        }
    }
}

async fn report_claim(ctx: &Context, key: &ObjectKey, why: &str) -> Result<(), CallError> {
    let claims: Api<HostClaim> = Api::all(ctx.client.clone());
    let Some(claim) = api::call(claims.get_metadata_opt(&key.name)).await? else {
        return Ok(());
    };
    let message = message(why);
    ctx.reporter
        .record_event(&claim, jiff::Timestamp::now(), event(&message));
    Ok(())
}

fn count_unreadable(ctx: &Context, functions: usize) {
    let kinds = [
        ("EdgeFunction", functions),
        ("EdgeRevision", ctx.caches.revisions.unreadable().len()),
        ("RolloutPolicy", ctx.caches.policies.unreadable().len()),
        ("HostClaim", ctx.caches.claims.unreadable().len()),
    ];
    for (kind, count) in kinds {
        ctx.metrics.set_unreadable(kind, count);
    }
}

pub(super) async fn report_function(
    ctx: &Context,
    key: &ObjectKey,
    why: &str,
) -> Result<(), CallError> {
    let kind = ApiResource::erase::<EdgeFunction>(&());
    let functions: Api<DynamicObject> =
        Api::namespaced_with(ctx.client.clone(), &key.namespace, &kind);
    let Some(object) = api::call(functions.get_opt(&key.name)).await? else {
        return Ok(());
    };
    let old = object
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let message = message(why);
    let generation = object.metadata.generation;
    let Some(conditions) =
        unreadable_conditions(&old, &message, generation, jiff::Timestamp::now())
    else {
        return Ok(());
    };
    // a rollout keeps its phase
    let phase = object.data.pointer("/status/phase").and_then(Value::as_str);
    let phase = match phase {
        None => Some("Failed"),
        Some(rests) if ["Pending", "Ready"].contains(&rests) => Some("Failed"),
        other => other,
    };
    let patch = json!({
        "metadata": { "resourceVersion": object.resource_version() },
        "status": { "conditions": conditions, "phase": phase },
    });
    match api::patch_status(&functions, &key.name, &patch).await {
        Ok(_) => {
            let function = EdgeFunction {
                metadata: object.metadata.clone(),
                spec: Default::default(),
                status: None,
            };
            ctx.reporter
                .record_event(&function, jiff::Timestamp::now(), event(&message));
            Ok(())
        }
        // Written meanwhile: the next round reads it again.
        Err(error) if error.is_gone() => Ok(()),
        Err(error) => Err(error),
    }
}

/// The conditions of an object that cannot be decoded, with the others that it has. `None` if it has them already.
fn unreadable_conditions(
    old: &[Value],
    message: &str,
    generation: Option<i64>,
    now: jiff::Timestamp,
) -> Option<Vec<Value>> {
    let is = |value: &Value, kind: &str| value.get("type").and_then(Value::as_str) == Some(kind);
    if old.iter().any(|old| {
        is(old, types::ACCEPTED) && old.get("message").and_then(Value::as_str) == Some(message)
    }) {
        return None;
    }
    let before: Vec<Condition> = old
        .iter()
        .filter_map(|old| serde_json::from_value(old.clone()).ok())
        .collect();
    let reported = [
        (types::ACCEPTED, "False"),
        (types::READY, "False"),
        (types::RECONCILING, "False"),
        (types::STALLED, "True"),
    ];
    let others = old
        .iter()
        .filter(|old| !reported.iter().any(|(kind, _)| is(old, kind)))
        .cloned();
    let new = reported.iter().map(|(kind, status)| {
        let report = Report {
            status,
            reason: reasons::UNREADABLE,
            message,
            generation,
        };
        json!(condition(&before, kind, report, now))
    });
    Some(others.chain(new).collect())
}

/// The Event about an object that cannot be decoded.
fn event(message: &str) -> NewEvent<'_> {
    NewEvent {
        kind: EventType::Warning,
        reason: reasons::UNREADABLE,
        note: message,
        dedup_key: message,
    }
}

fn message(why: &str) -> String {
    format!("the object cannot be read by this version of the operator: {why}")
        .chars()
        .take(1000)
        .collect()
}

/// Returns what was not reported yet. Objects that can be decoded again, or are gone, are forgotten.
fn news(
    reported: &mut BTreeMap<ObjectKey, String>,
    found: BTreeMap<ObjectKey, String>,
) -> Vec<(ObjectKey, String)> {
    reported.retain(|key, _| found.contains_key(key));
    found
        .into_iter()
        .filter(|(key, why)| reported.get(key) != Some(why))
        .collect()
}

fn remember(
    reported: &mut BTreeMap<ObjectKey, String>,
    key: ObjectKey,
    why: String,
    result: Result<(), CallError>,
    log: &mut FailureLog,
) {
    match result {
        Ok(()) => drop(reported.insert(key, why)),
        Err(error) => {
            if let Some(failures) = log.failed(&error) {
                tracing::warn!(object = %key, %error, failures, "an object that cannot be decoded could not be reported");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_stays_the_same_keeps_its_transition_time() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let first = unreadable_conditions(&[], "one", Some(1), at(10)).unwrap();
        assert!(unreadable_conditions(&first, "one", Some(1), at(20)).is_none());
        let second = unreadable_conditions(&first, "another", Some(2), at(20)).unwrap();
        let times = |conditions: &[Value]| -> Vec<Value> {
            let times = conditions
                .iter()
                .map(|one| one["lastTransitionTime"].clone());
            times.collect()
        };
        assert_eq!(times(&second), times(&first));
        assert_eq!(second[0]["message"], "another");
    }
}
