//! Table of function records in effect. Messages of the operator are merged by the rules of
//! [`node_shim_core::desired`]. An invalid record quarantines only its own function, whose previous record stays in
//! effect.

mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use node_api::v1::{
    Batch, FunctionRecord, KeptFunction, NodeSet, RemoteFunction, SnapshotPhase, SplitUpdate,
};
use node_shim_core::desired::{
    CandidateSplit, MergeDecision, RecordVersions, merge_decision, removal_applies,
    survives_snapshot, weight_after_hint,
};
use node_shim_core::table::{FunctionKey, RevisionName, TrafficSplit};

use super::certificates::CertificateStore;
use super::parse_record::{ParsedRecord, RecordError, key, parse, record_versions, split};
use super::secret_values::{lacks_certificate, restore_known_values};
use crate::disk::PersistedTable;
use remote::{Offered, RemoteFunctions};

/// Maximum number of functions in a snapshot; further ones are dropped.
const MAX_FUNCTIONS: usize = 200_000;
/// Maximum number of quarantined functions that are remembered for reports.
const MAX_QUARANTINED: usize = 1_000;

/// Record of a function in effect.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) wire: FunctionRecord,
    pub(crate) parsed: ParsedRecord,
    /// The record was read from disk and no operator has sent it since, so missing values of Secrets may still
    /// arrive.
    pub(crate) unconfirmed: bool,
}

impl Record {
    fn has_missing_secrets(&self) -> bool {
        let mut definitions = self.parsed.definitions.values();
        definitions.any(|definition| !definition.missing_secrets.is_empty())
    }

    /// Returns whether an operator may still send a certificate. It does not have a usable one of every Secret, so a record
    /// that it has sent lacks nothing.
    fn awaits_certificate(&self) -> bool {
        self.unconfirmed && lacks_certificate(&self.wire)
    }
}

/// Reason why the newest record of a function was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quarantine {
    pub(crate) error: RecordError,
    /// Time of the first rejected record, in ms since the Unix epoch.
    pub(crate) since: u64,
}

/// Table of all function records.
#[derive(Default)]
pub(crate) struct Records {
    functions: BTreeMap<FunctionKey, Record>,
    /// Certificates of the functions.
    pub(super) certificates: CertificateStore,
    quarantined: BTreeMap<FunctionKey, Quarantine>,
    /// Functions that are placed on other nodes. A function that came to this node stays here until its code is loaded.
    pub(super) remote: RemoteFunctions,
    /// Whether the connected operator sends functions of other nodes.
    takes_remote: bool,
    version: u64,
    collecting: Option<SnapshotContent>,
    applied: bool,
}

/// Functions of a snapshot.
#[derive(Default)]
struct SnapshotContent {
    functions: Vec<FunctionRecord>,
    remote: Offered,
}

impl Records {
    /// Merges a table from disk into the table in effect. Removes nothing.
    pub(crate) fn restore(&mut self, version: u64, functions: Vec<FunctionRecord>, now: u64) {
        for record in functions {
            self.apply_record(record, true, now);
        }
        self.version = self.version.max(version);
        self.applied = true;
    }

    /// Merges a table from disk, with functions of other nodes and addresses, into the table in effect. Removes nothing.
    pub(crate) fn restore_table(&mut self, table: PersistedTable, now: u64) {
        self.restore(table.header.version, table.functions, now);
        self.restore_remote(table.remote);
    }

    fn restore_remote(&mut self, mut remote: Batch) {
        self.remote.learn_addresses(&remote.addresses, false);
        self.remote.set_complete(remote.addresses_complete);
        let offered = self.remote.take(&mut remote);
        for (function, nodes) in offered.into_functions() {
            if !key(function.key.as_ref()).is_ok_and(|key| self.contains(&key)) {
                self.apply_remote(function, nodes);
            }
        }
    }

    /// Handles a new connection. Without `remote`, the operator does not send functions of other nodes, and those that the
    /// node has would never change. Returns whether the table has changed.
    pub(crate) fn connected(&mut self, remote: bool) -> bool {
        self.takes_remote = remote;
        !remote && self.remote.clear()
    }

    /// Applies a batch. Returns whether the table may have changed.
    pub(crate) fn apply_batch(&mut self, mut batch: Batch, now: u64) -> bool {
        let complete = batch.addresses_complete;
        let moved = self.remote.learn_addresses(&batch.addresses, complete);
        let remote = self.remote.take(&mut batch);
        let changed = match batch.snapshot() {
            SnapshotPhase::None => self.apply_delta(batch, remote, now),
            SnapshotPhase::Begin => {
                self.collecting = Some(SnapshotContent::default());
                self.collect(batch.functions, remote);
                false
            }
            SnapshotPhase::Continue => {
                self.collect(batch.functions, remote);
                false
            }
            SnapshotPhase::End => {
                self.collect(batch.functions, remote);
                match self.collecting.take() {
                    Some(content) => self.apply_snapshot(content, &batch.kept, batch.version, now),
                    // The beginning of this snapshot is missing, so it is incomplete.
                    None => false,
                }
            }
            SnapshotPhase::Whole => {
                self.collecting = None;
                let functions = batch.functions;
                let content = SnapshotContent { functions, remote };
                self.apply_snapshot(content, &batch.kept, batch.version, now)
            }
        };
        changed || moved
    }

