//! The list of nodes: those with problems first, filtered by name and state, in pages. It is made of the `EdgeNode` objects, which
//! every replica watches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crds::conditions::types;
use crds::{EdgeNode, EdgeNodeStatus, NodeException};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Deserialize, Serialize};

use super::list::PAGE;
use crate::reconcile::conditions::find;

/// Maximum number of problems of a node in the list. `kubectl get en NAME -o yaml` has all that are known.
const PROBLEMS: usize = 3;

/// State of a node. The list has the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum NodeState {
    /// The node-shim has sent nothing for some time.
    NoContact,
    /// The node-shim is connected and does not serve.
    NotReady,
    /// The node reports problems, such as revisions that it cannot load.
    HasProblems,
    /// The node still loads functions.
    Loading,
    /// The operator has not reported on the node yet.
    Unknown,
    /// The node serves all its functions.
    Serving,
}

/// What of the list a client asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NodeQuery {
    /// Part of the name. Empty: all nodes.
    pub(super) text: String,
    /// Only nodes in this state.
    pub(super) state: Option<NodeState>,
    /// Number of nodes before the first row.
    pub(super) from: usize,
}

/// A node as a row of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeRow {
    pub(super) name: String,
    /// Text by which rows are sorted: by state and name.
    pub(super) order: String,
    pub(super) state: NodeState,
    /// Time since which the node has been ready, or has not, in milliseconds since 1970.
    since: Option<i64>,
    /// Time of the last contact of a node without contact, in milliseconds since 1970. For others it is not exact.
    last_contact: Option<i64>,
    /// Version of the node-shim.
    version: String,
    desired: u32,
    loaded: u32,
    failed: u32,
    /// Region and zone.
    place: String,
    /// The first problems that the node reports.
    problems: Vec<Problem>,
    /// Number of problems that are known, also of those that are left out.
    problem_count: usize,
}

/// A problem of a node with a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    namespace: String,
    function: String,
    revision: String,
    reason: String,
    message: String,
}

/// Number of nodes in each state.
pub(super) type NodeCounts = BTreeMap<&'static str, usize>;

/// A page of the list.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodePage {
    /// Number of nodes that match the query, on all pages.
    pub(super) total: usize,
    pub(super) from: usize,
    /// Maximum number of rows.
    pub(super) size: usize,
    pub(super) counts: NodeCounts,
    pub(super) rows: Vec<NodeRow>,
    /// Name of the replica that answered.
    pub(super) replica: String,
}

/// The order of the list, which is updated with each change of a node.
#[derive(Debug, Default)]
pub(super) struct NodeList {
    states: HashMap<Arc<str>, NodeState>,
    ordered: BTreeSet<(NodeState, Arc<str>)>,
    counts: BTreeMap<NodeState, usize>,
}

impl NodeState {
    const ALL: [Self; 6] = [
        Self::NoContact,
        Self::NotReady,
        Self::HasProblems,
        Self::Loading,
        Self::Unknown,
        Self::Serving,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::NoContact => "NoContact",
            Self::NotReady => "NotReady",
            Self::HasProblems => "HasProblems",
            Self::Loading => "Loading",
            Self::Unknown => "Unknown",
            Self::Serving => "Serving",
        }
    }

    fn of(status: Option<&EdgeNodeStatus>) -> Self {
        let Some(status) = status else {
            return Self::Unknown;
        };
        let Some(ready) = find(&status.conditions, types::READY) else {
            return Self::Unknown;
        };
        let is_true = |condition: &Condition| condition.status == "True";
        let converged = find(&status.conditions, types::CONVERGED);
        let failed = status.functions.as_ref().map_or(0, |it| it.failed);
        match ready.reason.as_str() {
            "NoContact" => Self::NoContact,
            _ if !is_true(ready) => Self::NotReady,
            _ if failed > 0 || !status.exceptions.is_empty() => Self::HasProblems,
            _ if !converged.is_some_and(is_true) => Self::Loading,
            _ => Self::Serving,
        }
    }
}

