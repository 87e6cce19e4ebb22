//! Derives the status that a node reports to operators and on its debug pages. Pure.

use std::collections::BTreeSet;

use node_api::ExceptionReason;
use node_api::v1::{LoadState, NodeException, RevisionState};
use node_shim_core::instance_reuse::{TOLERATED_RERUNS, WINDOW};
use node_shim_core::table::{FunctionKey, RevisionName, TrafficSplit};

use super::node::Node;
use super::records::Record;
use crate::node_api::{NodeStatus, limit_exceptions};

/// Error of the node's disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskFailure<'a> {
    pub(crate) message: &'a str,
    /// Time of the first failed write, in ms since the Unix epoch.
    pub(crate) since: u64,
}

/// Describes the node.
pub(crate) fn describe(
    node: &Node,
    disk_failure: Option<DiskFailure<'_>>,
    ready: bool,
) -> NodeStatus {
    let mut revisions = Vec::new();
    let mut in_rollout = BTreeSet::new();
    let (mut desired, mut loaded, mut failed) = (0u32, 0u32, 0u32);
    for (key, record) in node.records.iter() {
        let split = &record.parsed.entry.split;
        if split.in_rollout {
            in_rollout.insert(key.clone());
        }
        let states = states(node, key, record);
        desired += 1;
        failed += u32::from(
            states
                .iter()
                .any(|state| state.state() == LoadState::Failed),
        );
        loaded += u32::from(states.iter().any(|state| {
            state.state() == LoadState::Loaded
                && main_revision(split).is_some_and(|main| main.as_str() == state.revision)
        }));
        revisions.extend(states);
    }
    in_rollout.extend(node.removed_functions.in_rollout().cloned());
    let (exceptions, exceptions_dropped) = limit_exceptions(exceptions(node, disk_failure));
    NodeStatus {
        applied: node.records.version(),
        have: node.records.have(),
        have_remote: node.records.remote.is_complete(),
        remote: node.records.remote.keys().cloned().collect(),
        revisions,
        exceptions,
        exceptions_dropped,
        functions_desired: desired,
        functions_loaded: loaded,
        functions_failed: failed,
        ready,
        in_rollout,
        counter_generation: node.removed_functions.counter_generation(),
    }
}

/// Returns the revision that has to be loaded for the function to count as loaded.
fn main_revision(split: &TrafficSplit) -> Option<&RevisionName> {
    split.stable.as_ref().or(split.candidate.as_ref())
}

fn states(node: &Node, key: &FunctionKey, record: &Record) -> Vec<RevisionState> {
    let token = record.parsed.entry.split.token;
    record
        .parsed
        .definitions
        .keys()
        .map(|name| {
            let id = (key.clone(), name.clone());
            let problem = node.problems.get(&id);
            let state = match problem {
                Some(_) => LoadState::Failed,
                None if node.is_live(&id) => LoadState::Loaded,
                None => LoadState::Loading,
            };
            RevisionState {
                function: Some(key.into()),
                revision: name.to_string(),
                state: state.into(),
                permanent: problem.is_some_and(|problem| problem.permanent),
                applied: Some(token.into()),
            }
        })
        .collect()
}

fn exceptions(node: &Node, disk_failure: Option<DiskFailure<'_>>) -> Vec<NodeException> {
    let mut all: Vec<NodeException> = node
        .problems
        .iter()
        .map(|((key, revision), problem)| NodeException {
            function: Some(key.into()),
            revision: revision.to_string(),
            reason: problem.reason.name().into(),
            message: problem.message.clone(),
            since: problem.since,
        })
        .collect();
    all.extend(unsafe_reuse(node));
    all.extend(
        node.records
            .quarantined()
            .map(|(key, quarantine)| NodeException {
                function: Some(key.into()),
                revision: String::new(),
                reason: ExceptionReason::RecordRefused.name().into(),
                message: quarantine.error.to_string(),
                since: quarantine.since,
            }),
    );
    all.extend(disk_failure.map(|failure| NodeException {
        function: None,
        revision: String::new(),
        reason: ExceptionReason::DiskFull.name().into(),
        message: failure.message.into(),
        since: failure.since,
    }));
    all
}

/// Returns the exceptions of the revisions that run, but do not reuse instances any longer.
fn unsafe_reuse(node: &Node) -> impl Iterator<Item = NodeException> {
    node.unsafe_reuse().map(|((key, revision), since)| NodeException {
        function: Some(key.into()),
        revision: revision.to_string(),
        reason: ExceptionReason::ReuseUnsafe.name().into(),
        message: format!(
            "more than {TOLERATED_RERUNS} of {WINDOW} requests failed on an instance that had answered others and ran again \
             on a fresh one; every request gets a fresh instance now, so remove spec.instances.reuse or mend the component"
        ),
        since,
    })
}
