//! Thread that owns the state on disk. It waits for the lock, writes the newest table at most once per second and
//! deletes files beyond the disk budget. A disk that hangs blocks only this thread.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};

use crate::disk::{
    DiskBudget, DiskHealth, PersistedTable, StateDir, StateLock, TableFile, collect_garbage,
    remove_stale_drafts,
};
use crate::native_cache::NativeCache;

/// Interval of attempts to take the lock.
const POLL: Duration = Duration::from_millis(250);
/// Minimum time between two writes of the table.
const WRITE_GAP: Duration = Duration::from_secs(1);
/// Minimum time between two garbage collections.
const COLLECT_GAP: Duration = Duration::from_secs(60);

/// State to write, and the files that must not be deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) table: PersistedTable,
    /// Digests (hex) to which the table refers.
    pub(crate) needed: BTreeSet<String>,
    /// Functions with recent traffic, in the format of `RecentTraffic::to_text`.
    pub(crate) recent_traffic: String,
}

/// Disk usage and errors for the metrics page.
#[derive(Debug, Default)]
pub(crate) struct DiskUsage {
    /// Size of stored components, in bytes.
    pub(crate) blob_bytes: AtomicU64,
    /// Size of stored native code, in bytes.
    pub(crate) native_bytes: AtomicU64,
    /// Size of stored compiled functions, in bytes.
    pub(crate) function_bytes: AtomicU64,
    /// Number of failed writes of the table.
    pub(crate) persist_errors: AtomicU64,
    /// Number of tables that were damaged and could not be read.
    pub(crate) damaged_tables: AtomicU64,
}

enum Command {
    Save(Box<Snapshot>),
    Stop(oneshot::Sender<()>),
}

/// Handle of the thread that writes the state.
#[derive(Clone)]
pub(crate) struct StateWriter {
    commands: Sender<Command>,
}

struct WriterThread {
    dir: StateDir,
    file: TableFile,
    lock: Option<StateLock>,
    cache: Arc<NativeCache>,
    health: Arc<DiskHealth>,
    disk_usage: Arc<DiskUsage>,
    inherited: mpsc::Sender<PersistedTable>,
    pending: Option<Box<Snapshot>>,
    needed: Option<BTreeSet<String>>,
    written: Option<Instant>,
    collected: Option<Instant>,
}

impl StateWriter {
    /// Starts the thread.
    ///
    /// `lock` is the lock if the caller has already taken it. Otherwise the thread takes it later and sends the table
    /// of the previous owner to `inherited`. `cache` must use the same directory.
    ///
    /// # Errors
    /// Fails when the thread cannot be started.
    pub(crate) fn start(
        dir: &StateDir,
        lock: Option<StateLock>,
        cache: Arc<NativeCache>,
        health: Arc<DiskHealth>,
        disk_usage: Arc<DiskUsage>,
        inherited: mpsc::Sender<PersistedTable>,
    ) -> io::Result<Self> {
        let (commands, receiver) = channel();
        let thread = WriterThread {
            dir: dir.clone(),
            file: TableFile::new(dir),
            lock,
            cache,
            health,
            disk_usage,
            inherited,
            pending: None,
            needed: None,
            written: None,
            collected: None,
        };
        std::thread::Builder::new()
            .name("state-writer".into())
            .spawn(move || thread.run(&receiver))?;
        Ok(Self { commands })
    }

    /// Passes the newest state to the thread, which writes it later.
    pub(crate) fn save(&self, snapshot: Snapshot) {
        let _ = self.commands.send(Command::Save(Box::new(snapshot)));
    }

    /// Writes the pending state, releases the lock and ends the thread. Stops waiting after `timeout`.
    pub(crate) async fn stop(&self, timeout: Duration) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(Command::Stop(done)).is_ok() {
            let _ = tokio::time::timeout(timeout, finished).await;
        }
    }
}

