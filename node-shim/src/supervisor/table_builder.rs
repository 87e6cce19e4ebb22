//! Builds the routing table of the data plane from the node's state: the revisions that can run, and the problems of
//! those that cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use node_api::ExceptionReason;
use node_shim_core::desired::{Failure, LoadFailure, LoadState};
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::key_value::BucketId;
use node_shim_core::table::{FunctionEntry, RevisionName, TrafficSplit};

use super::node::{LiveRevision, Node, Problem, RevisionKey};
use super::parse_record::Definition;
use super::records::Record;
use crate::clock::Now;
use crate::revision::Revision;
use crate::routing_table::{RemoteFunction, RevisionSlot, RoutingTable, ServedFunction};

/// Maximum number of references to Secrets that a message names.
const MAX_NAMED_SECRETS: usize = 3;

/// Why a revision cannot run on this node.
struct CannotRun {
    /// Reason for which its requests fail.
    answer: FailureReason,
    reason: ExceptionReason,
    message: String,
    permanent: bool,
}

impl From<Failure> for CannotRun {
    fn from(failed: Failure) -> Self {
        Self {
            answer: FailureReason::Unloadable,
            reason: failed.reason(),
            permanent: failed.cause.is_permanent(),
            message: failed.message,
        }
    }
}

impl Node {
    /// Builds the routing table of all functions and updates problems, live, retired and removed revisions.
    pub(super) fn build_table(&mut self, now: Now) -> Arc<RoutingTable> {
        let before = std::mem::take(&mut self.problems);
        let mut remote = self.records.remote.publish();
        let mut arrived = Vec::new();
        let mut live = BTreeMap::new();
        let mut problems = BTreeMap::new();
        let mut functions = Vec::new();
        for (key, record) in self.records.iter() {
            let mut slots = BTreeMap::new();
            for (name, definition) in &record.parsed.definitions {
                let id = (key.clone(), name.clone());
                let slot = match self.slot(&id, definition, record) {
                    Ok(Some(revision)) => {
                        let definition = Arc::clone(definition);
                        live.insert(
                            id,
                            LiveRevision {
                                definition,
                                revision: Arc::clone(&revision),
                            },
                        );
                        RevisionSlot::Ready(revision)
                    }
                    Ok(None) => RevisionSlot::Loading,
                    Err(CannotRun {
                        answer,
                        reason,
                        message,
                        permanent,
                    }) => {
                        let known = before.get(&id).filter(|known| known.reason == reason);
                        let since = known.map_or(now.wall, |known| known.since);
                        problems.insert(
                            id,
                            Problem {
                                reason,
                                message,
                                permanent,
                                since,
                            },
                        );
                        RevisionSlot::Failed(answer)
                    }
                };
                slots.insert(name.clone(), slot);
            }
            let mut served =
                served_function(&record.parsed.entry, &slots, self.supervision.expired());
            if let Some(remote) = remote.remove(key)
                && !load_meanwhile(&mut served, remote)
            {
                arrived.push(key.clone());
            }
            functions.push(served);
        }
        for key in arrived {
            self.records.remote.arrived(&key);
        }
        self.problems = problems;
        self.live = live;
        let defined = self.records.iter().flat_map(|(key, record)| {
            let names = record.parsed.definitions.keys();
            names.map(|name| (key.clone(), name.clone()))
        });
        self.retired_revisions.update(defined.collect(), now.at);
        self.mark_candidates();
        self.removed_functions
            .update(&self.table, &self.records, now.at);
        let table = self
            .table
            .with_all(
                self.records.version(),
                functions,
                remote.into_values().collect(),
            )
            .with_certificates(self.records.certificates.published())
            .with_peers(self.records.remote.peers());
        self.table = Arc::new(table);
        Arc::clone(&self.table)
    }

    /// Returns the buckets that revisions on this node may open.
    pub(super) fn buckets(&self) -> BTreeSet<BucketId> {
        let records = self.records.iter();
        let definitions = records.flat_map(|(_, record)| record.parsed.definitions.values());
        let buckets = definitions.flat_map(|definition| {
            let spec = &definition.spec;
            spec.key_value.iter().map(|store| BucketId {
                namespace: spec.function.namespace.clone(),
                label: store.label.clone(),
            })
        });
        buckets.collect()
    }

    /// Marks the components of candidates with traffic, which stay mapped.
    fn mark_candidates(&self) {
        let candidate_digest = |record: &Record| {
            let split = &record.parsed.entry.split;
            let candidate = split.candidate.as_ref().filter(|_| split.weight > 0)?;
            let definition = record.parsed.definitions.get(candidate)?;
            Some(definition.component.digest.clone())
        };
        let candidate_digests: BTreeSet<String> = self
            .records
            .iter()
            .filter_map(|(_, r)| candidate_digest(r))
            .collect();
        for (digest, code) in &self.codes {
            code.set_serves_candidate(candidate_digests.contains(digest));
        }
    }