impl NodeQuery {
    /// Reads the query of a URL.
    ///
    /// # Errors
    /// A parameter is unknown or invalid; the sentence names it.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut parsed: Self = serde_urlencoded::from_str(query.unwrap_or_default())
            .map_err(|error| format!("The query cannot be read: {error}."))?;
        parsed.text = parsed.text.trim().to_ascii_lowercase();
        Ok(parsed)
    }
}

impl NodeRow {
    pub(super) fn of(node: &EdgeNode) -> Self {
        let name = node.metadata.name.clone().unwrap_or_default();
        let state = NodeState::of(node.status.as_ref());
        let empty = EdgeNodeStatus::default();
        let status = node.status.as_ref().unwrap_or(&empty);
        let functions = status.functions.clone().unwrap_or_default();
        let place: Vec<&str> = [&status.region, &status.zone]
            .into_iter()
            .filter_map(|it| it.as_deref())
            .collect();
        let ready = find(&status.conditions, types::READY);
        let contact = status.last_contact.as_ref();
        Self {
            order: format!("{} {name}", state as u8),
            name,
            state,
            since: ready.map(|it| it.last_transition_time.0.as_millisecond()),
            last_contact: contact
                .filter(|_| state == NodeState::NoContact)
                .map(|at| at.0.as_millisecond()),
            version: status.shim_version.clone().unwrap_or_default(),
            desired: functions.desired,
            loaded: functions.loaded,
            failed: functions.failed,
            place: place.join(" / "),
            problems: status
                .exceptions
                .iter()
                .take(PROBLEMS)
                .map(Problem::of)
                .collect(),
            problem_count: status.exceptions.len(),
        }
    }
}

impl Problem {
    fn of(exception: &NodeException) -> Self {
        Self {
            namespace: exception.namespace.clone(),
            function: exception.function.clone(),
            revision: exception.revision.clone(),
            reason: exception.reason.clone(),
            message: exception.message.clone().unwrap_or_default(),
        }
    }
}

impl NodeList {
    /// Takes over the newest version of a node; `None` if it was deleted.
    pub(super) fn update(&mut self, name: &Arc<str>, node: Option<&EdgeNode>) {
        let new = node.map(|node| NodeState::of(node.status.as_ref()));
        let old = match new {
            Some(state) => self.states.insert(Arc::clone(name), state),
            None => self.states.remove(name),
        };
        if old == new {
            return;
        }
        if let Some(state) = old {
            self.ordered.remove(&(state, Arc::clone(name)));
            if let Some(count) = self.counts.get_mut(&state) {
                *count = count.saturating_sub(1);
            }
        }
        if let Some(state) = new {
            self.ordered.insert((state, Arc::clone(name)));
            *self.counts.entry(state).or_default() += 1;
        }
    }

    /// Returns the number of matching nodes, and the names of those of a page. Only filters look at nodes outside of the page.
    pub(super) fn page(&self, query: &NodeQuery) -> (usize, Vec<Arc<str>>) {
        let names = |(_, name): &(NodeState, Arc<str>)| Arc::clone(name);
        if query.text.is_empty() && query.state.is_none() {
            let page = self.ordered.iter().skip(query.from).take(PAGE);
            return (self.ordered.len(), page.map(names).collect());
        }
        let matching = self.ordered.iter().filter(|(state, name)| {
            name.contains(&*query.text) && query.state.is_none_or(|wanted| wanted == *state)
        });
        let page = matching.clone().skip(query.from).take(PAGE);
        (matching.clone().count(), page.map(names).collect())
    }

    /// Returns the number of nodes in each state.
    pub(super) fn counts(&self) -> NodeCounts {
        let count = |state| self.counts.get(&state).copied().unwrap_or(0);
        NodeState::ALL
            .into_iter()
            .map(|state| (state.as_str(), count(state)))
            .collect()
    }
}
