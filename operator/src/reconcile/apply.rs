//! Step 7 of a reconcile: node tables and owned objects follow the persisted state.

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::conditions::types;
use crds::{EdgeRevision, EdgeRevisionStatus, RevisionNodes};
use jiff::Timestamp;
use kube::Api;
use operator_core::rollout::{NodesView, RolloutState};

use super::api::{self, CallError};
use super::conditions::{self, Report, condition};
use super::input::named;
use super::pass::{Made, Persisted, Target};
use crate::watch::ObjectKey;

/// Projects the persisted state to the nodes, and brings the revisions in line with it: when each was promoted, how many
/// nodes have loaded it, and which are old enough to be removed.
///
/// # Errors
/// A call failed. The next pass does the same again.
pub(super) async fn apply(
    target: Target<'_>,
    made: &Made,
    persisted: &Persisted,
) -> Result<(), CallError> {
    if let Some(written) = &persisted.written {
        target.ctx.projector.project(target.key, written);
    }
    let has_changed = persisted.written.is_some() && !made.decision.transitions.is_empty();
    if !persisted.first && !has_changed {
        return Ok(());
    }
    let Target { ctx, key, .. } = target;
    let api: Api<EdgeRevision> = Api::namespaced(ctx.client.clone(), &key.namespace);
    report_revisions(target, &api, made).await?;
    remove_revisions(&api, key, made).await
}

async fn report_revisions(
    target: Target<'_>,
    api: &Api<EdgeRevision>,
    made: &Made,
) -> Result<(), CallError> {
    let state = &made.decision.state;
    let seen = made.measured.nodes.reports();
    let view = seen.view(state, &named(state, &made.function));
    // soon after a start not all nodes have reported, and what the last leader knew is nearer to the truth
    let view = Some(view).filter(|_| target.ctx.fleet.awaited().is_empty());
    let stable = state.stable.as_ref();
    let candidate = state
        .rollout
        .as_ref()
        .map(|rollout| &rollout.candidate.revision.name);
    for revision in &made.observed.snapshot.revisions {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let promoted = stable
            .filter(|stable| stable.revision.name == name)
            .map(|stable| stable.since);
        if promoted.is_none() && candidate.is_none_or(|candidate| candidate != name) {
            continue;
        }
        let old = revision.status.clone().unwrap_or_default();
        let new = status(&old, promoted, view.as_ref(), name, made.at);
        let (old, new) = (serde_json::to_value(old), serde_json::to_value(new));
        let (Ok(old), Ok(new)) = (old, new) else {
            continue;
        };
        let Some(change) = super::status::merge_patch(&old, &new) else {
            continue;
        };
        let patch = serde_json::json!({ "status": change });
        match api::patch_status(api, name, &patch).await {
            Ok(_) => {}
            Err(error) if error.is_gone() => {}
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

/// The revision's status; a moment of promotion is never taken back. Without a view what is written about nodes stays.
fn status(
    old: &EdgeRevisionStatus,
    promoted: Option<Timestamp>,
    view: Option<&NodesView>,
    name: &str,
    now: Timestamp,
) -> EdgeRevisionStatus {
    let at = promoted.map(crate::persist::time).filter(|at| {
        old.promoted_at
            .as_ref()
            .is_none_or(|old| old.0.as_second() < at.0.as_second())
    });
    let promoted_at = at.or_else(|| old.promoted_at.clone());
    let Some(view) = view else {
        return EdgeRevisionStatus {
            promoted_at,
            ..old.clone()
        };
    };
    let seen = view.of(name);
    let loaded = view.live > 0 && seen.loaded >= view.live;
    let message = format!(
        "{} of {} live nodes have it loaded, {} cannot",
        seen.loaded, view.live, seen.failed
    );
    let report = Report {
        status: conditions::status(loaded),
        reason: if loaded { "Loaded" } else { "Loading" },
        message: &message,
        generation: None,
    };
    EdgeRevisionStatus {
        promoted_at,
        nodes: Some(RevisionNodes {
            loaded: seen.loaded,
            failed: seen.failed,
        }),
        conditions: vec![condition(&old.conditions, types::LOADED, report, now)],
    }
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

    #[test]
    fn a_promotion_is_written_once() {
        let view = NodesView {
            live: 1,
            ..NodesView::default()
        };
        let at = Timestamp::from_millisecond(1_700_000_000_500).unwrap();
        let first = status(
            &EdgeRevisionStatus::default(),
            Some(at),
            Some(&view),
            "r",
            at,
        );
        assert_eq!(first.promoted_at.as_ref().unwrap().0, at);
        let mut stored = first.clone();
        // The API server keeps whole seconds.
        stored.promoted_at = Timestamp::from_second(1_700_000_000)
            .ok()
            .map(crate::persist::time);
        assert_eq!(status(&stored, Some(at), Some(&view), "r", at), stored);
    }

    #[test]
    fn what_nodes_have_loaded_stays_until_all_have_reported() {
        let at = Timestamp::UNIX_EPOCH;
        let nodes = |loaded| NodesView {
            live: 3,
            revisions: vec![operator_core::rollout::RevisionOnNodes {
                revision: "r".into(),
                loaded,
                ..Default::default()
            }],
            ..NodesView::default()
        };
        let old = status(
            &EdgeRevisionStatus::default(),
            None,
            Some(&nodes(3)),
            "r",
            at,
        );
        let promoted = status(&old, Some(at), None, "r", at);
        assert_eq!(
            (&promoted.nodes, &promoted.conditions),
            (&old.nodes, &old.conditions)
        );
        assert!(promoted.promoted_at.is_some());
    }
}
