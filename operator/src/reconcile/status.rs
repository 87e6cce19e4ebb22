//! The status that follows from a decision, and whether it is worth a write. Pure.

use std::collections::BTreeSet;

use crds::conditions::types;
use crds::function::{
    AcceptedStatus, FencingToken, FunctionException, FunctionNodes, Phase, RevisionStatus,
    TrafficEntry,
};
use crds::{EdgeFunction, EdgeFunctionStatus, LABEL_FUNCTION};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use operator_core::function::Function;
use operator_core::rollout::{self as core, NodesCount, RevisionRef, RolloutState, UnknownValues};
use operator_core::status_rate::{NodeCounts, NodeStatusChange};
use serde_json::Value;

use super::conditions::{Report, condition, find};
use super::desired::{DesiredRevision, Finding};
use super::moving::MOVING;
use crate::persist;

/// Everything a status is made of.
pub(super) struct Parts<'a> {
    pub(super) object: &'a EdgeFunction,
    pub(super) function: &'a Function,
    pub(super) desired: &'a DesiredRevision,
    pub(super) state: &'a RolloutState,
    pub(super) exceptions: Vec<FunctionException>,
    /// Nodes that serve the function, to remember.
    pub(super) serving: Vec<String>,
    /// The sentence about a function that moves to entirely other nodes.
    pub(super) moving: Option<String>,
    /// Values of Secrets that nodes may lack and that the operator does not know.
    pub(super) unknown: Option<UnknownValues>,
    /// Why nodes cannot use a certificate that a route names.
    pub(super) certificate_problem: Option<&'a str>,
    pub(super) epoch: u64,
    pub(super) now: Timestamp,
}

const EXCEPTIONS: usize = 8;
const URLS: usize = 16;

/// Builds the whole status.
pub(super) fn build(parts: &Parts<'_>) -> Result<EdgeFunctionStatus, serde_json::Error> {
    let Parts {
        object,
        function,
        desired,
        state,
        now,
        ..
    } = parts;
    let old = object.status.clone().unwrap_or_default();
    let sentence = core::message(*now, function, state);
    // requests that get 503 matter more to users than the progress of the rollout
    let lacking = parts
        .unknown
        .as_ref()
        .filter(|unknown| !unknown.lacking.is_empty());
    let message = match (&desired.blocked, lacking) {
        (Some(_), _) if is_undecided(parts, &old) => old.message.clone().unwrap_or_default(),
        (Some(blocked), _) => blocked.message.clone(),
        (None, Some(unknown)) => core::unknown_values(function, state, unknown),
        (None, None) => {
            let at_rest = state.state == core::State::Idle;
            let certificate = parts.certificate_problem.filter(|_| !function.suspend);
            let problem = certificate.or(parts.moving.as_deref());
            let problem = problem.filter(|_| at_rest);
            problem.unwrap_or(&sentence).to_owned()
        }
    };
    let mut rollout = persist::rollout(state);
    rollout.working_record = Some(persist::encode(state)?);
    let accepted = accepted(parts, &old);
    let routes = accepted
        .as_ref()
        .map(|accepted| accepted.routes.as_slice())
        .unwrap_or_default();
    let observed = if desired.unsettled {
        old.observed_generation
    } else {
        object.metadata.generation
    };
    let derived = derived(parts, &sentence);
    Ok(EdgeFunctionStatus {
        observed_generation: observed,
        phase: phase(parts, &old, &derived),
        message: Some(message.chars().take(4000).collect()),
        urls: urls(routes),
        resolved: desired.digest.clone().or(old.resolved.clone()),
        stable: state.stable.as_ref().map(role),
        candidate: state
            .rollout
            .as_ref()
            .map(|rollout| role(&rollout.candidate)),
        traffic: core::traffic(state)
            .into_iter()
            .map(|(revision, weight)| TrafficEntry {
                revision,
                weight: weight.parts(),
            })
            .collect(),
        nodes: Some(nodes(parts)),
        history: persist::history(state),
        replicas: Some(state.nodes.desired),
        selector: Some(format!("{LABEL_FUNCTION}={}", function.name)),
        conditions: conditions(parts, &old, derived, observed),
        rollout: Some(rollout),
        accepted,
    })
}