impl WriterThread {
    fn run(mut self, commands: &Receiver<Command>) {
        if let Some(lock) = &self.lock {
            remove_stale_drafts(&self.dir, lock, SystemTime::now());
        }
        loop {
            match commands.recv_timeout(POLL) {
                Ok(Command::Save(snapshot)) => self.set_pending(snapshot),
                Ok(Command::Stop(done)) => {
                    self.write();
                    self.lock = None;
                    let _ = done.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.try_take_lock();
            let due = |at: Option<Instant>, gap| at.is_none_or(|at| at.elapsed() >= gap);
            if self.pending.is_some() && due(self.written, WRITE_GAP) {
                self.write();
            }
            if due(self.collected, COLLECT_GAP) {
                self.collect();
            }
        }
    }

    fn set_pending(&mut self, snapshot: Box<Snapshot>) {
        self.needed = Some(snapshot.needed.clone());
        self.pending = Some(snapshot);
    }

    /// Takes the lock if its previous owner has released it, and passes on that owner's table, which may be newer.
    fn try_take_lock(&mut self) {
        if self.lock.is_some() {
            return;
        }
        if let Ok(Some(lock)) = StateLock::try_take(&self.dir) {
            remove_stale_drafts(&self.dir, &lock, SystemTime::now());
            let (table, damaged) = self.file.load(Some(&lock));
            self.disk_usage
                .damaged_tables
                .fetch_add(damaged, Ordering::Relaxed);
            self.lock = Some(lock);
            tracing::info!("took the lock; this process now writes the node's state");
            if let Some(table) = table {
                let _ = self.inherited.blocking_send(table);
            }
        }
    }

    fn write(&mut self) {
        let (Some(snapshot), Some(lock)) = (&self.pending, &self.lock) else {
            return;
        };
        self.written = Some(Instant::now());
        let recent_traffic = self.dir.state().join("hot");
        let written = self.file.save(lock, &snapshot.table).and_then(|()| {
            let draft = recent_traffic.with_extension("draft");
            fs::write(&draft, &snapshot.recent_traffic)
                .and_then(|()| fs::rename(draft, &recent_traffic))
        });
        match written {
            Ok(()) => {
                self.health.succeeded();
                self.pending = None;
            }
            Err(error) => {
                self.disk_usage
                    .persist_errors
                    .fetch_add(1, Ordering::Relaxed);
                self.health.failed(&error);
            }
        }
    }

    fn collect(&mut self) {
        let (Some(needed), Some(lock)) = (&self.needed, &self.lock) else {
            return;
        };
        self.collected = Some(Instant::now());
        let stored = collect_garbage(
            &self.dir,
            lock,
            DiskBudget::default(),
            needed,
            self.cache.engine(),
        );
        self.cache.forget_removed();
        self.disk_usage
            .blob_bytes
            .store(stored.blobs, Ordering::Relaxed);
        self.disk_usage
            .native_bytes
            .store(stored.native, Ordering::Relaxed);
        self.disk_usage
            .function_bytes
            .store(stored.functions, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::TableHeader;

    fn snapshot(version: u64) -> Snapshot {
        let header = TableHeader {
            version,
            ..TableHeader::default()
        };
        Snapshot {
            table: PersistedTable {
                header,
                ..PersistedTable::default()
            },
            ..Snapshot::default()
        }
    }

    fn state_writer(
        dir: &StateDir,
        lock: Option<StateLock>,
    ) -> (StateWriter, mpsc::Receiver<PersistedTable>) {
        let cache = NativeCache::open(dir, "e", Arc::default()).unwrap();
        let cache = Arc::new(cache);
        let (inherited, receiver) = mpsc::channel(1);
        (
            StateWriter::start(dir, lock, cache, Arc::default(), Arc::default(), inherited)
                .unwrap(),
            receiver,
        )
    }

    /// A new process next to an old one waits for the lock and then reads the last table of the old one.
    #[tokio::test]
    async fn the_lock_and_the_last_table_pass_from_the_old_process_to_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        dir.create().unwrap();
        let (old, _) = state_writer(&dir, StateLock::try_take(&dir).unwrap());
        assert!(StateLock::try_take(&dir).unwrap().is_none());
        let (new, mut inherited) = state_writer(&dir, None);
        new.save(snapshot(1));
        old.save(snapshot(5));
        old.stop(Duration::from_secs(10)).await;
        assert_eq!(inherited.recv().await.unwrap().header.version, 5);
        new.stop(Duration::from_secs(10)).await;
        let (table, _) = TableFile::new(&dir).load(None);
        assert_eq!(
            table.unwrap().header.version,
            1,
            "written after the lock was taken"
        );
    }
}