    /// Applies a hint. Returns whether it lowered the weight of a candidate.
    pub(crate) fn apply_hint(&mut self, update: &SplitUpdate) -> bool {
        let (Ok(key), Ok(offered)) = (key(update.key.as_ref()), split(update.split.as_ref()))
        else {
            return false;
        };
        let Some(record) = self.functions.get_mut(&key) else {
            return false;
        };
        let lowered = weight_after_hint(
            candidate_split(&record.parsed.entry.split),
            candidate_split(&offered),
        );
        let Some(weight) = lowered else { return false };
        if let (Some(wire), Some(offered)) = (&mut record.wire.split, &update.split) {
            wire.weight = weight;
            wire.token = offered.token;
            wire.decided_at = offered.decided_at;
        }
        reparse(record)
    }

    fn collect(&mut self, functions: Vec<FunctionRecord>, remote: Offered) {
        if let Some(collecting) = &mut self.collecting {
            collecting.functions.extend(functions);
            collecting.functions.truncate(MAX_FUNCTIONS);
            collecting.remote.append(remote);
        }
    }

    fn apply_delta(&mut self, batch: Batch, remote: Offered, now: u64) -> bool {
        let mut changed = false;
        for record in batch.functions {
            changed |= self.apply_record(record, false, now);
        }
        for (function, nodes) in remote.into_functions() {
            changed |= self.apply_remote(function, nodes);
        }
        for update in batch.splits {
            changed |= self.apply_share(update, now);
        }
        for removal in batch.removals {
            if let Ok(key) = key(removal.key.as_ref()) {
                changed |= self.remove_at(&key, removal.version);
                changed |= self.remote.remove_at(&key, removal.version);
            }
        }
        self.version = self.version.max(batch.version);
        changed
    }

    /// Replaces the table. `kept` are functions that exist although the operator cannot build their records: they stay as they
    /// are, unless the record here is that of a former function of the same name.
    fn apply_snapshot(
        &mut self,
        content: SnapshotContent,
        kept: &[KeptFunction],
        version: u64,
        now: u64,
    ) -> bool {
        let SnapshotContent { functions, remote } = content;
        let named = functions.iter().map(|record| record.key.as_ref());
        let mut named: BTreeSet<FunctionKey> = named.filter_map(|it| key(it).ok()).collect();
        let mut named_remote = named.clone();
        for function in kept {
            let Ok(key) = key(function.key.as_ref()) else {
                continue;
            };
            let have = self.functions.get(&key);
            let is_remote = self.remote.is(&key, &function.uid);
            if have.is_some_and(|have| have.wire.uid == function.uid) {
                named.insert(key.clone());
            }
            if is_remote {
                named_remote.insert(key);
            }
        }
        for record in functions {
            self.apply_record(record, false, now);
        }
        for (function, nodes) in remote.into_functions() {
            named_remote.extend(key(function.key.as_ref()));
            self.apply_remote(function, nodes);
        }
        self.remote.retain_named(&named_remote, version);
        self.remote.set_complete(self.takes_remote);
        let stays = |key: &FunctionKey, have: &RecordVersions| {
            named.contains(key) || survives_snapshot(have, version)
        };
        self.functions
            .retain(|key, record| stays(key, &record_versions(&record.wire)));
        let functions = &self.functions;
        self.certificates.retain(|key| functions.contains_key(key));
        self.quarantined.retain(|key, _| named.contains(key));
        self.version = self.version.max(version);
        self.applied = true;
        true
    }

    /// Removes a function, unless its record is newer than `version`.
    fn remove_at(&mut self, key: &FunctionKey, version: u64) -> bool {
        let have = self.functions.get(key);
        let applies =
            have.is_some_and(|have| removal_applies(&record_versions(&have.wire), version));
        if applies {
            self.functions.remove(key);
            self.certificates.remove(key);
            self.quarantined.remove(key);
        }
        applies
    }

    /// Applies a function of other nodes, which ends it on this node unless the record here is newer.
    fn apply_remote(&mut self, remote: RemoteFunction, nodes: Arc<NodeSet>) -> bool {
        let Ok(key) = key(remote.key.as_ref()) else {
            tracing::error!("ignored a function of other nodes without a name");
            return false;
        };
        let ended = self.remove_at(&key, remote.version);
        if !ended && self.contains(&key) {
            return false;
        }
        self.remote.put(key, remote, nodes) || ended
    }

