//! Compilations that have begun and not ended: those whose child was killed, and those that took the whole process down,
//! because the container was out of memory. Without a record, each would be repeated, the latter by the next process.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use node_shim_core::desired::{Failure, LoadFailure};

use crate::disk::{DiskHealth, StateDir};

/// Number of attempts that died after which a component is not compiled again.
const MAX_DEATHS: usize = 2;
/// Age from which a record no longer counts, because the machine may have been at fault.
const MAX_AGE: Duration = Duration::from_secs(24 * 3_600);

/// Records each running compilation as a file, whose length is the number of attempts that have not ended.
#[derive(Debug)]
pub struct CompileAttempts {
    folder: PathBuf,
    health: Arc<DiskHealth>,
}

/// A running compilation. Its record disappears when it is dropped, so it stays when the process dies.
#[derive(Debug)]
pub(super) struct CompileAttempt {
    record: Option<PathBuf>,
}

impl CompileAttempts {
    /// Reads and writes the records below `dir`. Removes those that no longer count.
    #[must_use]
    pub fn open(dir: &StateDir, health: Arc<DiskHealth>) -> Self {
        let folder = dir.compiling();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let age = entry
                .metadata()
                .and_then(|found| found.modified())
                .ok()
                .and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if age.is_some_and(|age| age > MAX_AGE) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Self { folder, health }
    }

    /// Records the start of a compilation. A node whose disk fails compiles without a record.
    ///
    /// # Errors
    /// Returns [`LoadFailure::CompileLimit`] when earlier attempts died.
    pub(super) fn begin(&self, hex: &str, engine: &str) -> Result<CompileAttempt, Failure> {
        let record = self.folder.join(format!("{hex}-{engine}"));
        let mut died = fs::read(&record).unwrap_or_default();
        if died.len() >= MAX_DEATHS {
            // the failure is remembered in place of the record
            let _ = fs::remove_file(&record);
            return Err(Failure::new(
                LoadFailure::CompileLimit,
                format!(
                    "{} compilations were killed before they ended, probably because the node was out of memory",
                    died.len()
                ),
            ));
        }
        died.push(b'x');
        match fs::write(&record, died) {
            Ok(()) => Ok(CompileAttempt {
                record: Some(record),
            }),
            Err(error) => {
                self.health.failed(&error);
                Ok(CompileAttempt { record: None })
            }
        }
    }
}

impl CompileAttempt {
    /// Keeps the record, because the compilation was killed.
    pub(super) fn died(mut self) {
        self.record = None;
    }
}

impl Drop for CompileAttempt {
    fn drop(&mut self) {
        if let Some(record) = self.record.take()
            && let Err(error) = fs::remove_file(&record)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, record = %record.display(), "the record of a compilation cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        dir: StateDir,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let dir = StateDir::new(folder.path());
            dir.create().unwrap();
            Self {
                _folder: folder,
                dir,
            }
        }

        fn open(&self) -> CompileAttempts {
            CompileAttempts::open(&self.dir, Arc::default())
        }
    }

    /// HG-8: the death of the process is an attempt that is never dropped.
    #[test]
    fn a_component_that_killed_two_processes_is_not_compiled_again() {
        let fixture = Fixture::new();
        for _ in 0..2 {
            std::mem::forget(fixture.open().begin("aa", "e1").unwrap());
        }
        let attempts = fixture.open();
        let refused = attempts.begin("aa", "e1").unwrap_err();
        assert_eq!(refused.cause, LoadFailure::CompileLimit);
        assert!(attempts.begin("bb", "e1").is_ok());
        assert!(attempts.begin("aa", "e2").is_ok(), "another engine");
    }

    #[test]
    fn attempts_that_end_leave_nothing() {
        let fixture = Fixture::new();
        for _ in 0..5 {
            drop(fixture.open().begin("aa", "e1").unwrap());
        }
        assert_eq!(fs::read_dir(fixture.dir.compiling()).unwrap().count(), 0);
        fixture.open().begin("aa", "e1").unwrap().died();
        assert_eq!(fs::read_dir(fixture.dir.compiling()).unwrap().count(), 1);
    }

    #[test]
    fn old_records_do_not_count() {
        let fixture = Fixture::new();
        for _ in 0..2 {
            fixture.open().begin("aa", "e1").unwrap().died();
        }
        let record = fixture.dir.compiling().join("aa-e1");
        let old = SystemTime::now() - 2 * MAX_AGE;
        fs::File::options()
            .write(true)
            .open(record)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert!(fixture.open().begin("aa", "e1").is_ok());
    }
}
