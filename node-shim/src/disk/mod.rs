//! The state directory of a node: the last function table, components and native code.
//!
//! ```text
//! lock                         held by the process that may change state/ and delete files
//! node.key                     0600; authenticates native code (cache)
//! state/table, table.previous  the last table applied, and the one before it
//! state/hot                    functions with recent traffic, one per line
//! state/refused                components that failed permanently, one per line
//! state/compiling/             compilations that have begun and not ended, one file each
//! blobs/sha256/<hex>           components as pulled
//! native/<digest>-<engine>-<cpu>, .mac
//! functions/<namespace>-<engine>-<cpu>, .mac
//!                              compiled functions that later versions of components reuse
//! ```
//!
//! Two processes share the directory while a new pod starts beside the old one on its node. Components and
//! native code are named by content and created by rename, so both processes may write them and neither
//! reads an incomplete file. Only the holder of `lock` replaces the table and deletes files. The new pod
//! reads the directory while it waits for the lock, and reads the table again when it has acquired it. A
//! failing disk does not stop the process: drafts and the table stay in memory, and [`DiskHealth`] reports
//! the error.

mod blobs;
mod draft;
mod gc;
mod health;
mod lock;
mod prepare;
mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use blobs::Blobs;
pub use draft::Draft;
pub use gc::{DiskBudget, StoredBytes, collect_garbage, remove_stale_drafts};
pub use health::DiskHealth;
pub use lock::StateLock;
pub use prepare::prepare;
pub(crate) use table::without_secrets;
pub use table::{PersistedTable, TableFile, TableHeader};

/// Name prefix of temporary files.
pub(crate) const DRAFT_PREFIX: &str = ".draft-";

/// Paths of the state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Returns the paths below `root`, which does not have to exist.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Creates the missing directories.
    ///
    /// # Errors
    /// Returns the error of the file system. Callers can continue in memory.
    pub fn create(&self) -> io::Result<()> {
        for folder in [
            self.state(),
            self.compiling(),
            self.blobs(),
            self.native(),
            self.functions(),
        ] {
            fs::create_dir_all(folder)?;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(crate) fn compiling(&self) -> PathBuf {
        self.state().join("compiling")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    pub(crate) fn native(&self) -> PathBuf {
        self.root.join("native")
    }

    pub(crate) fn functions(&self) -> PathBuf {
        self.root.join("functions")
    }

    pub(crate) fn node_key(&self) -> PathBuf {
        self.root.join("node.key")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}

/// Makes a rename in a directory durable. Ignores file systems that cannot sync directories.
pub(crate) fn sync_folder(folder: &Path) {
    if let Ok(folder) = fs::File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// Returns whether the disk is the cause of an error: it is full, read-only, failing or not accessible.
pub(crate) fn is_disk_trouble(error: &io::Error) -> bool {
    use io::ErrorKind::{
        NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied | NotFound
    ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