/// Whether the status already reports on the present spec, and what the spec refers to is still being read. A leader that
/// starts reads it within moments, so what was reported stays: a function must not leave Ready because of a start.
fn is_undecided(parts: &Parts<'_>, old: &EdgeFunctionStatus) -> bool {
    parts.desired.is_reading
        && old.observed_generation.is_some()
        && old.observed_generation == parts.object.metadata.generation
}

/// What takes effect without a rollout: the newest accepted spec, else what was accepted before.
fn accepted(parts: &Parts<'_>, old: &EdgeFunctionStatus) -> Option<AcceptedStatus> {
    let Some(spec) = parts.desired.spec.as_ref() else {
        return old.accepted.clone();
    };
    let generation = parts.object.metadata.generation.unwrap_or(0);
    let mut next = AcceptedStatus {
        generation,
        version: None,
        routes: spec.routes.clone(),
        placement: Some(spec.placement.clone())
            .filter(|placement| *placement != Default::default()),
        callers: spec.callers.clone(),
        suspend: spec.suspend,
    };
    let before = old.accepted.as_ref();
    next.version = match before {
        Some(before) if same_effect(before, &next) => before.version.clone(),
        _ => {
            // Versions rise over the whole cluster, so a function that is deleted and made again under
            // its name is above what nodes may still remember of the former one.
            let last = before
                .and_then(|before| before.version.as_ref())
                .map_or(0, |token| token.serial);
            let serial = (last + 1).max(crate::watch::version(parts.object));
            Some(FencingToken {
                epoch: parts.epoch,
                serial,
            })
        }
    };
    Some(next)
}

fn same_effect(left: &AcceptedStatus, right: &AcceptedStatus) -> bool {
    left.version.is_some()
        && left.routes == right.routes
        && left.placement == right.placement
        && left.callers == right.callers
        && left.suspend == right.suspend
}

/// The conditions that follow from the rollout, its nodes, and the Secrets that it needs.
fn derived(parts: &Parts<'_>, sentence: &str) -> Vec<core::Condition> {
    let Parts {
        function,
        desired,
        state,
        ..
    } = parts;
    let mut derived = core::conditions(function, state, desired.blocked.as_ref(), sentence);
    if let Some(unknown) = &parts.unknown {
        core::report_unknown_values(&mut derived, function, state, unknown);
    }
    if let Some(problem) = parts.certificate_problem {
        core::report_unusable_certificate(&mut derived, problem);
    }
    derived
}

fn phase(
    parts: &Parts<'_>,
    old: &EdgeFunctionStatus,
    derived: &[core::Condition],
) -> Option<Phase> {
    if is_undecided(parts, old) {
        return old.phase;
    }
    let phase = core::phase(parts.function, parts.state, derived);
    let mut known = Phase::ALL.iter().copied();
    known.find(|known| known.as_str() == phase.as_str())
}

fn conditions(
    parts: &Parts<'_>,
    old: &EdgeFunctionStatus,
    derived: Vec<core::Condition>,
    observed: Option<i64>,
) -> Vec<Condition> {
    let Parts { desired, now, .. } = parts;
    let mut found: Vec<(&str, Finding)> = derived
        .into_iter()
        .map(|condition| {
            (
                condition.kind.as_str(),
                Finding {
                    status: condition.status.as_str(),
                    reason: condition.reason,
                    message: condition.message,
                },
            )
        })
        .collect();
    if let Some(text) = &parts.moving {
        report_moving(&mut found, text);
    }
    if is_undecided(parts, old) {
        found
            .retain(|(kind, _)| ![types::READY, types::RECONCILING, types::STALLED].contains(kind));
    }
    for (kind, finding) in [
        (types::ACCEPTED, &desired.accepted),
        (types::RESOLVED, &desired.resolved),
        (types::COMPATIBLE, &desired.compatible),
    ] {
        found.extend(finding.clone().map(|finding| (kind, finding)));
    }
    let mut merged: Vec<Condition> = old
        .conditions
        .iter()
        .filter(|condition| !found.iter().any(|(kind, _)| *kind == condition.type_))
        .cloned()
        .collect();
    for (kind, finding) in found {
        let report = Report {
            status: finding.status,
            reason: &finding.reason,
            message: &finding.message,
            generation: observed,
        };
        merged.push(condition(&old.conditions, kind, report, *now));
    }
    merged.sort_by(|left, right| left.type_.cmp(&right.type_));
    merged
}

