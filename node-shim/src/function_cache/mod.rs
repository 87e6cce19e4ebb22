//! On-disk cache of compiled functions, from which a later version of a component takes those that have not changed.
//!
//! A component of an interpreted language consists of the same engine in every version, whose compilation takes seconds.
//! The compiler looks each function up by a hash of its intermediate code and of everything else that its native code
//! depends on. In version 0.135 of Cranelift, that hash contains exception tables of the function that the same thread
//! compiled before, if that was a trampoline, so a few functions are compiled again without need.
//!
//! # Trust
//!
//! The code in the cache is executed, and nothing can verify that it does what its key promises. So it comes only from
//! compiler processes of this node, never from a registry, a peer or a user, and it is authenticated like whole native
//! code: the supervisor seals it with the key of the node, which the compiler process does not have. The process gets a
//! descriptor of the authenticated file, which it can only read, and an empty file for the functions that it compiles.
//!
//! A component that takes its compiler process over can return anything, under any key. Therefore namespaces share
//! nothing: the functions of a namespace's components are in its own file, and a component that several namespaces use is
//! compiled without the cache, because none of them may decide on the code of the others.
//!
//! Failures of the cache never fail a compilation.

mod pack;
mod store;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::disk::{
    DiskBudget, DiskHealth, Draft, StateDir, StateLock, collect_garbage, remove_stale_drafts,
};
use crate::native_cache::{SealedFolder, Verdict};
use crate::resource_exhaustion;
use pack::{Key, MAX_RECORDS, PackWriter, Record, records};

pub(crate) use store::FunctionStore;

/// Maximum size in bytes of the functions of one namespace, and of what one compilation adds.
const MAX_PACK: u64 = 96 << 20;
/// Kind and format of the files.
const FORMAT: &[u8] = b"selvage compiled functions 1\0";

/// Number of functions of a component that were taken from the cache, and that were compiled.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct FunctionCounts {
    /// Functions that were taken from the cache.
    pub reused: u64,
    /// Functions that were compiled.
    pub compiled: u64,
}

/// Files of one compilation that uses the cache.
#[derive(Debug)]
pub struct FunctionExchange {
    namespace: String,
    pack: File,
    added: Draft,
    /// Handle of `added`, for the compiler process.
    handle: File,
    counts: FunctionCounts,
}

/// Compiled functions for one engine and one CPU type, in a file for each namespace.
pub struct FunctionCache {
    files: SealedFolder,
    engine: String,
    health: Arc<DiskHealth>,
    /// Maximum size of the file of a namespace in bytes.
    max_pack: u64,
    /// Held while the functions of a compilation are added, so that no others are lost.
    merging: Mutex<()>,
    /// Held for writing while a file and its HMAC are replaced, which are two steps.
    replacing: RwLock<()>,
    reused: AtomicU64,
    compiled: AtomicU64,
    /// The directory, if other processes write to it too. They hold its lock while they read or replace a file.
    shared: Option<StateDir>,
}

impl std::fmt::Debug for FunctionCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the key must not be logged
        f.debug_struct("FunctionCache")
            .field("folder", &self.files.folder())
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl FunctionExchange {
    /// Returns the file of functions that the compiler process may reuse, and the one that it writes to.
    pub(crate) fn files(&self) -> (&File, &File) {
        (&self.pack, &self.handle)
    }

    /// Reads what the compiler process reported.
    pub(crate) fn set_counts(&mut self, report: &[u8]) {
        let FunctionCounts { reused, compiled } =
            serde_json::from_slice(report).unwrap_or_default();
        // a process under foreign control may report anything
        self.counts = FunctionCounts {
            reused: reused.min(MAX_RECORDS as u64),
            compiled: compiled.min(MAX_RECORDS as u64),
        };
    }

    /// Returns how many functions the compiler process reused and compiled, according to itself.
    #[must_use]
    pub fn counts(&self) -> FunctionCounts {
        self.counts
    }
}

impl FunctionCache {
    /// Opens the cache below `dir` for the engine and CPU of [`NativeCache::engine`](crate::native_cache::NativeCache).
    ///
    /// # Errors
    /// Returns an error when the system provides no random bytes.
    pub fn open(dir: &StateDir, engine: &str, health: Arc<DiskHealth>) -> io::Result<Self> {
        Ok(Self {
            files: SealedFolder::open(dir, dir.functions(), FORMAT, Arc::clone(&health))?,
            engine: engine.to_owned(),
            health,
            max_pack: MAX_PACK,
            merging: Mutex::default(),
            replacing: RwLock::default(),
            reused: AtomicU64::new(0),
            compiled: AtomicU64::new(0),
            shared: None,
        })
    }

    /// Opens a cache that several processes use at the same time. `dir` has nothing else, and the processes delete the
    /// functions that were not used for the longest time when it exceeds the [`DiskBudget`].
    ///
    /// # Errors
    /// Returns an error when the directory cannot be written or locked, or the system provides no random bytes.
    pub(crate) fn open_shared(dir: StateDir, engine: &str) -> io::Result<Self> {
        fs::create_dir_all(dir.functions())?;
        let lock = StateLock::wait(&dir)?;
        remove_stale_drafts(&dir, &lock, SystemTime::now());
        let cache = Self::open(&dir, engine, Arc::default())?;
        Ok(Self {
            shared: Some(dir),
            ..cache
        })
    }

