//! The status of the revisions of a function: when each was promoted, and whether the nodes have loaded it.
//!
//! It is written with each transition of the rollout. In between it follows the nodes: a revision that is loaded, or that
//! nothing serves any longer, is reported at once, and one that is no longer loaded after a few seconds, because a node-shim
//! that restarts needs a moment to load its code. These writes share the rate of those for functions at rest.

use std::sync::Arc;

use crds::conditions::types;
use crds::{EdgeRevision, EdgeRevisionStatus, RevisionNodes};
use jiff::Timestamp;
use kube::Api;
use operator_core::rollout::{NodesView, RolloutState};
use operator_core::status_rate::NodeStatusChange;

use super::api::{self, CallError};
use super::conditions::{self, Report, condition};
use super::context::FunctionContext;
use super::core_input::named;
use super::stages::{Made, Target};
use super::status_rate_limit::Admitted;

/// Writes what a transition changed.
///
/// # Errors
/// A call failed.
pub(super) async fn report(
    target: Target<'_>,
    api: &Api<EdgeRevision>,
    made: &Made,
) -> Result<(), CallError> {
    let state = &made.decision.state;
    let seen = made.measured.nodes.reports();
    let view = seen.view(state, &named(state, &made.function));
    write(target, api, made, &view).await
}

/// Writes what nodes changed since the last transition, at the rate of [`operator_core::status_rate`].
///
/// # Errors
/// A call failed.
pub(super) async fn follow_nodes(
    target: Target<'_>,
    api: &Api<EdgeRevision>,
    made: &Made,
    context: &mut FunctionContext,
) -> Result<(), CallError> {
    let view = &made.measured.input.nodes;
    let revisions = made.observed.snapshot.revisions.iter();
    let changes = revisions.map(|revision| change(&made.decision.state, view, revision));
    let mut change = changes.fold(NodeStatusChange::None, |all, one| match (all, one) {
        // A revision that may be loaded again in a moment does not delay the others.
        (NodeStatusChange::Settled, _) | (_, NodeStatusChange::Settled) => {
            NodeStatusChange::Settled
        }
        (NodeStatusChange::None, one) => one,
        (all, _) => all,
    });
    if change != NodeStatusChange::None && !target.ctx.fleet.expected_nodes().is_empty() {
        change = NodeStatusChange::None;
    }
    let writes = &target.ctx.status_rate_limit;
    context.revisions_due = None;
    match writes.admit(&mut context.revision_limit, change) {
        Admitted::Idle => Ok(()),
        Admitted::Write => write(target, api, made, view).await,
        Admitted::Wait(until) => {
            context.revisions_due = Some(until);
            Ok(())
        }
    }
}

async fn write(
    target: Target<'_>,
    api: &Api<EdgeRevision>,
    made: &Made,
    view: &NodesView,
) -> Result<(), CallError> {
    let state = &made.decision.state;
    // soon after a start not all nodes have reported, and what the last leader knew is nearer to the truth
    let view = Some(view).filter(|_| target.ctx.fleet.expected_nodes().is_empty());
    for revision in &made.observed.snapshot.revisions {
        let name = name_of(revision);
        let old = revision.status.clone().unwrap_or_default();
        let new = match role(state, name) {
            Some(role) => status(&old, role.promoted, view, name, made.at),
            None if is_loaded(&old) == Some(true) => not_served(&old, made.at),
            None => continue,
        };
        let (old, new) = (serde_json::to_value(old), serde_json::to_value(new));
        let (Ok(old), Ok(new)) = (old, new) else {
            continue;
        };
        let Some(change) = super::status::merge_patch(&old, &new) else {
            continue;
        };
        let patch = serde_json::json!({ "status": change });
        match api::patch_status(api, name, &patch).await {
            Ok(mut written) => {
                written.metadata.managed_fields = None;
                target.ctx.caches.revisions.learn(written);
            }
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How the written condition `Loaded` of a revision differs from what nodes report.
fn change(
    state: &RolloutState,
    view: &NodesView,
    revision: &Arc<EdgeRevision>,
) -> NodeStatusChange {
    let name = name_of(revision);
    let written = revision.status.as_ref().and_then(is_loaded);
    if role(state, name).is_none() {
        return if written == Some(true) {
            NodeStatusChange::Settled
        } else {
            NodeStatusChange::None
        };
    }
    // What nodes have is not known while none of them can be reached.
    if view.desired > 0 && view.live == 0 {
        return NodeStatusChange::None;
    }
    match (written == Some(true), is_on_all(view, name)) {
        (true, true) | (false, false) => NodeStatusChange::None,
        (false, true) => NodeStatusChange::Settled,
        // a restart of a node-shim ends before this is due
        (true, false) => NodeStatusChange::Rising,
    }
}

/// Why nodes load a revision.
struct Role {
    /// Since when it is stable, if it is.
    promoted: Option<Timestamp>,
}

/// The role that a revision has in the state, if it has one.
fn role(state: &RolloutState, name: &str) -> Option<Role> {
    let stable = state.stable.as_ref();
    let candidate = state.rollout.as_ref().map(|it| &it.candidate.revision);
    let previous = state.previous.as_ref().map(|it| &it.revision);
    if let Some(stable) = stable.filter(|stable| stable.revision.name == name) {
        let promoted = Some(stable.since);
        return Some(Role { promoted });
    }
    let mut others = candidate.into_iter().chain(previous);
    others
        .any(|revision| revision.name == name)
        .then_some(Role { promoted: None })
}

fn name_of(revision: &EdgeRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// Status of the condition `Loaded`; `None` without the condition.
fn is_loaded(status: &EdgeRevisionStatus) -> Option<bool> {
    let loaded = conditions::find(&status.conditions, types::LOADED)?;
    Some(loaded.status == "True")
}

fn is_on_all(view: &NodesView, name: &str) -> bool {
    view.live > 0 && view.of(name).loaded >= view.live
}

/// Status of a revision that has no part in the traffic any longer.
fn not_served(old: &EdgeRevisionStatus, now: Timestamp) -> EdgeRevisionStatus {
    let report = Report {
        status: conditions::status(false),
        reason: "NotServed",
        message: "nodes do not load it: it is neither stable nor a candidate",
        generation: None,
    };
    EdgeRevisionStatus {
        promoted_at: old.promoted_at.clone(),
        nodes: Some(RevisionNodes::default()),
        conditions: vec![condition(&old.conditions, types::LOADED, report, now)],
    }
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
    let loaded = is_on_all(view, name);
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

#[cfg(test)]
mod tests {
    use operator_core::rollout::RevisionOnNodes;

    use super::*;

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
            revisions: vec![RevisionOnNodes {
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
