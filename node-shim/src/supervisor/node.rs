//! State of the node, and what is derived from it: the components to load, the table of the data plane, the
//! status for operators and the state on disk. One task owns it; every step ends with [`Node::reconcile`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_api::ExceptionReason;
use node_api::v1::{SnapshotPhase, Welcome};
use node_shim_core::desired::{
    Failure, LoadLimits, LoadState, LoadTracker, QueuedLoad, RevisionRole, RevisionToLoad,
    Supervision, load_order,
};
use node_shim_core::memory_pressure::MemoryPressure;
use node_shim_core::table::{FunctionKey, RevisionName};
use tracing::Span;
use tracing::field::Empty;

use super::parse_record::Definition;
use super::recent_traffic::RecentTraffic;
use super::records::Records;
use super::removed_functions::RemovedFunctions;
use super::retired_revisions::RetiredRevisions;
use super::state_writer::Snapshot;
use crate::clock::Now;
use crate::code_cache::{CompiledComponent, MappedCode};
use crate::counters::CounterTable;
use crate::disk::{PersistedTable, TableHeader, without_secrets};
use crate::node_api::Event;
use crate::pull::{ComponentRef, sha256_hex};
use crate::revision::Revision;
use crate::routing_table::RoutingTable;

/// Maximum numbers of components that are loaded concurrently, over all stages.
const CONCURRENT_LOADS: LoadLimits = LoadLimits {
    total: 8,
    per_namespace: 4,
};
/// Time after a resumed connection in which changes may still arrive. Without any, the table counts as confirmed.
const RESUME_GRACE: Duration = Duration::from_secs(5);
/// Maximum time that readiness waits for code after the start.
const MAX_WAIT_FOR_CODE: Duration = Duration::from_secs(30);
/// Maximum time that readiness waits for values of Secrets after the start. When no operator is reachable, all
/// other functions are served without them.
const MAX_WAIT_FOR_SECRETS: Duration = Duration::from_secs(10);

/// Identifies a revision on this node.
pub(crate) type RevisionKey = (FunctionKey, RevisionName);

/// Reason why a revision cannot run on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) reason: ExceptionReason,
    pub(crate) message: String,
    pub(crate) permanent: bool,
    /// Time of the first failure with this reason, in ms since the Unix epoch.
    pub(crate) since: u64,
}

/// A revision that serves requests, and the definition from which it was created.
pub(super) struct LiveRevision {
    pub(super) definition: Arc<Definition>,
    pub(super) revision: Arc<Revision>,
}

/// Actions that [`Node::reconcile`] requests.
#[derive(Default)]
pub(crate) struct Actions {
    /// Components to load.
    pub(crate) load: Vec<ComponentRef>,
    /// Routing table to publish to the data plane, if it changed.
    pub(crate) publish: Option<Arc<RoutingTable>>,
}

/// Complete state of a node.
pub(crate) struct Node {
    pub(crate) records: Records,
    pub(crate) loads: LoadTracker,
    pub(crate) problems: BTreeMap<RevisionKey, Problem>,
    pub(crate) recent_traffic: RecentTraffic,
    pub(crate) connected: bool,
    /// Memory pressure on the node.
    pub(crate) pressure: MemoryPressure,
    /// Time of the last contact with an operator, in ms since the Unix epoch; 0 = never.
    pub(crate) last_contact: u64,
    pub(super) supervision: Supervision,
    /// All compiled components by digest, whether their code is mapped or not.
    pub(super) codes: BTreeMap<String, Arc<CompiledComponent>>,
    pub(super) live: BTreeMap<RevisionKey, LiveRevision>,
    pub(super) retired_revisions: RetiredRevisions,
    pub(super) removed_functions: RemovedFunctions,
    /// Digests to load, most urgent first.
    load_queue: Vec<QueuedLoad>,
    /// Digests to which only candidates refer.
    candidate_digests: BTreeSet<String>,
    pub(super) counters: Arc<CounterTable>,
    pub(super) table: Arc<RoutingTable>,
    started: Instant,
    /// Whether the node has been ready.
    was_ready: bool,
    /// The current connection resumed from the table of this node.
    resumed: bool,
    confirm_at: Option<Instant>,
    dirty: Dirty,
}

/// Parts that the next [`Node::reconcile`] has to derive again.
#[derive(Clone, Copy, Default)]
struct Dirty {
    /// The set of components to load may have changed.
    components: bool,
    /// The routing table may have changed.
    table: bool,
    /// The state on disk is out of date.
    disk: bool,
}

