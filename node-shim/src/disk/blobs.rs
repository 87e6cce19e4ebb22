//! Stored components by digest.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::{DiskHealth, Draft, StateDir};

/// Directory of components.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: PathBuf,
    health: Arc<DiskHealth>,
}

impl Blobs {
    /// Returns the store below `dir`.
    #[must_use]
    pub fn new(dir: &StateDir, health: Arc<DiskHealth>) -> Self {
        Self {
            folder: dir.blobs(),
            health,
        }
    }

    /// Opens a component and updates its modification time; `None` when it is not stored. Does not follow
    /// symbolic links.
    #[must_use]
    pub fn open(&self, hex: &str) -> Option<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.folder.join(hex))
            .ok()?;
        // garbage collection deletes the least recently used files first
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// Returns an empty draft for a component.
    ///
    /// # Errors
    /// See [`Draft::create`].
    pub fn draft(&self) -> io::Result<Draft> {
        Draft::create(&self.folder, &self.health)
    }

    /// Stores a draft whose digest has been verified.
    ///
    /// # Errors
    /// See [`Draft::keep`].
    pub fn keep(&self, draft: Draft, hex: &str) -> io::Result<File> {
        draft.keep(&self.folder.join(hex))
    }

    /// Removes a component whose content does not match its digest.
    pub fn discard(&self, hex: &str) {
        let _ = std::fs::remove_file(self.folder.join(hex));
    }
}
