//! Events that follow from a persisted decision, beside the transitions of the rollout.

use crds::conditions::{reasons, types};
use crds::function::FunctionException;
use crds::{EdgeFunction, EdgeRevision};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator_core::rollout::EventType;

use super::report::NewEvent;
use super::{Context, conditions};

/// Conditions of which a change is also an Event: type, reason, and reason of the Event.
const REPORTED: [(&str, &str, &str); 6] = [
    (types::ACCEPTED, reasons::HOST_CONFLICT, "HostConflict"),
    (types::RESOLVED, reasons::PULL_FAILED, "PullFailed"),
    (types::RESOLVED, reasons::NOT_FOUND, "PullFailed"),
    (types::RESOLVED, reasons::UNAUTHORIZED, "PullFailed"),
    (types::RESOLVED, reasons::DIGEST_MISMATCH, "PullFailed"),
    (types::RESOLVED, reasons::NOT_A_COMPONENT, "PullFailed"),
];

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

/// Reports conditions that became false with the write from `before` to `after`.
pub(super) fn conditions_changed(
    ctx: &Context,
    before: &EdgeFunction,
    after: &EdgeFunction,
    now: Timestamp,
) {
    let (old, new) = (conditions_of(before), conditions_of(after));
    for (kind, reason, event_reason) in REPORTED {
        let has_reason = |condition: &&Condition| condition.reason == reason;
        let Some(new) = conditions::find(new, kind).filter(has_reason) else {
            continue;
        };
        let is_known = conditions::find(old, kind)
            .filter(has_reason)
            .is_some_and(|old| old.observed_generation == new.observed_generation);
        if is_known {
            continue;
        }
        let dedup_key = format!("{}/{reason}/{now}", new.observed_generation.unwrap_or(0));
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
