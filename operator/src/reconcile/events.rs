//! Events that follow from a persisted decision, beside the transitions of the rollout.

use crds::conditions::{reasons, types};
use crds::function::FunctionException;
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator_core::rollout::{CERTIFICATE_UNUSABLE, EventType, SECRETS_UNAVAILABLE};

use super::report::NewEvent;
use super::{Context, conditions};

/// Returns the reason of the Event for a condition, or `None` if the condition is no problem or resolves by itself.
fn event_reason(condition: &Condition) -> Option<&str> {
    if condition.status != "False" {
        return None;
    }
    let reason = condition.reason.as_str();
    match condition.type_.as_str() {
        types::ACCEPTED | types::COMPATIBLE => Some(reason),
        types::RESOLVED => Some(reasons::PULL_FAILED),
        types::DISTRIBUTED => [CERTIFICATE_UNUSABLE, SECRETS_UNAVAILABLE]
            .contains(&reason)
            .then_some(reason),
        _ => None,
    }
}

/// Reports that a revision was created.
pub(super) fn revision_created(
    ctx: &Context,
    object: &EdgeFunction,
    revision: &EdgeRevision,
    now: Timestamp,
) {
    let name = revision.metadata.name.as_deref().unwrap_or_default();
    let note = format!(
        "revision {} is {name}, {}",
        revision.spec.number, revision.spec.digest
    );
    let event = NewEvent {
        kind: EventType::Normal,
        reason: "RevisionCreated",
        note: &note,
        dedup_key: name,
    };
    ctx.reporter.record_event(object, now, event);
}

/// Reports what is wrong with the spec, or with what it refers to, since the write from `before` to `after`.
pub(super) fn conditions_changed(
    ctx: &Context,
    before: &EdgeFunction,
    after: &EdgeFunction,
    now: Timestamp,
) {
    let (old, new) = (conditions_of(before), conditions_of(after));
    for new in new {
        let Some(event_reason) = event_reason(new) else {
            continue;
        };
        let reported = |condition: &Condition| {
            (
                condition.status.clone(),
                condition.reason.clone(),
                condition.observed_generation,
            )
        };
        let old = conditions::find(old, &new.type_);
        if old.is_some_and(|old| reported(old) == reported(new)) {
            continue;
        }
        let generation = new.observed_generation.unwrap_or(0);
        let dedup_key = format!("{generation}/{}/{now}", new.reason);
        let event = NewEvent {
            kind: EventType::Warning,
            reason: event_reason,
            note: &new.message,
            dedup_key: &dedup_key,
        };
        ctx.reporter.record_event(after, now, event);
    }
}

/// Reports failures on nodes that the write from `before` to `after` added.
pub(super) fn nodes_failed(
    ctx: &Context,
    before: &EdgeFunction,
    after: &EdgeFunction,
    now: Timestamp,
) {
    let old = exceptions_of(before);
    for new in exceptions_of(after) {
        if old.iter().any(|old| {
            old.node == new.node && old.revision == new.revision && old.reason == new.reason
        }) {
            continue;
        }
        let note = format!(
            "{} on {}: {} {}",
            new.revision,
            new.node,
            new.reason,
            new.message.as_deref().unwrap_or_default()
        );
        let dedup_key = format!(
            "{}/{}/{}/{:?}",
            new.node, new.revision, new.reason, new.since
        );
        let event = NewEvent {
            kind: EventType::Warning,
            reason: "NodeFailed",
            note: note.trim(),
            dedup_key: &dedup_key,
        };
        ctx.reporter.record_event(after, now, event);
    }
}

fn conditions_of(object: &EdgeFunction) -> &[Condition] {
    let status = object.status.as_ref();
    status.map_or(&[], |status| &status.conditions)
}

fn exceptions_of(object: &EdgeFunction) -> &[FunctionException] {
    let status = object.status.as_ref();
    let nodes = status.and_then(|status| status.nodes.as_ref());
    nodes.map_or(&[], |nodes| &nodes.exceptions)
}
