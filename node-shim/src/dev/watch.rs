//! Wakes up when files change. What has changed is read from the files themselves, so a lost or a late event does no harm.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Time without an event after which a change counts as complete: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// Watches folders, without those below them.
pub(super) struct Watcher {
    watcher: RecommendedWatcher,
    events: mpsc::UnboundedReceiver<()>,
    watched: BTreeSet<PathBuf>,
}

/// Returns whether an event may be a change. Reading a file is none.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

impl Watcher {
    /// Starts without folders.
    ///
    /// # Errors
    /// Fails when this user has used up the watchers that the kernel permits.
    pub(super) fn new() -> notify::Result<Self> {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // an error may hide a change
            if event.as_ref().map_or(true, is_change) {
                // the receiver is gone at the end of the program
                let _ = sender.send(());
            }
        })?;
        Ok(Self {
            watcher,
            events,
            watched: BTreeSet::new(),
        })
    }

    /// Watches these folders and no others. Returns whether one of them was not watched before, so that files in it may have
    /// changed without an event.
    ///
    /// # Errors
    /// Fails when a folder that exists cannot be watched, such as above the number that the kernel permits.
    pub(super) fn watch(&mut self, folders: BTreeSet<PathBuf>) -> notify::Result<bool> {
        for gone in self.watched.difference(&folders) {
            // a folder that was removed is no longer watched
            let _ = self.watcher.unwatch(gone);
        }
        // also those that are watched already: a folder that was removed and created again is another one
        for folder in &folders {
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Err(error) if folder.exists() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let new = !folders.is_subset(&self.watched);
        self.watched = folders;
        Ok(new)
    }

    /// Waits until something has changed and then nothing changes for a moment.
    pub(super) async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            // the watcher lives as long as this
            std::future::pending::<()>().await;
        }
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.events.recv()).await {}
    }
}