    /// Returns the revision if it can run, or `None` while its code is loading.
    ///
    /// # Errors
    /// Returns the reason when the revision cannot run.
    fn slot(
        &self,
        id: &RevisionKey,
        definition: &Arc<Definition>,
        record: &Record,
    ) -> Result<Option<Arc<Revision>>, CannotRun> {
        if !definition.missing_secrets.is_empty() {
            return Err(CannotRun {
                answer: FailureReason::SecretsUnavailable,
                reason: ExceptionReason::SecretsUnavailable,
                message: missing_secrets_message(&definition.missing_secrets, record.unconfirmed),
                permanent: false,
            });
        }
        let digest = &definition.component.digest;
        // requests must not wait for the next attempt, which may last longer than they do
        if let Some(failure) = self.loads.failure(digest) {
            return Err(failure.clone().into());
        }
        match self.loads.get(digest) {
            Some(LoadState::Loaded) => {
                let Some(code) = self.codes.get(digest) else {
                    return Ok(None);
                };
                if let Some(live) = self
                    .live
                    .get(id)
                    .filter(|live| is_equivalent(&live.definition, definition))
                {
                    return Ok(Some(Arc::clone(&live.revision)));
                }
                Revision::new(definition.spec.clone(), code.clone(), &self.counters)
                    .map(Some)
                    .map_err(|error| Failure::new(LoadFailure::RevisionLimit, error).into())
            }
            Some(LoadState::Pending | LoadState::Loading | LoadState::Failed { .. }) | None => {
                Ok(None)
            }
        }
    }
}

/// Describes the missing values of Secrets that prevent a revision from running.
fn missing_secrets_message(references: &[String], unconfirmed: bool) -> String {
    let named: Vec<&str> = references
        .iter()
        .take(MAX_NAMED_SECRETS)
        .map(String::as_str)
        .collect();
    let more = match references.len().saturating_sub(MAX_NAMED_SECRETS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = format!("{}{more}", named.join(", "));
    if unconfirmed {
        format!("waiting for an operator to send the values of {named} (secret/key)")
    } else {
        format!(
            "the operator does not have the values of {named} (secret/key) with which the revision was created"
        )
    }
}

/// Builds the entry of a function for the data plane. Without contact with an operator, a candidate gets no traffic
/// if there is a stable revision to serve it.
fn served_function(
    entry: &Arc<FunctionEntry>,
    slots: &BTreeMap<RevisionName, RevisionSlot>,
    unsupervised: bool,
) -> ServedFunction {
    let slot = |name: &Option<RevisionName>| {
        name.as_ref().map_or(RevisionSlot::Absent, |name| {
            // a revision without a definition may still receive one
            slots.get(name).cloned().unwrap_or(RevisionSlot::Loading)
        })
    };
    let split = &entry.split;
    let (stable, candidate) = (slot(&split.stable), slot(&split.candidate));
    let stop_candidate = unsupervised && split.stable.is_some() && split.weight > 0;
    let entry = if stop_candidate {
        let split = TrafficSplit {
            weight: 0,
            ..split.clone()
        };
        Arc::new(FunctionEntry {
            split,
            ..(**entry).clone()
        })
    } else {
        Arc::clone(entry)
    };
    ServedFunction {
        entry,
        stable,
        candidate,
    }
}

/// Lets other nodes serve a function that came to this node while its code is being loaded. Returns whether it is.
fn load_meanwhile(served: &mut ServedFunction, remote: RemoteFunction) -> bool {
    let main = if served.entry.split.stable.is_some() {
        &mut served.stable
    } else {
        &mut served.candidate
    };
    let loading = matches!(main, RevisionSlot::Loading);
    if loading {
        *main = RevisionSlot::LoadingHere(remote.nodes);
    }
    loading
}

/// Returns whether a live revision of definition `a` can serve as `b`.
fn is_equivalent(a: &Arc<Definition>, b: &Arc<Definition>) -> bool {
    Arc::ptr_eq(a, b)
        || (a.component.digest == b.component.digest
            && a.spec.limits == b.spec.limits
            && a.spec.env == b.spec.env
            && a.spec.config == b.spec.config
            && a.spec.key_value == b.spec.key_value
            && a.spec.egress == b.spec.egress
            && a.spec.reuse == b.spec.reuse)
}