impl Node {
    /// Creates the state of a node from the table found on disk.
    pub(crate) fn new(
        table: Option<PersistedTable>,
        recent_traffic: RecentTraffic,
        counters: Arc<CounterTable>,
        default_ttl: Duration,
        now: Now,
    ) -> Self {
        let header = table.as_ref().map(|table| table.header).unwrap_or_default();
        let ttl = match header.unsupervised_ttl_ms {
            0 => default_ttl,
            ms => Duration::from_millis(ms),
        };
        let before = Duration::from_millis(now.wall.saturating_sub(header.last_contact_ms));
        let mut records = Records::default();
        if let Some(table) = table {
            records.restore_table(table, now.wall);
        }
        Self {
            records,
            loads: LoadTracker::default(),
            problems: BTreeMap::new(),
            recent_traffic,
            connected: false,
            pressure: MemoryPressure::None,
            last_contact: header.last_contact_ms,
            supervision: Supervision::new(ttl, before, now.at),
            codes: BTreeMap::new(),
            live: BTreeMap::new(),
            retired_revisions: RetiredRevisions::default(),
            removed_functions: RemovedFunctions::default(),
            load_queue: Vec::new(),
            candidate_digests: BTreeSet::new(),
            counters,
            table: Arc::default(),
            started: now.at,
            was_ready: false,
            resumed: false,
            confirm_at: None,
            dirty: Dirty {
                components: true,
                table: true,
                disk: false,
            },
        }
    }

    /// Handles an event of the connection to the operator.
    pub(crate) fn handle(&mut self, event: Event, now: Now) {
        match event {
            Event::Connected(welcome) => self.connected(&welcome, now),
            Event::Batch(batch) => {
                self.last_contact = now.wall;
                let phase = batch.snapshot();
                let whole = matches!(phase, SnapshotPhase::End | SnapshotPhase::Whole);
                let delta = phase == SnapshotPhase::None;
                if self.records.apply_batch(batch, now.wall) {
                    self.dirty = Dirty {
                        components: true,
                        table: true,
                        disk: true,
                    };
                }
                if whole || (delta && self.resumed) {
                    self.confirm();
                }
            }
            Event::Hint(split) => {
                self.last_contact = now.wall;
                if self.records.apply_hint(&split) {
                    self.dirty.table = true;
                    self.dirty.disk = true;
                }
            }
            Event::Disconnected => {
                self.connected = false;
                self.last_contact = now.wall;
                self.confirm_at = None;
                self.supervision.disconnected(now.at);
                self.dirty.disk = true;
            }
        }
    }

    fn connected(&mut self, welcome: &Welcome, now: Now) {
        let ttl = match welcome.unsupervised_ttl {
            0 => self.supervision.ttl(),
            ms => Duration::from_millis(ms),
        };
        self.connected = true;
        self.last_contact = now.wall;
        self.supervision.connected(ttl);
        self.dirty.table |= self.records.connected(welcome.remote);
        self.resumed = welcome.resumed;
        self.confirm_at = welcome.resumed.then(|| now.at + RESUME_GRACE);
        self.dirty.disk = true;
    }

    fn confirm(&mut self) {
        self.confirm_at = None;
        if self.supervision.expired() {
            self.supervision.confirmed();
            self.dirty.table = true;
        }
    }

    /// Merges the table of the process that owned the disk before this one.
    pub(crate) fn inherit_table(&mut self, table: PersistedTable, now: Now) {
        self.last_contact = self.last_contact.max(table.header.last_contact_ms);
        // the table of this process decides what it still needs
        let complete = self.records.remote.is_complete();
        self.records.restore_table(table, now.wall);
        self.records.remote.set_complete(complete);
        self.dirty = Dirty {
            components: true,
            table: true,
            disk: true,
        };
    }

    /// Handles the result of a load. `random` is a number in [0, 1) for the jitter of the next attempt.
    pub(crate) fn load_finished(
        &mut self,
        digest: &str,
        outcome: Result<MappedCode, Failure>,
        now: Now,
        random: f64,
    ) {
        self.dirty.table = true;
        match outcome {
            Ok(resident) => {
                if self.loads.mark_loaded(digest) {
                    match self.codes.get(digest) {
                        Some(code) => code.fill(resident),
                        None => {
                            let code = CompiledComponent::new(digest, resident);
                            self.codes.insert(digest.to_string(), code);
                        }
                    }
                }
            }
            Err(failed) => {
                tracing::warn!(
                    digest,
                    reason = failed.reason().name(),
                    message = failed.message,
                    permanent = failed.cause.is_permanent(),
                    "cannot load component"
                );
                self.loads.mark_failed(digest, failed, now.at, random);
            }
        }
    }

