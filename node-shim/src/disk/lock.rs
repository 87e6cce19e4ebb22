//! Lock that decides which of two processes on a node may change the state directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use super::StateDir;

/// The right to change `state/` and to delete files. Released when dropped and when the process ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Tries to acquire the lock once; `None` while another process holds it.
    ///
    /// # Errors
    /// Returns an error when the lock file cannot be created or locked.
    pub fn try_take(dir: &StateDir) -> io::Result<Option<Self>> {
        let file = open(dir)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until no other process holds the lock, and acquires it. Blocks the thread.
    ///
    /// # Errors
    /// Returns an error when the lock file cannot be created or locked.
    pub(crate) fn wait(dir: &StateDir) -> io::Result<Self> {
        let file = open(dir)?;
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
        Ok(Self { _file: file })
    }
}

fn open(dir: &StateDir) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.lock())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_exclusive_and_released_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        let first = StateLock::try_take(&dir).unwrap();
        assert!(first.is_some());
        assert!(StateLock::try_take(&dir).unwrap().is_none());
        drop(first);
        assert!(StateLock::try_take(&dir).unwrap().is_some());
    }
}
