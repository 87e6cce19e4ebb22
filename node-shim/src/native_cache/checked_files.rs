//! Files that this process has authenticated, identified by their metadata. Hashing native code takes as long as mapping
//! it and running a request, so each file is hashed once.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use parking_lot::{Mutex, MutexGuard};
/// Identity of a file's content. Every write changes the ctime, which no process can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

#[derive(Debug, Default)]
pub(super) struct CheckedFiles(Mutex<HashMap<String, FileIdentity>>);

impl FileIdentity {
    /// Returns `None` when the metadata cannot be read.
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

impl CheckedFiles {
    /// Returns whether the file was authenticated under this name and has not changed since.
    pub(super) fn contains(&self, name: &str, file: &File) -> bool {
        let known = self.lock().get(name).copied();
        known.is_some() && known == FileIdentity::of(file)
    }

    /// Records an authenticated file, unless it changed since `before`, the identity at the start.
    pub(super) fn record(&self, name: &str, before: Option<FileIdentity>, file: &File) {
        if let Some(identity) = before.filter(|before| FileIdentity::of(file) == Some(*before)) {
            self.lock().insert(name.to_owned(), identity);
        }
    }

    pub(super) fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Forgets all names for which `stays` returns false.
    pub(super) fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.lock().retain(|name, _| stays(name));
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, FileIdentity>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_that_changes_during_authentication_is_not_recorded() {
        let checked = CheckedFiles::default();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"code").unwrap();
        let before = FileIdentity::of(&file);
        // the size changes too, because the file system's clock may be too coarse
        file.write_all(b"more").unwrap();
        checked.record("aa", before, &file);
        assert!(!checked.contains("aa", &file));

        checked.record("aa", FileIdentity::of(&file), &file);
        assert!(checked.contains("aa", &file));
        assert!(!checked.contains("bb", &file), "under another name");
        checked.forget("aa");
        assert!(!checked.contains("aa", &file));
    }
}