    /// Handles the loss of a component's native code: the component is loaded again.
    pub(crate) fn code_lost(&mut self, digest: &str) {
        if self.loads.get(digest) == Some(&LoadState::Loaded) {
            self.loads.reset(digest);
            self.dirty.table = true;
        }
    }

    /// Handles the passage of time: contact with the operator, confirmation of the table, retention of counters.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.connected {
            self.last_contact = now.wall;
        }
        if self.supervision.expire(now.at) {
            tracing::warn!(
                "no contact with an operator for longer than the allowed time; candidates get no traffic until one confirms the table"
            );
            self.dirty.table = true;
        }
        if self.confirm_at.is_some_and(|at| at <= now.at) {
            self.confirm();
        }
        let seconds = i64::try_from(now.wall / 1_000).unwrap_or(i64::MAX);
        self.dirty.table |= self.records.certificates.advance(seconds);
        let forgotten = self.removed_functions.tick(&self.counters, now.at);
        self.retired_revisions.forget(&forgotten);
        let dropped = self.retired_revisions.tick(&self.counters, now.at);
        self.removed_functions.counters_dropped(&dropped);
    }

    /// Records the total number of requests of each revision.
    pub(crate) fn observe_traffic(&mut self, totals: BTreeMap<RevisionKey, u64>, now: Now) {
        self.recent_traffic.observe(totals, now.wall);
        self.dirty.components = true;
        // Keeps the last contact on disk recent, so that a restart does not count too much time without contact.
        self.dirty.disk |= self.records.applied();
    }

    /// Derives what changed since the last call. `compiled` returns whether a component needs no compilation; it is
    /// called only under memory pressure.
    pub(crate) fn reconcile(&mut self, now: Now, compiled: impl Fn(&str) -> bool) -> Actions {
        let mut actions = Actions::default();
        if std::mem::take(&mut self.dirty.components) {
            self.update_load_queue();
        }
        let loadable: Vec<QueuedLoad> = match self.pressure {
            MemoryPressure::None => Vec::new(),
            pressure => {
                let fits = |load: &&QueuedLoad| {
                    let candidate = self.candidate_digests.contains(&load.digest);
                    pressure.allows_load(compiled(&load.digest), candidate)
                };
                self.load_queue.iter().filter(fits).cloned().collect()
            }
        };
        let load_queue = match self.pressure {
            MemoryPressure::None => &self.load_queue,
            _ => &loadable,
        };
        for digest in self.loads.start_due(load_queue, CONCURRENT_LOADS, now.at) {
            actions.load.extend(self.component_of(&digest));
        }
        if std::mem::take(&mut self.dirty.table) {
            actions.publish = Some(self.build_table(now));
        }
        actions
    }

    /// Derives the set of components to load and their order from the table.
    fn update_load_queue(&mut self) {
        let mut revisions = Vec::new();
        let mut digests = BTreeSet::new();
        for (key, record) in self.records.iter() {
            let split = &record.parsed.entry.split;
            let recent_traffic = self.recent_traffic.contains(key);
            for (name, definition) in &record.parsed.definitions {
                digests.insert(definition.component.digest.clone());
                revisions.push(RevisionToLoad {
                    namespace: key.namespace.to_string(),
                    digest: definition.component.digest.clone(),
                    role: RevisionRole::of(split, name),
                    recent_traffic,
                });
            }
        }
        let is_candidate = |revision: &&RevisionToLoad| revision.role == RevisionRole::Candidate;
        let others = revisions.iter().filter(|revision| !is_candidate(revision));
        let others: BTreeSet<&String> = others.map(|revision| &revision.digest).collect();
        let candidates = revisions.iter().filter(is_candidate);
        self.candidate_digests = candidates
            .map(|revision| &revision.digest)
            .filter(|digest| !others.contains(digest))
            .cloned()
            .collect();
        self.load_queue = load_order(revisions);
        for removed in self.loads.set_wanted(&digests) {
            self.codes.remove(&removed);
        }
    }

    /// Returns the definitions in the table that refer to the component with this digest.
    fn users_of(&self, digest: &str) -> impl Iterator<Item = &Definition> {
        self.records
            .iter()
            .flat_map(|(_, record)| record.parsed.definitions.values())
            .map(|definition| &**definition)
            .filter(move |definition| definition.component.digest == digest)
    }

    /// Returns where the component with this digest is found, and the namespace if only one uses it.
    fn component_of(&self, digest: &str) -> Option<ComponentRef> {
        let mut users = self.users_of(digest).map(|user| &user.component);
        let first = users.next()?.clone();
        let shared = users.any(|other| other.namespace != first.namespace);
        Some(ComponentRef {
            namespace: first.namespace.filter(|_| !shared),
            ..first
        })
    }

    /// Returns the span of a load, which names the first revision that needs the component.
    pub(super) fn load_span(&self, digest: &str) -> Span {
        let span = tracing::debug_span!("load", digest, function = Empty, revision = Empty);
        if !span.is_disabled()
            && let Some(definition) = self.users_of(digest).next()
        {
            span.record(
                "function",
                tracing::field::display(&definition.spec.function),
            );
            span.record("revision", tracing::field::display(&definition.spec.name));
        }
        span
    }

    /// Returns the state to write to disk, or `None` if it has not changed.
    pub(crate) fn snapshot(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.dirty.disk) || !self.records.applied() {
            return None;
        }
        // The writer removes the values of Secrets too; removing them here keeps them out of the snapshot.
        let functions: Vec<_> = self
            .records
            .iter()
            .map(|(_, record)| without_secrets(record.wire.clone()))
            .collect();
        let pairs = self.records.iter().flat_map(|(_, record)| {
            let record_versions = super::parse_record::record_versions(&record.wire);
            [record_versions.config_token, record_versions.split_token]
        });
        let highest = pairs.max().unwrap_or_default();
        Some(Snapshot {
            table: PersistedTable {
                header: TableHeader {
                    version: self.records.version(),
                    epoch: highest.epoch,
                    serial: highest.serial,
                    last_contact_ms: self.last_contact,
                    unsupervised_ttl_ms: u64::try_from(self.supervision.ttl().as_millis())
                        .unwrap_or(u64::MAX),
                },
                functions,
                remote: self.records.remote.to_batch(),
            },
            needed: self
                .loads
                .iter()
                .filter_map(|(digest, _)| sha256_hex(digest).map(ToString::to_string))
                .collect(),
            recent_traffic: self.recent_traffic.to_text(),
        })
    }

    /// Returns whether load balancers may send traffic: a table is applied, values of Secrets have arrived, and all
    /// functions with recent traffic are loaded or have failed. The waits for Secrets and code are limited by
    /// `MAX_WAIT_FOR_SECRETS` and `MAX_WAIT_FOR_CODE`. A node that was ready stays so: a function that arrives later must not
    /// take the others from the load balancers, on all nodes at once.
    pub(crate) fn ready(&mut self, now: Now) -> bool {
        self.was_ready = self.was_ready || self.is_prepared(now);
        self.was_ready
    }

    fn is_prepared(&self, now: Now) -> bool {
        let settled = || {
            let keys = self.records.iter().map(|(key, _)| key);
            self.recent_traffic
                .required_for_readiness(keys)
                .iter()
                .all(|key| self.is_settled(key))
        };
        let age = now.at.duration_since(self.started);
        let values = || age >= MAX_WAIT_FOR_SECRETS || !self.records.awaits_secret_values();
        self.records.applied() && values() && (age >= MAX_WAIT_FOR_CODE || settled())
    }

    fn is_settled(&self, key: &FunctionKey) -> bool {
        let Some((_, record)) = self.records.iter().find(|(one, _)| *one == key) else {
            return true;
        };
        record.parsed.definitions.values().all(|definition| {
            matches!(
                self.loads.get(&definition.component.digest),
                Some(LoadState::Loaded | LoadState::Failed { .. })
            )
        })
    }

    pub(crate) fn is_live(&self, id: &RevisionKey) -> bool {
        self.live.contains_key(id)
    }

    /// Returns the revisions that stopped reusing instances because requests failed, and when, in ms since the Unix epoch.
    pub(crate) fn unsafe_reuse(&self) -> impl Iterator<Item = (&RevisionKey, u64)> {
        self.live
            .iter()
            .filter_map(|(id, live)| Some((id, live.revision.reuse_ended()?)))
    }

    pub(crate) fn is_unsupervised(&self) -> bool {
        self.supervision.expired()
    }
}