    /// Returns the files for the compilation of a component that only this namespace uses. Authenticates the functions of
    /// the namespace, so call it where blocking is allowed.
    ///
    /// # Errors
    /// Returns an error when neither disk nor memory has room for an empty file, or a shared directory cannot be locked.
    pub fn begin(&self, namespace: &str) -> io::Result<FunctionExchange> {
        let lock = self.lock()?;
        let found = self.authentic(&self.name(namespace));
        drop(lock);
        let pack = match found {
            Some(pack) => pack,
            None => Draft::in_memory(&self.health)?.handle()?,
        };
        let added = self.files.draft()?;
        Ok(FunctionExchange {
            namespace: namespace.to_owned(),
            pack,
            handle: added.handle()?,
            added,
            counts: FunctionCounts::default(),
        })
    }

    /// Stores the functions that a successful compilation added. Writes the whole file of the namespace, so call it where
    /// blocking is allowed.
    pub fn finish(&self, exchange: &FunctionExchange) {
        let FunctionCounts { reused, compiled } = exchange.counts;
        self.reused.fetch_add(reused, Ordering::Relaxed);
        self.compiled.fetch_add(compiled, Ordering::Relaxed);
        tracing::debug!(
            reused,
            compiled,
            "compiled with the functions of earlier versions"
        );
        if let Err(error) = self.merge(exchange) {
            tracing::warn!(%error, "compiled functions cannot be stored; later versions of the component compile them again");
        }
    }

    /// Returns the sums of all compilations that used the cache.
    #[must_use]
    pub fn totals(&self) -> FunctionCounts {
        FunctionCounts {
            reused: self.reused.load(Ordering::Relaxed),
            compiled: self.compiled.load(Ordering::Relaxed),
        }
    }

    /// Replaces the file of the namespace: functions that the compilation used come first, then others until the file is
    /// full. So those that no version uses any longer disappear.
    fn merge(&self, exchange: &FunctionExchange) -> io::Result<()> {
        let new = records(&exchange.handle)?;
        if exchange.added.is_in_memory() || new.iter().all(|record| record.length == 0) {
            // the disk fails; or nothing is new, and the time of the last use was set when the file was opened
            return Ok(());
        }
        let name = self.name(&exchange.namespace);
        let _merging = self.merging.lock();
        let lock = self.lock()?;
        let old_file = self.authentic(&name);
        let old = old_file.as_ref().map(records).transpose()?;
        let old = old.unwrap_or_default();
        let draft = BufWriter::new(self.files.draft()?);
        let mut writer = PackWriter::new(draft, self.max_pack)?;
        for source in order(&new, &old) {
            let (record, file) = match source {
                Source::Added(record) => (record, &exchange.handle),
                Source::Kept(record) => match &old_file {
                    Some(file) => (record, file),
                    None => continue,
                },
            };
            if writer.fits(record.size()) {
                writer.append(&record.key, &record.code(file)?)?;
            }
        }
        let draft = writer.finish()?.into_inner().map_err(io::Error::from)?;
        let _replacing = self.replacing.write();
        self.files.seal(draft, &name)?;
        if let (Some(dir), Some(lock)) = (&self.shared, &lock) {
            collect_garbage(dir, lock, DiskBudget::default(), &BTreeSet::new(), "");
        }
        Ok(())
    }

    /// Excludes the other processes that use a shared directory. `None` when it is not shared.
    fn lock(&self) -> io::Result<Option<StateLock>> {
        self.shared.as_ref().map(StateLock::wait).transpose()
    }

    /// Opens a file if it is authentic. Removes it if it is not.
    fn authentic(&self, name: &str) -> Option<File> {
        let _unchanged = self.replacing.read();
        let mut file = match self.files.open_file(name) {
            Ok(file) => file,
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || resource_exhaustion::is_resource_exhaustion(&error) =>
            {
                return None;
            }
            Err(_) => {
                self.files.remove(name);
                return None;
            }
        };
        match self.files.verify(name, &mut file) {
            Verdict::Authentic => {
                let _ = file.set_modified(SystemTime::now());
                Some(file)
            }
            Verdict::Rejected(why) => {
                tracing::warn!(name, why, "compiled functions rejected and removed");
                self.files.remove(name);
                None
            }
            Verdict::ResourceExhausted(_) => None,
        }
    }

    /// Returns the file name of a namespace. It is hashed, because it comes from the network.
    fn name(&self, namespace: &str) -> String {
        let hash = hex::encode(Sha256::digest(namespace));
        format!("{hash}-{}", self.engine)
    }
}

/// A function of the next file, and where its code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Added(Record),
    Kept(Record),
}

/// Returns the functions in the order of their last use, each one once.
fn order(new: &[Record], old: &[Record]) -> Vec<Source> {
    let kept: HashMap<&Key, &Record> = old.iter().map(|record| (&record.key, record)).collect();
    let added = new.iter().filter(|record| record.length > 0);
    let added = added.map(|record| Source::Added(*record));
    let reused = new.iter().filter(|record| record.length == 0);
    let reused = reused.filter_map(|record| kept.get(&record.key).copied());
    let sources = added.chain(reused.chain(old).map(|record| Source::Kept(*record)));
    let mut seen = HashSet::new();
    sources
        .filter(|(Source::Added(record) | Source::Kept(record))| seen.insert(record.key))
        .collect()
}

#[cfg(test)]
mod tests;
