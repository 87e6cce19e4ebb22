//! Functions that are served: the revisions that are loaded, the routing table, and the rollouts that divide requests
//! between two revisions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use delivery::function::Revision as Desired;
use jiff::Timestamp;
use node_api::v1 as wire;
use node_shim_core::local_hosts::LocalHosts;
use node_shim_core::table::{FunctionEntry, FunctionKey, Limits};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::console::Console;
use super::manifest::Function;
use super::render::ServedLimits;
use super::rollout::{Line, Rollout};
use crate::clock::unix_ms;
use crate::code_cache::CompiledComponent;
use crate::data_plane::DataPlane;
use crate::function_cache::FunctionCounts;
use crate::revision::Revision;
use crate::routing_table::{RevisionSlot, RoutingTable, ServedFunction};
use crate::supervisor::parse_record;

/// A revision that is loaded.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) definition: wire::Definition,
    pub(super) code: Arc<CompiledComponent>,
    pub(super) revision: Arc<Revision>,
}

/// A function as its files ask for it.
pub(super) struct Next {
    pub(super) function: Function,
    pub(super) loaded: Loaded,
}

/// What is served, and the data plane that serves it. Its rollouts go on while a build runs.
pub(super) struct Board {
    plane: DataPlane,
    console: Console,
    /// Whether a new revision has to prove itself.
    rollouts: bool,
    state: Mutex<State>,
    /// Wakes [`Self::play`] after a change.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Number of the last version that was published.
    version: u64,
    /// In the order of the manifests.
    functions: Vec<Served>,
}

/// How long it took to load a version, and how much of it was compiled before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loading {
    pub(super) took: Duration,
    pub(super) functions: FunctionCounts,
}

impl fmt::Display for Loading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loaded in {} ms", self.took.as_millis())?;
        let FunctionCounts { reused, compiled } = self.functions;
        if reused > 0 {
            let all = reused + compiled;
            write!(f, ", {reused} of {all} functions from the cache")?;
        }
        Ok(())
    }
}

struct Served {
    function: Function,
    /// The desired revision and those that a rollout still needs, by name.
    revisions: BTreeMap<String, Loaded>,
    /// What the files ask for; equal records need no new version.
    asked: wire::FunctionRecord,
    entry: ServedFunction,
    rollout: Option<Rollout>,
}

