//! The compiler process's view of the cache: functions that it may reuse, and those that it adds.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use wasmtime::CacheStore;

use super::pack::{Key, PackWriter, Record, records};
use super::{FunctionCounts, MAX_PACK};

/// Functions of earlier compilations, and the file that receives those of this one. Never fails: a function that cannot be
/// read is compiled, and one that cannot be written is compiled again the next time.
#[derive(Debug)]
pub(crate) struct FunctionStore {
    pack: File,
    index: HashMap<Key, Record>,
    /// `None` after a write has failed.
    added: Mutex<Option<PackWriter<BufWriter<File>>>>,
    reused: AtomicU64,
    compiled: AtomicU64,
}

impl FunctionStore {
    /// Reads the index of `pack`, which the caller has authenticated. `added` is empty.
    pub(crate) fn new(pack: File, added: File) -> Self {
        let index = records(&pack).unwrap_or_default().into_iter();
        Self {
            index: index.map(|record| (record.key, record)).collect(),
            pack,
            added: Mutex::new(PackWriter::new(BufWriter::new(added), MAX_PACK).ok()),
            reused: AtomicU64::new(0),
            compiled: AtomicU64::new(0),
        }
    }

    /// Writes the functions that are still buffered. Returns how many functions were reused and compiled.
    pub(crate) fn finish(&self) -> FunctionCounts {
        if let Some(added) = &mut *self.added.lock() {
            // the reader ends at the first incomplete function
            let _ = added.flush();
        }
        FunctionCounts {
            reused: self.reused.load(Ordering::Relaxed),
            compiled: self.compiled.load(Ordering::Relaxed),
        }
    }

    fn append(&self, key: &Key, code: &[u8]) -> bool {
        let mut added = self.added.lock();
        let Some(writer) = &mut *added else {
            return false;
        };
        writer.append(key, code).unwrap_or_else(|_| {
            *added = None;
            false
        })
    }
}

impl CacheStore for FunctionStore {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let key = Key::try_from(key).ok()?;
        let code = self.index.get(&key)?.code(&self.pack).ok()?;
        self.reused.fetch_add(1, Ordering::Relaxed);
        self.append(&key, &[]);
        Some(Cow::Owned(code))
    }

    fn insert(&self, key: &[u8], code: Vec<u8>) -> bool {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        Key::try_from(key).is_ok_and(|key| self.append(&key, &code))
    }
}
