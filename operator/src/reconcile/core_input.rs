//! The input of the core: the state that it continues from, the function, and its actions. Pure, but drops what the context
//! remembers when that no longer continues what is persisted.

use std::collections::BTreeSet;

use crds::EdgeFunction;
use operator_core::function::{Action, Annotation, Function};
use operator_core::rollout::RolloutState;

use super::abandoned::abandoned;
use super::context::{FunctionContext, Present};
use super::desired::DesiredRevision;
use super::observe::Observed;
use crate::persist as record;
use crate::watch::ObjectKey;

/// The state that decisions continue from: the one in the context if it continues the persisted record. With it the state before
/// a decision whose write is still owed, if there is one.
pub(super) fn present(
    key: &ObjectKey,
    object: &EdgeFunction,
    context: &mut FunctionContext,
) -> (RolloutState, Option<Box<RolloutState>>) {
    let status = object.status.clone().unwrap_or_default();
    let written = status
        .rollout
        .as_ref()
        .and_then(|rollout| rollout.working_record.clone());
    let continues =
        |present: &Present| present.record == written && present.uid == object.metadata.uid;
    if let Some(Present { state, owed, .. }) = context.present.as_ref().filter(|it| continues(it)) {
        return (state.clone(), owed.clone());
    }
    context.present = None;
    context.evaluator = None;
    let state = match record::decode(&status) {
        Ok(state) => state,
        Err(record::RecordError::Absent) => RolloutState::default(),
        Err(error) => {
            tracing::error!(function = %key, %error, "the persisted rollout cannot be read; stable is recovered from its revisions");
            RolloutState::default()
        }
    };
    (state, None)
}

/// Describes the function as the core sees it.
pub(super) fn describe_function(observed: &Observed, desired: &DesiredRevision) -> Function {
    let Observed {
        snapshot, state, ..
    } = observed;
    let object = &*snapshot.function;
    let abandoned = match desired.revision {
        Some(_) => None,
        None => abandoned(snapshot, state),
    };
    let accepted = object
        .status
        .as_ref()
        .and_then(|status| status.accepted.as_ref());
    let suspend = desired.spec.as_ref().map_or_else(
        || accepted.is_some_and(|accepted| accepted.suspend),
        |spec| spec.suspend,
    );
    let generation = if desired.unsettled {
        state.observed_generation
    } else {
        object.metadata.generation.unwrap_or(0)
    };
    Function {
        namespace: object.metadata.namespace.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
        generation,
        desired: desired.revision.clone(),
        abandoned,
        refused: desired.refusal(),
        policy: desired.spec.as_ref().map(|spec| spec.policy.clone()),
        suspend,
        actions: actions(object),
    }
}

/// The annotations that request actions, with the field managers that own them.
fn actions(object: &EdgeFunction) -> Vec<Annotation> {
    let annotations = object.metadata.annotations.iter().flatten();
    annotations
        .filter_map(|(name, value)| {
            let action = Action::parse(name.strip_prefix(crds::ACTION_PREFIX)?)?;
            Some(Annotation {
                action,
                // No revision has a longer name. The rest is enough to report what was ignored.
                value: value.chars().take(256).collect(),
                by: writer(object, name),
            })
        })
        .collect()
}

/// The field manager that wrote an annotation; empty if unknown.
fn writer(object: &EdgeFunction, annotation: &str) -> String {
    let pointer = format!(
        "/f:metadata/f:annotations/f:{}",
        annotation.replace('~', "~0").replace('/', "~1")
    );
    let managers = object.metadata.managed_fields.iter().flatten();
    managers
        .filter(|entry| {
            entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| fields.0.pointer(&pointer).is_some())
        })
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.clone())
        .unwrap_or_default()
}

/// Every revision that a decision may ask the nodes about.
pub(super) fn named(state: &RolloutState, function: &Function) -> BTreeSet<String> {
    [
        state.stable.as_ref().map(|stable| &stable.revision),
        state
            .rollout
            .as_ref()
            .map(|rollout| &rollout.candidate.revision),
        state.previous.as_ref().map(|previous| &previous.revision),
        function.desired.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(|revision| revision.name.clone())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_known_by_the_manager_that_wrote_it() {
        let yaml = r#"
apiVersion: selvage.dev/v1alpha1
kind: EdgeFunction
metadata:
  name: f
  annotations: { selvage.dev/promote: f-1/step-2, selvage.dev/unknown: x, other: y }
  managedFields:
    - { manager: argocd, operation: Apply, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: { "f:metadata": { "f:annotations": { "f:other": {} } } } }
    - { manager: kubectl-annotate, operation: Update, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: { "f:metadata": { "f:annotations": { "f:selvage.dev/promote": {} } } } }
spec: { source: { image: "r.example/a:1" }, routes: [] }
"#;
        let object: EdgeFunction = serde_yaml::from_str(yaml).unwrap();
        let found = actions(&object);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (
                found[0].action,
                found[0].value.as_str(),
                found[0].by.as_str()
            ),
            (Action::Promote, "f-1/step-2", "kubectl-annotate")
        );
    }
}
