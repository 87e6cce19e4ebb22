//! State of a node as one stream reported it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use node_api::{FencingToken, v1};
use tokio::time::Instant;

use super::counters::{CounterTable, FrameResult};
use super::revision_states::RevisionStates;
use super::{FunctionKey, MAX_EPOCH, MAX_SERIAL, Origin};

/// Maximum number of revisions in the state of a node; a node with more placed revisions reports an exception.
const MAX_REVISIONS: usize = 200_000;
/// Maximum length of a text from a node, in bytes: names are DNS names, and the contract bounds messages.
const MAX_TEXT: usize = 256;

/// State of a node as one stream reported it.
pub(super) struct Session {
    pub(super) origin: Origin,
    pub(super) hello: v1::Hello,
    pub(super) ended: bool,
    /// Whether a report that lists every revision has arrived. Before that, a missing revision means nothing.
    pub(super) complete: bool,
    pub(super) last_contact: Instant,
    pub(super) last_contact_at: Timestamp,
    pub(super) applied_version: u64,
    pub(super) revisions: BTreeMap<FunctionKey, RevisionStates>,
    revision_count: usize,
    pub(super) exceptions: Vec<v1::NodeException>,
    pub(super) exceptions_dropped: u32,
    pub(super) functions_desired: u32,
    pub(super) functions_loaded: u32,
    pub(super) functions_failed: u32,
    pub(super) ready: bool,
    pub(super) counters: CounterTable,
}

/// Changes that a report caused.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) functions: BTreeSet<FunctionKey>,
    /// Whether a revision was removed.
    pub(super) removed: bool,
    /// Whether the node's own view changed.
    pub(super) node: bool,
    pub(super) max_epoch: u64,
    pub(super) frame: Option<FrameResult>,
    /// Whether exceptions or revisions exceeded their limit.
    pub(super) dropped: bool,
}

impl Session {
    pub(super) fn new(origin: Origin, hello: v1::Hello, now: Instant, at: Timestamp) -> Self {
        Self {
            origin,
            counters: CounterTable::new(hello.boot_id),
            hello,
            ended: false,
            complete: false,
            last_contact: now,
            last_contact_at: at,
            applied_version: 0,
            revisions: BTreeMap::new(),
            revision_count: 0,
            exceptions: Vec::new(),
            exceptions_dropped: 0,
            functions_desired: 0,
            functions_loaded: 0,
            functions_failed: 0,
            ready: false,
        }
    }

    /// Greatest fencing token of a function's traffic split that the node acts on.
    pub(super) fn acted_on(&self, key: &FunctionKey) -> Option<FencingToken> {
        let revisions = self.revisions.get(key)?.iter();
        revisions
            .filter_map(|revision| revision.applied)
            .map(FencingToken::from)
            .max()
    }

    /// Functions of which the two sessions report different revisions or any exception that the other does not.
    pub(super) fn differing(&self, other: &Self) -> BTreeSet<FunctionKey> {
        let mut functions = differing(&self.revisions, &other.revisions);
        if self.exceptions != other.exceptions {
            let both = self.exceptions.iter().chain(&other.exceptions);
            let about = both.filter_map(|one| one.function.as_ref());
            functions.extend(about.map(FunctionKey::from));
        }
        functions
    }

    pub(super) fn apply(
        &mut self,
        report: v1::Report,
        max_exceptions: usize,
        now: Instant,
        at: Timestamp,
    ) -> Applied {
        let mut applied = Applied {
            node: !self.complete && report.revisions_complete,
            ..Applied::default()
        };
        self.last_contact = now;
        self.last_contact_at = at;
        self.applied_version = self.applied_version.max(report.applied_version);
        if report.revisions_complete {
            let former = std::mem::take(&mut self.revisions);
            self.revision_count = 0;
            self.take_revisions(report.revisions, &mut applied);
            applied.functions = differing(&former, &self.revisions);
            self.complete = true;
            applied.removed = true;
        } else {
            self.take_revisions(report.revisions, &mut applied);
        }
        self.take_exceptions(
            report.exceptions,
            report.exceptions_dropped,
            max_exceptions,
            &mut applied,
        );
        let figures = (
            report.functions_desired,
            report.functions_loaded,
            report.functions_failed,
            report.ready,
        );
        let held = (
            self.functions_desired,
            self.functions_loaded,
            self.functions_failed,
            self.ready,
        );
        applied.node |= figures != held;
        (
            self.functions_desired,
            self.functions_loaded,
            self.functions_failed,
            self.ready,
        ) = figures;
        applied.frame = report.counters.map(|frame| self.counters.take(frame, at));
        applied
    }

