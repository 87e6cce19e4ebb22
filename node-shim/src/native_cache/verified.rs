//! Which files this process has authenticated, by what the kernel says of them. Hashing native code costs as much as
//! mapping it and running a request in it, so it is done once for each file.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whoever writes to a file changes its time of change, which nobody can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

#[derive(Debug, Default)]
pub(super) struct VerifiedFiles(Mutex<HashMap<String, FileIdentity>>);

impl FileIdentity {
    /// `None` when the file cannot be asked.
    pub(super) fn of(file: &File) -> Option<Self> {
        let found = file.metadata().ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl VerifiedFiles {
    /// Whether this very file, unchanged, was authenticated under this name.
    pub(super) fn contains(&self, name: &str, file: &File) -> bool {
        let known = self.lock().get(name).copied();
        known.is_some() && known == FileIdentity::of(file)
    }

    /// The file was authenticated; `before` is what it was when that began.
    pub(super) fn record(&self, name: &str, before: Option<FileIdentity>, file: &File) {
        if let Some(identity) = before.filter(|before| FileIdentity::of(file) == Some(*before)) {
            self.lock().insert(name.to_owned(), identity);
        }
    }

    pub(super) fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Forgets all names but those that stay.
    pub(super) fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| stays(name));
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, FileIdentity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_changed_while_it_was_authenticated_is_not_noted() {
        let verified = VerifiedFiles::default();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"code").unwrap();
        let before = FileIdentity::of(&file);
        // longer, so that it shows however coarse the clock of the file system is
        file.write_all(b"more").unwrap();
        verified.record("aa", before, &file);
        assert!(!verified.contains("aa", &file));

        verified.record("aa", FileIdentity::of(&file), &file);
        assert!(verified.contains("aa", &file));
        assert!(!verified.contains("bb", &file), "under another name");
        verified.forget("aa");
        assert!(!verified.contains("aa", &file));
    }
}
