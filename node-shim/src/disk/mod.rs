//! The node's own folder: the last table, components and native code.
//!
//! ```text
//! lock                         held by the one process that may change state/ and delete
//! node.key                     0600; authenticates native code (cache)
//! state/table, table.previous  the last table applied, and the one before it
//! state/hot                    functions with traffic, one a line
//! state/refused                components that no attempt will make loadable, one a line
//! blobs/sha256/<hex>           components as pulled
//! native/<digest>-<engine>-<cpu>, .mac
//! ```
//!
//! Two processes share the folder while a new pod starts beside an old one on its node. Components
//! and native code are named by content and appear by rename, so both may write them and neither
//! sees half a file. What is changed in place by meaning (the table), and every deletion, belongs to
//! the holder of `lock`; the new pod waits for it, reads meanwhile, and takes what the old one wrote
//! last when it gets it. A disk that fails never ends the process: drafts move to memory, the table
//! stays in memory, and [`Health`] says so.

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
pub use gc::{DiskBudget, collect_garbage, remove_stale_drafts};
pub use health::DiskHealth;
pub use lock::StateLock;
pub use prepare::prepare;
pub(crate) use table::without_secrets;
pub use table::{PersistedTable, TableFile, TableHeader};

/// Name prefix of files that are being written.
pub(crate) const DRAFT_PREFIX: &str = ".draft-";

/// Paths inside the node's folder.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The folder at `root`, whether it exists or not.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the folders that are missing.
    ///
    /// # Errors
    /// The file system's; a caller goes on without a disk.
    pub fn create(&self) -> io::Result<()> {
        for folder in [self.state(), self.blobs(), self.native()] {
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

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    pub(crate) fn native(&self) -> PathBuf {
        self.root.join("native")
    }

    pub(crate) fn node_key(&self) -> PathBuf {
        self.root.join("node.key")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}

/// Makes a rename durable. A file system that cannot sync a folder is not an error.
pub(crate) fn sync_folder(folder: &Path) {
    if let Ok(folder) = fs::File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// The disk is at fault and not the caller: full, read-only, failing, or not ours to write.
pub(crate) fn is_disk_trouble(error: &io::Error) -> bool {
    use io::ErrorKind::{
        NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | ReadOnlyFilesystem | PermissionDenied | NotFound
    ) || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}