    fn apply_share(&mut self, update: SplitUpdate, now: u64) -> bool {
        let Ok(key) = key(update.key.as_ref()) else {
            return false;
        };
        // The function was removed, or its record has not arrived yet.
        let Some(have) = self.functions.get(&key) else {
            return false;
        };
        let mut record = have.wire.clone();
        record.version = record.version.max(update.version);
        record.split = update.split;
        let unconfirmed = have.unconfirmed;
        self.apply_record(record, unconfirmed, now)
    }

    fn apply_record(&mut self, record: FunctionRecord, unconfirmed: bool, now: u64) -> bool {
        let Ok(key) = key(record.key.as_ref()) else {
            tracing::error!("ignored a record that names no function");
            return false;
        };
        let have = self.functions.get(&key);
        let decision = merge_decision(
            have.map(|have| record_versions(&have.wire)).as_ref(),
            &record_versions(&record),
        );
        let MergeDecision::Apply { routes, split } = decision else {
            return false;
        };
        // A record from disk does not replace the confirmation by an operator.
        let unconfirmed = unconfirmed && have.is_none_or(|have| have.unconfirmed);
        // Parts of two records are merged only if both have the same uid.
        let merged = merge(have, record, routes, split);
        match parse(&merged) {
            Ok(parsed) => {
                self.quarantined.remove(&key);
                let seconds = i64::try_from(now / 1_000).unwrap_or(i64::MAX);
                self.certificates.set(&key, &merged, seconds);
                if !self.remote.is(&key, &merged.uid) {
                    self.remote.remove(&key);
                }
                self.functions.insert(
                    key,
                    Record {
                        wire: merged,
                        parsed,
                        unconfirmed,
                    },
                );
                true
            }
            Err(error) => {
                tracing::error!(function = %key, %error, "rejected an invalid record; the previous record stays in effect");
                if self.quarantined.len() < MAX_QUARANTINED {
                    let since = self.quarantined.get(&key).map_or(now, |known| known.since);
                    self.quarantined.insert(key, Quarantine { error, since });
                }
                true
            }
        }
    }

    /// Iterates over all functions in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&FunctionKey, &Record)> {
        self.functions.iter()
    }

    /// Returns whether the table contains the function.
    pub(crate) fn contains(&self, key: &FunctionKey) -> bool {
        self.functions.contains_key(key)
    }

    /// Iterates over the functions whose newest record was rejected.
    pub(crate) fn quarantined(&self) -> impl Iterator<Item = (&FunctionKey, &Quarantine)> {
        self.quarantined.iter()
    }

    /// Returns the version of the table in effect.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Returns whether a table was applied, from disk or from an operator.
    pub(crate) fn applied(&self) -> bool {
        self.applied
    }

    /// Returns whether values of Secrets are missing that an operator may still send.
    pub(crate) fn awaits_secret_values(&self) -> bool {
        let mut records = self.functions.values();
        records.any(|record| {
            record.awaits_certificate() || (record.unconfirmed && record.has_missing_secrets())
        })
    }

    /// Returns the table version to resume from, or 0 to request a snapshot. A snapshot is needed without a table,
    /// while values of Secrets are missing, and after a rejected record.
    pub(crate) fn have(&self) -> u64 {
        let mut records = self.functions.values();
        let missing_secrets =
            records.any(|record| record.has_missing_secrets() || record.awaits_certificate());
        if missing_secrets || !self.applied || !self.quarantined.is_empty() {
            0
        } else {
            self.version
        }
    }
}

/// Merges an offered record into the record in effect. `routes` and `share` select the parts to take from `offered`.
fn merge(
    have: Option<&Record>,
    mut offered: FunctionRecord,
    routes: bool,
    split: bool,
) -> FunctionRecord {
    let Some(have) = have
        .map(|have| &have.wire)
        .filter(|have| have.uid == offered.uid)
    else {
        return offered;
    };
    if !routes {
        offered.accepted = have.accepted;
        offered.routes.clone_from(&have.routes);
        offered.certificates.clone_from(&have.certificates);
        offered.suspended = have.suspended;
        offered.callers.clone_from(&have.callers);
    }
    if !split {
        offered.split.clone_from(&have.split);
    }
    offered.version = offered.version.max(have.version);
    restore_known_values(&mut offered, have);
    let named = offered.split.clone().unwrap_or_default();
    for definition in &have.definitions {
        let needed = [&named.stable, &named.candidate, &named.previous]
            .into_iter()
            .any(|revision| *revision == definition.revision);
        let there = offered
            .definitions
            .iter()
            .any(|one| one.revision == definition.revision);
        if needed && !there {
            offered.definitions.push(definition.clone());
        }
    }
    offered
}

fn candidate_split(split: &TrafficSplit) -> CandidateSplit<'_> {
    CandidateSplit {
        token: split.token,
        stable: split.stable.as_ref().map_or("", RevisionName::as_str),
        candidate: split.candidate.as_ref().map_or("", RevisionName::as_str),
        weight: split.weight,
    }
}

fn reparse(record: &mut Record) -> bool {
    match parse(&record.wire) {
        Ok(parsed) => {
            record.parsed = parsed;
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