    /// Returns the state as a report to another replica: of all functions, or only of `functions`.
    pub(super) fn to_report(&self, all: bool, functions: &BTreeSet<FunctionKey>) -> v1::Report {
        let of = |(key, revisions): (&FunctionKey, &RevisionStates)| {
            let states = revisions.iter();
            let on_wire = states.map(|state| v1::RevisionState {
                function: Some(key.into()),
                ..state.clone()
            });
            on_wire.collect::<Vec<_>>()
        };
        let revisions = if all {
            self.revisions.iter().flat_map(of).collect()
        } else {
            let some = functions.iter();
            some.filter_map(|key| self.revisions.get_key_value(key))
                .flat_map(of)
                .collect()
        };
        v1::Report {
            applied_version: self.applied_version,
            revisions,
            revisions_complete: all,
            exceptions: self.exceptions.clone(),
            exceptions_dropped: self.exceptions_dropped,
            counters: self.counters.to_frame(),
            functions_desired: self.functions_desired,
            functions_loaded: self.functions_loaded,
            functions_failed: self.functions_failed,
            ready: self.ready,
            remote: Vec::new(),
        }
    }

    fn take_revisions(&mut self, revisions: Vec<v1::RevisionState>, applied: &mut Applied) {
        for mut state in revisions {
            let Some(wire) = state.function.take() else {
                continue;
            };
            let name_fits = state.revision.len() <= MAX_TEXT && wire.name.len() <= MAX_TEXT;
            if !name_fits || wire.namespace.len() > MAX_TEXT || state.revision.is_empty() {
                applied.dropped = true;
                continue;
            }
            // A version that no operator can have issued is the fault of the node.
            let impossible =
                |token: &v1::FencingToken| token.epoch > MAX_EPOCH || token.serial > MAX_SERIAL;
            if state.applied.take_if(|token| impossible(token)).is_some() {
                applied.dropped = true;
            }
            if let Some(token) = state.applied {
                applied.max_epoch = applied.max_epoch.max(token.epoch);
            }
            let key = FunctionKey::from(&wire);
            // A node removes a revision by reporting it without a state.
            if state.state() == v1::LoadState::Unspecified {
                if let Some(held) = self.revisions.get_mut(&key)
                    && held.remove(&state.revision)
                {
                    self.revision_count -= 1;
                    applied.removed = true;
                    applied.functions.insert(key);
                }
                continue;
            }
            let held = self.revisions.entry(key.clone()).or_default();
            let former = held.get(&state.revision);
            if former == Some(&state) {
                continue;
            }
            if former.is_none() {
                if self.revision_count >= MAX_REVISIONS {
                    applied.dropped = true;
                    continue;
                }
                self.revision_count += 1;
            }
            held.set(state);
            applied.functions.insert(key);
        }
    }

    fn take_exceptions(
        &mut self,
        mut exceptions: Vec<v1::NodeException>,
        dropped: u32,
        limit: usize,
        applied: &mut Applied,
    ) {
        let beyond = exceptions.len().saturating_sub(limit);
        applied.dropped |= beyond > 0;
        exceptions.truncate(limit);
        for exception in &mut exceptions {
            shorten(&mut exception.message);
            shorten(&mut exception.reason);
            shorten(&mut exception.revision);
        }
        let dropped = dropped.saturating_add(u32::try_from(beyond).unwrap_or(u32::MAX));
        if exceptions == self.exceptions && dropped == self.exceptions_dropped {
            return;
        }
        let both = self.exceptions.iter().chain(&exceptions);
        let about = both.filter_map(|one| one.function.as_ref());
        applied.functions.extend(about.map(FunctionKey::from));
        applied.node = true;
        self.exceptions = exceptions;
        self.exceptions_dropped = dropped;
    }
}

type Revisions = BTreeMap<FunctionKey, RevisionStates>;

fn differing(former: &Revisions, present: &Revisions) -> BTreeSet<FunctionKey> {
    let both = former.keys().chain(present.keys());
    both.filter(|key| former.get(*key) != present.get(*key))
        .cloned()
        .collect()
}

/// Truncates at a character boundary and replaces control characters, which could move a terminal's cursor.
fn shorten(text: &mut String) {
    let end = text.floor_char_boundary(MAX_TEXT);
    text.truncate(end);
    if text.chars().any(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
}
