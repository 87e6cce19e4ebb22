//! Which of two processes on one node may change the folder.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, flock};

use super::StateDir;

/// The right to change `state/` and to delete. Ends when dropped, and with the process.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Tries once; `None` while another process has it.
    ///
    /// # Errors
    /// The lock file cannot be made or locked: the folder is not writable.
    pub fn try_take(dir: &StateDir) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.lock())?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_free_again_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        let first = StateLock::try_take(&dir).unwrap();
        assert!(first.is_some());
        assert!(StateLock::try_take(&dir).unwrap().is_none());
        drop(first);
        assert!(StateLock::try_take(&dir).unwrap().is_some());
    }
}
