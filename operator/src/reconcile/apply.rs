//! Step 7 of a reconcile: node tables and owned objects follow the persisted state.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::{EdgeRevision, FIELD_MANAGER};
use kube::Api;
use kube::api::{Patch, PatchParams};
use operator_core::rollout::RolloutState;

use super::api::{self, CallError};
use super::context::FunctionContext;
use super::revision_status;
use super::stages::{Made, Persisted, Target};
use crate::revision::owned_by;
use crate::watch::ObjectKey;

/// Projects the persisted state to the nodes, and brings the revisions in line with it: when each was promoted, whether the
/// nodes have loaded it, which function owns it, and which are old enough to be removed.
///
/// # Errors
/// A call failed. The next pass does the same again.
pub(super) async fn apply(
    target: Target<'_>,
    made: &Made,
    persisted: &Persisted,
    context: &mut FunctionContext,
) -> Result<(), CallError> {
    if let Some(written) = &persisted.written {
        target.ctx.projector.project(target.key, written);
    }
    let Target { ctx, key, .. } = target;
    let api: Api<EdgeRevision> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let has_changed = persisted.written.is_some() && !made.decision.transitions.is_empty();
    if !persisted.first && !has_changed {
        return revision_status::follow_nodes(target, &api, made, context).await;
    }
    ctx.status_rate_limit.carried(&mut context.revision_limit);
    context.revisions_due = None;
    adopt_revisions(target, &api, made).await?;
    revision_status::report(target, &api, made).await?;
    remove_revisions(&api, key, made).await
}

/// Makes the function the owner of its revisions that have no owner. `kubectl delete --cascade=orphan` leaves such revisions,
/// and a function that is created again under the name continues with them. Without an owner they would outlive it as well.
async fn adopt_revisions(
    target: Target<'_>,
    api: &Api<EdgeRevision>,
    made: &Made,
) -> Result<(), CallError> {
    let has_no_owner = |revision: &&Arc<EdgeRevision>| {
        let owners = revision.metadata.owner_references.as_ref();
        owners.is_none_or(Vec::is_empty) && revision.metadata.deletion_timestamp.is_none()
    };
    let revisions = made.observed.snapshot.revisions.iter();
    for orphan in revisions.filter(has_no_owner) {
        let meta = &orphan.metadata;
        let patch = serde_json::json!({ "metadata": {
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "ownerReferences": [owned_by(target.object)],
        }});
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let name = meta.name.as_deref().unwrap_or_default();
        match api::call(api.patch(name, &params, &Patch::Merge(&patch))).await {
            Ok(_) => {
                tracing::info!(function = %target.key, revision = name, "became the owner of a revision without an owner");
            }
            Err(error) if error.is_gone() => {}
            // A revision without an owner serves as well as any other, so a permission that is missing stops nothing.
            Err(error) if error.refusal().is_some() => {
                tracing::warn!(function = %target.key, revision = name, %error, "a revision without an owner stays without one");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn remove_revisions(
    api: &Api<EdgeRevision>,
    key: &ObjectKey,
    made: &Made,
) -> Result<(), CallError> {
    let spec = made.ensured.desired.spec.as_ref();
    let keep = spec.map_or(usize::MAX, |spec| spec.history_limit);
    let revisions = &made.observed.snapshot.revisions;
    for old in garbage(&made.decision.state, revisions, keep) {
        if api::delete(api, &old.metadata).await? {
            let name = old.metadata.name.as_deref().unwrap_or_default();
            tracing::info!(function = %key, revision = name, "removed an old revision");
        }
    }
    Ok(())
}

/// Revisions beyond the limit, oldest first; never one that a state may still name.
fn garbage<'a>(
    state: &RolloutState,
    revisions: &'a [Arc<EdgeRevision>],
    keep: usize,
) -> Vec<&'a Arc<EdgeRevision>> {
    let named: BTreeSet<&str> = [
        state
            .stable
            .as_ref()
            .map(|stable| stable.revision.name.as_str()),
        state
            .rollout
            .as_ref()
            .map(|rollout| rollout.candidate.revision.name.as_str()),
        state
            .previous
            .as_ref()
            .map(|previous| previous.revision.name.as_str()),
        state
            .rejected
            .as_ref()
            .map(|rejected| rejected.revision.name.as_str()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut others: Vec<_> = revisions
        .iter()
        .filter(|revision| {
            revision
                .metadata
                .name
                .as_deref()
                .is_some_and(|name| !named.contains(name))
        })
        .collect();
    others.sort_by_key(|revision| std::cmp::Reverse(revision.spec.number));
    others.into_iter().skip(keep).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use operator_core::function::Revision;
    use operator_core::rollout::RevisionRef;

    use super::*;

    fn revision(number: i64) -> Arc<EdgeRevision> {
        let mut revision = EdgeRevision::new(
            &format!("f-{number}"),
            crds::EdgeRevisionSpec {
                number,
                ..Default::default()
            },
        );
        revision.metadata.uid = Some(number.to_string());
        Arc::new(revision)
    }

    #[test]
    fn i6_what_a_state_names_is_never_garbage() {
        let revisions: Vec<_> = (1..=6).map(revision).collect();
        let stable = RevisionRef {
            revision: Revision {
                name: "f-1".into(),
                digest: String::new(),
            },
            since: Timestamp::UNIX_EPOCH,
        };
        let state = RolloutState {
            stable: Some(stable),
            ..RolloutState::default()
        };
        let names: Vec<_> = garbage(&state, &revisions, 2)
            .iter()
            .map(|old| old.spec.number)
            .collect();
        assert_eq!(names, [4, 3, 2]);
        assert!(garbage(&state, &revisions, 10).is_empty());
    }
}