/// Says in `Distributed` that the function moves, unless the condition has a worse problem.
fn report_moving(found: &mut [(&str, Finding)], text: &str) {
    let worse = [core::SECRETS_UNAVAILABLE, core::CERTIFICATE_UNUSABLE];
    for (kind, finding) in found {
        if *kind == types::DISTRIBUTED && !worse.contains(&finding.reason.as_str()) {
            *finding = Finding {
                status: "False",
                reason: MOVING.to_owned(),
                message: text.to_owned(),
            };
        }
    }
}

fn nodes(parts: &Parts<'_>) -> FunctionNodes {
    let mut exceptions = parts.exceptions.clone();
    exceptions.truncate(EXCEPTIONS);
    let count = &parts.state.nodes;
    FunctionNodes {
        desired: count.desired,
        loaded: count.loaded,
        applied: count.applied,
        failed: count.failed,
        summary: Some(format!("{}/{}", count.applied, count.desired)),
        exceptions,
        serving: parts.serving.clone(),
    }
}

fn role(placed: &RevisionRef) -> RevisionStatus {
    RevisionStatus {
        revision: placed.revision.name.clone(),
        digest: Some(placed.revision.digest.clone()),
        since: Some(persist::time(placed.since)),
    }
}

fn urls(routes: &[crds::function::Route]) -> Vec<String> {
    let mut urls = BTreeSet::new();
    for route in routes {
        let scheme = if route.tls.is_some() { "https" } else { "http" };
        for host in &route.hosts {
            let paths: Vec<&str> = if route.paths.is_empty() {
                vec!["/"]
            } else {
                route.paths.iter().map(|path| path.value.as_str()).collect()
            };
            urls.extend(
                paths
                    .into_iter()
                    .map(|path| format!("{scheme}://{host}{path}")),
            );
        }
    }
    urls.into_iter().take(URLS).collect()
}

/// How much two statuses differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// Not at all, or in figures that the next checkpoint includes.
    None,
    /// In the progress of nodes with a function at rest, which is written at the rate of [`operator_core::status_rate`].
    Nodes(NodeStatusChange),
    /// In fields that users and controllers wait for.
    Plain,
}

/// Compares the persisted status with the new one.
pub(super) fn difference(
    old: &EdgeFunctionStatus,
    new: &EdgeFunctionStatus,
    counted: &NodesCount,
) -> Difference {
    let spec = |status: &EdgeFunctionStatus| {
        let found: Vec<_> = [types::ACCEPTED, types::RESOLVED, types::COMPATIBLE]
            .into_iter()
            .filter_map(|kind| {
                status
                    .conditions
                    .iter()
                    .find(|condition| condition.type_ == kind)
            })
            .map(|condition| {
                (
                    condition.type_.clone(),
                    condition.status.clone(),
                    condition.reason.clone(),
                    condition.message.clone(),
                )
            })
            .collect();
        // unknown values, unusable certificates and moves are reported at once, also while a rollout runs
        let unknown = status.conditions.iter().find(|condition| {
            let reason = condition.reason.as_str();
            condition.type_ == types::DISTRIBUTED
                && [core::SECRETS_UNAVAILABLE, core::SECRETS_IN_MEMORY_ONLY].contains(&reason)
        });
        let explained = find(&status.conditions, types::DISTRIBUTED).filter(|condition| {
            [core::CERTIFICATE_UNUSABLE, MOVING].contains(&condition.reason.as_str())
        });
        (
            found,
            unknown.map(|condition| condition.reason.clone()),
            explained.map(|condition| condition.message.clone()),
            status.observed_generation,
            status.resolved.clone(),
            status.accepted.clone(),
        )
    };
    if spec(old) != spec(new) || is_moved(old, new) {
        return Difference::Plain;
    }
    if new.candidate.is_some() {
        return Difference::None;
    }
    let other = |status: &EdgeFunctionStatus| {
        let found: Vec<_> = status
            .conditions
            .iter()
            .map(|condition| {
                (
                    condition.type_.clone(),
                    condition.status.clone(),
                    condition.reason.clone(),
                )
            })
            .collect();
        let reconciling = find(&status.conditions, types::RECONCILING);
        let works_on = reconciling.map(|condition| condition.message.clone());
        let desired = status.nodes.as_ref().map(|nodes| nodes.desired);
        // These differ here only after another writer changed them. That is corrected at the rate of the node figures.
        let revision = |role: &Option<RevisionStatus>| role.as_ref().map(|it| it.revision.clone());
        let roles = (revision(&status.stable), revision(&status.candidate));
        (
            found,
            works_on,
            desired,
            status.phase,
            roles,
            status.traffic.clone(),
        )
    };
    let (before, differs) = (counts(old), other(old) != other(new));
    if !differs && before == counts(new) {
        // a node may say why it does not serve only after its count was written
        return if problems(old) == problems(new) {
            Difference::None
        } else {
            Difference::Nodes(NodeStatusChange::Rising)
        };
    }
    Difference::Nodes(NodeStatusChange::between(
        before.unwrap_or_default(),
        counted,
        differs,
    ))
}

