//! Watches of one function and of its revisions.

use std::collections::BTreeMap;

use crds::{EdgeFunction, EdgeRevision, LABEL_FUNCTION};
use futures::StreamExt;
use futures::stream::BoxStream;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, watcher::watch_object};

use crate::cluster::{Cluster, named};

/// What a watch reported.
pub(crate) enum Report {
    /// The function, or one of its revisions, is another than before.
    Changed,
    /// The function does not exist.
    Missing,
    /// The watch was interrupted, for this reason. It continues by itself.
    Interrupted(String),
}

/// The newest versions of a function and of its revisions.
pub(crate) struct Follow {
    /// Newest version of the function. `None` until it was read.
    pub(crate) function: Option<EdgeFunction>,
    /// Kept revisions by name. Empty if they cannot be read.
    pub(crate) revisions: BTreeMap<String, EdgeRevision>,
    functions: BoxStream<'static, watcher::Result<Option<EdgeFunction>>>,
    revision_events: BoxStream<'static, watcher::Result<Event<EdgeRevision>>>,
    listed: Vec<EdgeRevision>,
}

impl Follow {
    /// Watches a function. Revisions are watched with it if `with_revisions`.
    pub(crate) fn start(cluster: &Cluster, name: &str, with_revisions: bool) -> Self {
        let functions = watch_object(cluster.functions(), name).default_backoff();
        let selected = watcher::Config::default().labels(&format!("{LABEL_FUNCTION}={name}"));
        let revision_events = if with_revisions {
            let events = watcher(cluster.revisions(), selected);
            events.default_backoff().boxed()
        } else {
            futures::stream::pending().boxed()
        };
        Self {
            function: None,
            revisions: BTreeMap::new(),
            functions: functions.boxed(),
            revision_events,
            listed: Vec::new(),
        }
    }

    /// Waits for the next report. Cancelling loses nothing.
    pub(crate) async fn next(&mut self) -> Report {
        loop {
            tokio::select! {
                Some(function) = self.functions.next() => match function {
                    Ok(Some(function)) => {
                        self.function = Some(function);
                        return Report::Changed;
                    }
                    Ok(None) => return Report::Missing,
                    Err(error) => {
                        let error = anyhow::Error::from(error);
                        return Report::Interrupted(crate::cluster::explain(&error));
                    }
                },
                Some(Ok(event)) = self.revision_events.next() => {
                    if self.note(event) && self.function.is_some() {
                        return Report::Changed;
                    }
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Takes over an event of a revision. Returns whether the set of revisions is complete.
    fn note(&mut self, event: Event<EdgeRevision>) -> bool {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(revision) => self.listed.push(revision),
            Event::InitDone => {
                self.revisions = named(std::mem::take(&mut self.listed));
                return true;
            }
            Event::Apply(revision) => {
                self.revisions.extend(named(vec![revision]));
                return true;
            }
            Event::Delete(revision) => {
                let name = revision.metadata.name.unwrap_or_default();
                return self.revisions.remove(&name).is_some();
            }
        }
        false
    }
}
