//! Which processes the nodes have reported, so that samples from elsewhere can be attributed to them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Fleet, Node, view};

/// How long a process that has ended is known: as long as samples of it are read.
const RETENTION: Duration = Duration::from_secs(20 * 60);
/// Maximum number of ended processes that are known per node.
const MAX_ENDED: usize = 32;

/// Processes of all nodes: the start of each in Unix milliseconds, as the authenticated node reported it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes(BTreeMap<String, BTreeSet<u64>>);

impl Processes {
    /// Whether the node has reported a process that started at that time.
    #[must_use]
    pub fn has(&self, node: &str, boot: u64) -> bool {
        self.0.get(node).is_some_and(|boots| boots.contains(&boot))
    }

    /// Whether the node is known.
    #[must_use]
    pub fn has_node(&self, node: &str) -> bool {
        self.0.contains_key(node)
    }

    /// Returns the number of processes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Whether no node has reported a process.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<String>> FromIterator<(N, u64)> for Processes {
    fn from_iter<I: IntoIterator<Item = (N, u64)>>(processes: I) -> Self {
        let mut all = Self::default();
        for (node, boot) in processes {
            all.0.entry(node.into()).or_default().insert(boot);
        }
        all
    }
}

/// Processes of one node that have no stream any more, and the time of their last contact.
#[derive(Debug, Default)]
pub(super) struct Ended(BTreeMap<u64, Instant>);

impl Ended {
    /// Remembers a process whose session is dropped.
    pub(super) fn remember(&mut self, boot: u64, last_contact: Instant) {
        let last = self.0.entry(boot).or_insert(last_contact);
        *last = last_contact.max(*last);
        if self.0.len() > MAX_ENDED
            && let Some(oldest) = self.0.iter().min_by_key(|(_, last)| **last)
        {
            let oldest = *oldest.0;
            self.0.remove(&oldest);
        }
    }
}

fn boots(node: &Node, now: Instant) -> impl Iterator<Item = u64> {
    let present = node.sessions.values().map(|session| session.hello.boot_id);
    let ended = node.ended.0.iter();
    let ended = ended.filter(move |(_, last)| **last + RETENTION >= now);
    present.chain(ended.map(|(boot, _)| *boot))
}

impl Fleet {
    /// Returns the processes that the nodes have reported, including those that ended in the last twenty minutes.
    pub fn processes(&self) -> Processes {
        let now = Instant::now();
        let state = self.lock();
        let known = state.nodes.iter();
        let known = known.filter(|(_, node)| view::representative(node).is_some());
        known
            .flat_map(|(name, node)| boots(node, now).map(move |boot| (name.clone(), boot)))
            .collect()
    }
}