/// Whether the function has arrived on entirely other nodes, so that the former ones may drop it.
fn is_moved(old: &EdgeFunctionStatus, new: &EdgeFunctionStatus) -> bool {
    let serving = |status: &EdgeFunctionStatus| {
        let nodes = status.nodes.as_ref();
        nodes.map_or_else(BTreeSet::new, |nodes| {
            nodes.serving.iter().cloned().collect()
        })
    };
    let (before, now): (BTreeSet<String>, _) = (serving(old), serving(new));
    !before.is_empty() && before.is_disjoint(&now)
}

fn counts(status: &EdgeFunctionStatus) -> Option<NodeCounts> {
    status.nodes.as_ref().map(|nodes| NodeCounts {
        applied: nodes.applied,
        loaded: nodes.loaded,
        failed: nodes.failed,
    })
}

/// Why nodes do not serve, without the words that may differ between two attempts.
fn problems(status: &EdgeFunctionStatus) -> Vec<(&str, &str, &str)> {
    let nodes = status.nodes.iter();
    let exceptions = nodes.flat_map(|nodes| &nodes.exceptions);
    exceptions
        .map(|one| {
            (
                one.node.as_str(),
                one.revision.as_str(),
                one.reason.as_str(),
            )
        })
        .collect()
}

/// A JSON merge patch that turns `old` into `new`; `None` when they are equal.
pub(crate) fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        _ if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = serde_json::Map::new();
            for (key, value) in new {
                match old.get(key) {
                    Some(before) => {
                        patch.extend(merge_patch(before, value).map(|change| (key.clone(), change)))
                    }
                    None => drop(patch.insert(key.clone(), value.clone())),
                }
            }
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            Some(Value::Object(patch))
        }
        _ => Some(new.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_names_only_what_changed() {
        let old = json!({"a": 1, "b": {"c": 2, "d": [1, 2]}, "e": 5});
        let new = json!({"a": 1, "b": {"c": 3, "d": [1]}, "f": null});
        let patch = merge_patch(&old, &new).unwrap();
        assert_eq!(
            patch,
            json!({"b": {"c": 3, "d": [1]}, "e": null, "f": null})
        );
        assert_eq!(merge_patch(&new, &new), None);
    }

    #[test]
    fn the_scheme_of_a_url_is_that_of_its_route() {
        let routes = serde_json::json!([
            { "hosts": ["a.example"], "tls": { "secretRef": { "name": "a" } } },
            { "hosts": ["b.example"], "paths": [{ "type": "PathPrefix", "value": "/b" }] },
        ]);
        let routes: Vec<crds::function::Route> = serde_json::from_value(routes).unwrap();
        assert_eq!(urls(&routes), ["http://b.example/b", "https://a.example/"]);
    }
}
