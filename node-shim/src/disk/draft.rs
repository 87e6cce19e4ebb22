//! Temporary files that are renamed when they are complete. A draft moves to memory when the disk fails, so
//! a full disk costs the cache after a restart but no requests.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{DRAFT_PREFIX, DiskHealth, is_disk_trouble, sync_folder};

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// A temporary file. [`Draft::keep`] gives it its final name; dropping it deletes it.
#[derive(Debug)]
pub struct Draft {
    file: File,
    /// `None` when the draft is in memory.
    path: Option<PathBuf>,
    health: Arc<DiskHealth>,
}

impl Draft {
    /// Creates an empty draft in `folder`, or in memory when the disk fails.
    ///
    /// # Errors
    /// Returns an error when an anonymous file in memory cannot be created either.
    pub fn create(folder: &Path, health: &Arc<DiskHealth>) -> io::Result<Self> {
        let name = format!(
            "{DRAFT_PREFIX}{}-{}",
            std::process::id(),
            SEQUENCE.fetch_add(1, Ordering::Relaxed)
        );
        let path = folder.join(name);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match opened {
            Ok(file) => Ok(Self {
                file,
                path: Some(path),
                health: Arc::clone(health),
            }),
            Err(error) => {
                health.failed(&error);
                Self::in_memory(health)
            }
        }
    }

    /// Creates an empty draft in memory.
    ///
    /// # Errors
    /// Returns an error when the kernel cannot create an anonymous file.
    pub fn in_memory(health: &Arc<DiskHealth>) -> io::Result<Self> {
        let file = rustix::fs::memfd_create("selvage-draft", rustix::fs::MemfdFlags::CLOEXEC)?;
        Ok(Self {
            file: file.into(),
            path: None,
            health: Arc::clone(health),
        })
    }

    /// Returns whether the draft is in memory only.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.path.is_none()
    }

    /// Returns a second handle with the same content and position, for a child process to write to.
    ///
    /// # Errors
    /// Returns an error when file descriptors are exhausted.
    pub fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Renames the draft durably, replacing an existing file, and returns the file positioned at its
    /// start. A draft in memory is returned without being stored, and so is one that cannot be renamed.
    ///
    /// # Errors
    /// Returns an error when the file cannot be positioned or its handle duplicated.
    pub fn keep(mut self, name: &Path) -> io::Result<File> {
        self.file.seek(SeekFrom::Start(0))?;
        if let Some(path) = self.path.take() {
            if let Err(error) = self.file.sync_all().and_then(|()| fs::rename(&path, name)) {
                // the open file still has its content
                self.health.failed(&error);
                let _ = fs::remove_file(&path);
            } else {
                if let Some(folder) = name.parent() {
                    sync_folder(folder);
                }
                self.health.succeeded();
            }
        }
        self.file.try_clone()
    }

    fn move_to_memory(&mut self) -> io::Result<()> {
        let Some(path) = self.path.take() else {
            return Ok(());
        };
        let written = self.file.stream_position()?;
        let mut memory = Self::in_memory(&self.health)?;
        self.file.seek(SeekFrom::Start(0))?;
        io::copy(
            &mut Read::by_ref(&mut self.file).take(written),
            &mut memory.file,
        )?;
        let _ = fs::remove_file(path);
        self.file = memory.file.try_clone()?;
        Ok(())
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.file.write(bytes) {
            Err(error) if self.path.is_some() && is_disk_trouble(&error) => {
                self.health.failed(&error);
                self.move_to_memory()?;
                self.file.write(bytes)
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut file: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_kept_draft_is_renamed_and_a_dropped_one_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let health = Arc::new(DiskHealth::default());
        let mut draft = Draft::create(folder.path(), &health).unwrap();
        draft.write_all(b"abc").unwrap();
        let name = folder.path().join("final");
        assert_eq!(read(draft.keep(&name).unwrap()), b"abc");
        assert_eq!(fs::read(&name).unwrap(), b"abc");
        let mut dropped = Draft::create(folder.path(), &health).unwrap();
        dropped.write_all(b"x").unwrap();
        drop(dropped);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(health.trouble(), None);
    }

    #[test]
    fn a_draft_without_a_directory_is_in_memory_and_reported() {
        let health = Arc::new(DiskHealth::default());
        let missing = Path::new("/nonexistent/selvage");
        let mut draft = Draft::create(missing, &health).unwrap();
        assert!(draft.is_in_memory());
        draft.write_all(b"abc").unwrap();
        assert_eq!(read(draft.keep(&missing.join("x")).unwrap()), b"abc");
        assert!(health.trouble().is_some());
    }

    #[test]
    fn moving_to_memory_keeps_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let health = Arc::new(DiskHealth::default());
        let mut draft = Draft::create(folder.path(), &health).unwrap();
        draft.write_all(b"first ").unwrap();
        draft.move_to_memory().unwrap();
        draft.write_all(b"second").unwrap();
        assert_eq!(
            read(draft.keep(&folder.path().join("x")).unwrap()),
            b"first second"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
