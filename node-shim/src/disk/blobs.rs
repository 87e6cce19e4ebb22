//! Components as they were pulled, by digest.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::{DiskHealth, Draft, StateDir};

/// The folder of components.
#[derive(Clone, Debug)]
pub struct Blobs {
    folder: PathBuf,
    health: Arc<DiskHealth>,
}

impl Blobs {
    /// Components below `dir`.
    #[must_use]
    pub fn new(dir: &StateDir, health: Arc<DiskHealth>) -> Self {
        Self {
            folder: dir.blobs(),
            health,
        }
    }

    /// Opens a component that is there; marks it as used. Links are not followed.
    #[must_use]
    pub fn open(&self, hex: &str) -> Option<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.folder.join(hex))
            .ok()?;
        // for the order of deletion only
        let _ = file.set_modified(SystemTime::now());
        Some(file)
    }

    /// An empty draft of a component.
    ///
    /// # Errors
    /// See [`Draft::create`].
    pub fn draft(&self) -> io::Result<Draft> {
        Draft::create(&self.folder, &self.health)
    }

    /// Names a draft whose digest was checked.
    ///
    /// # Errors
    /// See [`Draft::keep`].
    pub fn keep(&self, draft: Draft, hex: &str) -> io::Result<File> {
        draft.keep(&self.folder.join(hex))
    }

    /// Removes a component that is not what its name says.
    pub fn discard(&self, hex: &str) {
        let _ = std::fs::remove_file(self.folder.join(hex));
    }
}