impl Board {
    pub(super) fn new(plane: DataPlane, console: Console, rollouts: bool) -> Self {
        Self {
            plane,
            console,
            rollouts,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) const fn plane(&self) -> &DataPlane {
        &self.plane
    }

    /// Returns the number of the last version that was published.
    pub(super) fn version(&self) -> u64 {
        self.state.lock().version
    }

    /// Returns a revision of the function with this content, under whatever name.
    pub(super) fn same(&self, function: &Function, digest: &str, size: u64) -> Option<Loaded> {
        let state = self.state.lock();
        let served = state.functions.iter();
        let mut served = served.filter(|served| served.function.key == function.key);
        let mut loaded = served.next()?.revisions.iter();
        let same = |loaded: &(&String, &Loaded)| {
            function.definition(loaded.0, digest, size) == loaded.1.definition
        };
        loaded.find(same).map(|(_, loaded)| loaded.clone())
    }

    /// Returns the code of a component that is loaded.
    pub(super) fn code(&self, digest: &str) -> Option<Arc<CompiledComponent>> {
        let state = self.state.lock();
        let mut loaded = state.functions.iter().flat_map(|served| &served.revisions);
        let found = loaded.find(|(_, loaded)| loaded.definition.digest == digest)?;
        Some(Arc::clone(&found.1.code))
    }

    /// Returns the first host of a function, which local addresses stand for.
    pub(super) fn first_host(&self, key: &FunctionKey) -> String {
        let state = self.state.lock();
        let mut served = state.functions.iter();
        let served = served.find(|served| served.function.key == *key);
        let routes = served.map(|served| served.entry.entry.routes.as_slice());
        let mut hosts = routes.into_iter().flatten().flat_map(|route| &route.hosts);
        hosts.next().cloned().unwrap_or_default()
    }

    /// Serves what the files ask for. With rollouts, a new revision becomes the candidate. Requests that have begun keep the
    /// old table. Returns whether anything was different.
    ///
    /// # Errors
    /// Fails when a node would not accept a function.
    pub(super) fn replace(&self, next: Vec<Next>, loading: Loading) -> anyhow::Result<bool> {
        let now = now();
        let mut state = self.state.lock();
        let asked = |next: &Next| {
            let definition = next.loaded.definition.clone();
            let split = whole(&definition.revision);
            next.function.record(vec![definition], split)
        };
        let records: Vec<wire::FunctionRecord> = next.iter().map(asked).collect();
        if records.iter().eq(state.functions.iter().map(|s| &s.asked)) {
            let changed = self.rollouts && state.change_policies(next);
            if changed {
                self.console
                    .note("The settings of the rollout have changed: they apply to the next one");
            }
            return Ok(changed);
        }
        let mut entries = Vec::new();
        for (next, record) in next.iter().zip(&records) {
            let parsed = parse_record::parse(record);
            entries.push(parsed.with_context(|| next.function.key.to_string())?.entry);
        }
        let mut old: BTreeMap<FunctionKey, Served> = std::mem::take(&mut state.functions)
            .into_iter()
            .map(|served| (served.function.key.clone(), served))
            .collect();
        state.version += 1;
        let keys: Vec<String> = next.iter().map(|n| n.function.key.to_string()).collect();
        let (mut lines, mut refused) = (Vec::new(), None);
        for ((next, asked), entry) in next.into_iter().zip(records).zip(entries) {
            let before = old.remove(&next.function.key);
            let mut served = self.desire(before, next, (asked, entry), now);
            lines.extend(served.advance(now, keys.len() > 1));
            refused = served.rebuild().err().or(refused);
            state.functions.push(served);
        }
        self.publish(&state, true);
        let verb = if self.rollouts && state.version > 1 {
            "Loaded"
        } else {
            "Serving"
        };
        self.console.note(format!(
            "{verb} version {} of {} ({loading})",
            state.version,
            keys.join(", ")
        ));
        self.show(lines);
        drop(state);
        self.changed.notify_one();
        refused.map_or(Ok(true), Err)
    }

    /// Plays the rollouts until the future is dropped.
    pub(super) async fn play(&self) {
        loop {
            let wake_at = self.wake_at();
            let due = async {
                match wake_at {
                    Some(at) => {
                        let left = Duration::try_from(at.duration_since(now()));
                        tokio::time::sleep(left.unwrap_or_default()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.advance(now()),
                () = self.changed.notified() => {}
            }
        }
    }

    fn wake_at(&self) -> Option<Timestamp> {
        let state = self.state.lock();
        let rollouts = state.functions.iter().filter_map(|s| s.rollout.as_ref());
        rollouts.filter_map(Rollout::wake_at).min()
    }

    /// Makes the decisions that are due.
    fn advance(&self, now: Timestamp) {
        let mut state = self.state.lock();
        let several = state.functions.len() > 1;
        let (mut lines, mut changed) = (Vec::new(), false);
        for served in &mut state.functions {
            let due = served.rollout.as_ref().and_then(Rollout::wake_at);
            if due.is_none_or(|due| due > now) {
                continue;
            }
            lines.extend(served.advance(now, several));
            // a record that was accepted with one revision is accepted with two of them
            changed |= served.rebuild().unwrap_or(false);
        }
        if changed {
            self.publish(&state, false);
        }
        self.show(lines);
    }

    /// Returns the function with its desired revision.
    fn desire(
        &self,
        before: Option<Served>,
        next: Next,
        (asked, entry): (wire::FunctionRecord, Arc<FunctionEntry>),
        now: Timestamp,
    ) -> Served {
        let Next { function, loaded } = next;
        let name = loaded.definition.revision.clone();
        let desired = desired(&loaded);
        let policy = &function.rollout.policy;
        let (mut revisions, rollout) = match before {
            Some(Served {
                revisions,
                rollout: Some(mut rollout),
                ..
            }) => {
                rollout.desire(desired, policy);
                (revisions, Some(rollout))
            }
            _ => {
                let started = || Rollout::new(&function.key, desired, policy, now);
                (BTreeMap::new(), self.rollouts.then(started))
            }
        };
        let ready = RevisionSlot::Ready(Arc::clone(&loaded.revision));
        revisions.insert(name, loaded);
        Served {
            entry: ServedFunction {
                entry,
                stable: ready,
                candidate: RevisionSlot::Absent,
            },
            function,
            revisions,
            asked,
            rollout,
        }
    }

    /// Publishes the functions. `other` is whether more than the division of requests may have changed.
    fn publish(&self, state: &State, other: bool) {
        let served: Vec<ServedFunction> = state.functions.iter().map(|s| s.entry.clone()).collect();
        if !other {
            let table = self.plane.table().with_functions(state.version, served);
            self.plane.publish(Arc::new(table));
            return;
        }
        let local = LocalHosts::of(served.iter().map(|served| served.entry.as_ref()));
        self.console.set_served(ServedLimits {
            functions: state.functions.iter().filter_map(Served::limits).collect(),
        });
        let table = RoutingTable::new(state.version, served).with_local_hosts(local);
        self.plane.publish(Arc::new(table));
    }

    fn show(&self, lines: Vec<Line>) {
        for line in lines {
            match line {
                Line::Note(text) => self.console.note(text),
                Line::Warning(text) => self.console.failure(text),
            }
        }
    }
}

impl State {
    /// Takes over the policies of functions that are the same otherwise. Returns whether any was different.
    fn change_policies(&mut self, next: Vec<Next>) -> bool {
        let mut changed = false;
        for (served, next) in self.functions.iter_mut().zip(next) {
            if served.function.rollout.policy == next.function.rollout.policy {
                continue;
            }
            served.function = next.function;
            if let Some(rollout) = &mut served.rollout {
                rollout.desire(desired(&next.loaded), &served.function.rollout.policy);
                changed = true;
            }
        }
        changed
    }
}

impl Served {
    /// Lets the rollout decide, and drops the revisions that it no longer needs.
    fn advance(&mut self, now: Timestamp, several: bool) -> Vec<Line> {
        let Some(rollout) = &mut self.rollout else {
            return Vec::new();
        };
        let split = rollout.split();
        let counted = [&split.stable, &split.candidate]
            .into_iter()
            .filter_map(|name| self.revisions.get(name))
            .map(|loaded| loaded.revision.counters.snapshot())
            .collect::<Vec<_>>();
        let lines = rollout.advance(now, &counted);
        self.revisions.retain(|name, _| rollout.keeps(name));
        if !several {
            return lines;
        }
        let name = &self.function.key.name;
        let named = |text| format!("{name}: {text}");
        lines
            .into_iter()
            .map(|line| match line {
                Line::Note(text) => Line::Note(named(text)),
                Line::Warning(text) => Line::Warning(named(text)),
            })
            .collect()
    }

    /// Builds the entry of the table. Returns whether it has changed.
    ///
    /// # Errors
    /// Fails when a node would not accept the function.
    fn rebuild(&mut self) -> anyhow::Result<bool> {
        let split = match &self.rollout {
            Some(rollout) => rollout.split(),
            None => self.asked.split.clone().unwrap_or_default(),
        };
        let loaded = |name: &str| self.revisions.get(name);
        let slot = |name: &str| match loaded(name) {
            Some(loaded) => RevisionSlot::Ready(Arc::clone(&loaded.revision)),
            None => RevisionSlot::Absent,
        };
        let (stable, candidate) = (slot(&split.stable), slot(&split.candidate));
        let definitions = [&split.stable, &split.candidate]
            .into_iter()
            .filter_map(|name| loaded(name))
            .map(|loaded| loaded.definition.clone());
        let record = self.function.record(definitions.collect(), split);
        let parsed = parse_record::parse(&record).with_context(|| self.function.key.to_string())?;
        let changed = parsed.entry != self.entry.entry;
        self.entry = ServedFunction {
            entry: parsed.entry,
            stable,
            candidate,
        };
        Ok(changed)
    }

    fn limits(&self) -> Option<((String, String), Limits)> {
        let revision = self.entry.stable.ready()?;
        let key = &self.function.key;
        let id = (key.namespace.to_string(), key.name.to_string());
        Some((id, revision.spec.limits.clone()))
    }
}

fn desired(loaded: &Loaded) -> Desired {
    Desired {
        name: loaded.definition.revision.clone(),
        digest: loaded.definition.digest.clone(),
    }
}

/// Returns the split that gives one revision all requests.
fn whole(revision: &str) -> wire::TrafficSplit {
    wire::TrafficSplit {
        stable: revision.to_owned(),
        ..wire::TrafficSplit::default()
    }
}

fn now() -> Timestamp {
    let millis = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}
