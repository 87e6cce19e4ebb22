//! Step 8 of a reconcile: Events for what was persisted, once each, never in the way of a decision.

use std::sync::Arc;

use crds::{EVENT_CONTROLLER, EdgeFunction};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use operator_core::rollout::{EventType, Transition};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::context::FunctionContext;
use super::stages::{Made, Persisted, Target};
use super::{api, events, metrics, rollback_hint};
use crate::metrics::Metrics;

/// Transitions of the last leader are reported again if they are younger than this. The API server keeps Events for an hour.
const REPEATED: SignedDuration = SignedDuration::from_mins(15);

/// Reports everything that was persisted, once. After a start the leader reports recent transitions of the last leader again,
/// which results in the same Events because their names are the same.
pub(super) fn report(
    target: Target<'_>,
    made: &Made,
    persisted: &Persisted,
    context: &mut FunctionContext,
) {
    let Target {
        ctx, key, object, ..
    } = target;
    let (observed, decision, at) = (&made.observed, &made.decision, made.at);
    let before = observed.owed.as_deref().unwrap_or(&observed.state);
    if persisted.first || observed.owed.is_some() {
        // an Event that the API server may have removed already would be a new one
        let is_due = |transition: &&Transition| {
            observed.owed.is_some() || at.duration_since(transition.at) < REPEATED
        };
        for transition in observed.state.events.iter().filter(is_due) {
            ctx.reporter.transition(object, transition);
        }
    }
    if let Some(written) = &persisted.written {
        rollback_hint::begin(before, &decision.state, at, &mut context.rollback);
        for transition in &decision.transitions {
            ctx.reporter.transition(written, transition);
            tracing::info!(function = %key, transition = ?transition.kind, "{}", transition.message);
        }
        events::conditions_changed(ctx, object, written, at);
        events::nodes_failed(ctx, object, written, at);
        metrics::count_transitions(ctx, before, &decision.state, at);
    }
    metrics::gauge(ctx, key, &decision.state);
    context.reported = true;
}

const QUEUE: usize = 1024;
/// Longest note that the API server accepts, in bytes.
const NOTE: usize = 1024;

/// Queue of Events that a task writes. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Reporter {
    queue: mpsc::Sender<Box<Event>>,
    metrics: Metrics,
    instance: Arc<str>,
}

/// An Event beside the transitions of a rollout.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewEvent<'a> {
    pub(super) kind: EventType,
    pub(super) reason: &'a str,
    pub(super) note: &'a str,
    /// Two Events of an object with the same reason and key are one.
    pub(super) dedup_key: &'a str,
}

impl Reporter {
    /// A reporter and the task that writes; the task ends with the last reporter.
    pub fn new(
        client: Client,
        metrics: Metrics,
        instance: &str,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, mut events) = mpsc::channel::<Box<Event>>(QUEUE);
        let counted = metrics.clone();
        let write = async move {
            while let Some(event) = events.recv().await {
                let namespace = event.metadata.namespace.clone().unwrap_or_default();
                let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
                match api::call(events.create(&PostParams::default(), &event)).await {
                    Ok(_) => {}
                    Err(error) if error.is_already_there() => {}
                    Err(error) => {
                        counted.event_dropped("refused");
                        tracing::warn!(%error, "an Event was not recorded");
                    }
                }
            }
        };
        (
            Self {
                queue,
                metrics,
                instance: instance.into(),
            },
            write,
        )
    }

    /// Records an Event for a persisted transition. Its number is part of the Event's name, so a second one is the same Event.
    pub(super) fn transition(&self, function: &EdgeFunction, transition: &Transition) {
        let Some((kind, reason)) = transition.kind.effects().event else {
            return;
        };
        let dedup_key = transition.number.to_string();
        self.write(
            function,
            transition.at,
            NewEvent {
                kind,
                reason,
                note: &transition.message,
                dedup_key: &dedup_key,
            },
        );
    }

    /// Records another Event.
    pub(super) fn record_event(
        &self,
        object: &impl Resource<DynamicType = ()>,
        now: Timestamp,
        event: NewEvent<'_>,
    ) {
        self.write(object, now, event);
    }

    fn write<K: Resource<DynamicType = ()>>(&self, object: &K, at: Timestamp, new: NewEvent<'_>) {
        let meta = object.meta();
        let name = meta.name.clone().unwrap_or_default();
        let uid = meta.uid.clone().unwrap_or_default();
        // kubectl shows Events about objects without a namespace from here
        let namespace = meta.namespace.clone().or(Some("default".to_owned()));
        let digest = Sha256::digest(format!("{uid}\n{}\n{}", new.reason, new.dedup_key));
        let suffix: String = hex::encode(digest).chars().take(16).collect();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{suffix}")),
                namespace,
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(at)),
            type_: Some(new.kind.as_str().to_owned()),
            reason: Some(new.reason.to_owned()),
            action: Some("Reconcile".to_owned()),
            note: Some(cut(new.note).to_owned()),
            reporting_controller: Some(EVENT_CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.to_string()),
            regarding: Some(ObjectReference {
                api_version: Some(crds::API_VERSION.to_owned()),
                kind: Some(K::kind(&()).into_owned()),
                name: Some(name),
                namespace: meta.namespace.clone(),
                uid: Some(uid),
                resource_version: meta.resource_version.clone(),
                field_path: None,
            }),
            ..Event::default()
        };
        if self.queue.try_send(Box::new(event)).is_err() {
            self.metrics.event_dropped("queue");
        }
    }
}

/// The start of a note, as much of it as the API server accepts.
fn cut(note: &str) -> &str {
    note.get(..note.floor_char_boundary(NOTE)).unwrap_or(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_before_the_character_that_is_too_much() {
        let longest = "a".repeat(NOTE);
        assert_eq!(cut(&longest), longest);
        assert_eq!(cut(&format!("{longest}b")), longest);
        // three bytes each, so the last one does not fit whole
        assert_eq!(cut(&"€".repeat(400)), "€".repeat(341));
    }
}
