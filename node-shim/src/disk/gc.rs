//! Garbage collection of the state directory. Deletes the least recently used files until the budget is
//! met, but never files that the function table refers to. Only the holder of the lock deletes files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{DRAFT_PREFIX, StateDir, StateLock};

/// Age from which a draft belongs to a process that has ended.
const DRAFT_AGE: Duration = Duration::from_secs(3600);

/// Disk budget of components, native code and compiled functions.
#[derive(Clone, Copy, Debug)]
pub struct DiskBudget {
    /// Total size in bytes. Default: 4 GiB.
    pub bytes: u64,
    /// Part of it that compiled functions may use, in bytes. Default: 256 MiB.
    pub functions: u64,
}

impl Default for DiskBudget {
    fn default() -> Self {
        Self {
            bytes: 4 << 30,
            functions: 256 << 20,
        }
    }
}

/// Sizes of the files that a garbage collection kept, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBytes {
    /// Size of the components.
    pub blobs: u64,
    /// Size of the native code.
    pub native: u64,
    /// Size of the compiled functions.
    pub functions: u64,
}

#[derive(Debug)]
struct StoredFile {
    path: PathBuf,
    size: u64,
    used: SystemTime,
    needed: bool,
}

/// Deletes files until the budget is met. Returns the sizes of the remaining files. `needed` contains the digests (hex)
/// that the function table refers to, and `engine` is the suffix of the native files that this process can use.
pub fn collect_garbage(
    dir: &StateDir,
    _lock: &StateLock,
    budget: DiskBudget,
    needed: &BTreeSet<String>,
    engine: &str,
) -> StoredBytes {
    let mut stored = list(&dir.blobs(), |name| needed.contains(name));
    stored.extend(list(&dir.native(), |name| {
        let code = name.strip_suffix(".mac").unwrap_or(name);
        code.strip_suffix(engine)
            .and_then(|rest| rest.strip_suffix('-'))
            .is_some_and(|digest| needed.contains(digest))
    }));
    let mut functions = list(&dir.functions(), |_| false);
    delete_oldest(&mut functions, budget.functions);
    stored.extend(functions);
    delete_oldest(&mut stored, budget.bytes);
    let size = |folder: &Path| {
        let inside = stored.iter().filter(|file| file.path.starts_with(folder));
        inside.map(|file| file.size).sum()
    };
    StoredBytes {
        blobs: size(&dir.blobs()),
        native: size(&dir.native()),
        functions: size(&dir.functions()),
    }
}

/// Deletes the least recently used files that are not needed until the others have at most `bytes`.
fn delete_oldest(stored: &mut Vec<StoredFile>, bytes: u64) {
    stored.sort_by_key(|file| file.used);
    let mut total: u64 = stored.iter().map(|file| file.size).sum();
    stored.retain(|file| {
        let deleted = total > bytes && !file.needed && fs::remove_file(&file.path).is_ok();
        if deleted {
            total = total.saturating_sub(file.size);
        }
        !deleted
    });
}

/// Deletes drafts that an earlier process left behind.
pub fn remove_stale_drafts(dir: &StateDir, _lock: &StateLock, now: SystemTime) {
    for folder in [dir.blobs(), dir.native(), dir.functions(), dir.state()] {
        for file in entries(&folder).filter(|(name, _)| name.starts_with(DRAFT_PREFIX)) {
            let old = fs::metadata(&file.1)
                .and_then(|found| found.modified())
                .is_ok_and(|used| now.duration_since(used).is_ok_and(|age| age > DRAFT_AGE));
            if old {
                let _ = fs::remove_file(file.1);
            }
        }
    }
}

fn list(folder: &Path, needed: impl Fn(&str) -> bool) -> Vec<StoredFile> {
    entries(folder)
        .filter(|(name, _)| !name.starts_with(DRAFT_PREFIX))
        .filter_map(|(name, path)| {
            let found = fs::symlink_metadata(&path).ok()?;
            let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Some(StoredFile {
                needed: needed(&name),
                path,
                size: found.len(),
                used,
            })
        })
        .collect()
}

fn entries(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, size: usize, age: u64) {
        fs::write(path, vec![0; size]).unwrap();
        let used = SystemTime::now() - Duration::from_secs(age);
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(used)
            .unwrap();
    }

    fn budget(bytes: u64) -> DiskBudget {
        DiskBudget {
            bytes,
            ..DiskBudget::default()
        }
    }

    /// Compiled functions have a limit of their own, and are deleted like other files beyond the common one.
    #[test]
    fn compiled_functions_are_bounded_by_both_budgets() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        dir.create().unwrap();
        let lock = StateLock::try_take(&dir).unwrap().unwrap();
        put(&dir.blobs().join("aa"), 100, 900);
        for (name, age) in [("n1-e", 500), ("n2-e", 800), ("n3-e", 100)] {
            put(&dir.functions().join(name), 100, age);
        }
        let collect = |bytes, functions| {
            let budget = DiskBudget { bytes, functions };
            collect_garbage(&dir, &lock, budget, &BTreeSet::new(), "e")
        };
        let kept = collect(1_000, 250);
        assert_eq!((kept.blobs, kept.functions), (100, 200));
        assert!(!dir.functions().join("n2-e").exists(), "the oldest of them");
        let kept = collect(200, 250);
        assert_eq!((kept.blobs, kept.functions), (0, 200));
        let kept = collect(100, 250);
        assert_eq!(kept.functions, 100);
        assert!(dir.functions().join("n3-e").exists());
    }

    /// FN-5: needed files are never deleted.
    #[test]
    fn the_least_recently_used_is_deleted_first_and_needed_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        dir.create().unwrap();
        let lock = StateLock::try_take(&dir).unwrap().unwrap();
        put(&dir.blobs().join("aa"), 100, 900);
        put(&dir.blobs().join("bb"), 100, 800);
        put(&dir.blobs().join("cc"), 100, 10);
        put(&dir.native().join("aa-e1-c1"), 100, 700);
        put(&dir.native().join("aa-e0-c1"), 100, 600);
        let needed = BTreeSet::from(["aa".to_string()]);
        let kept = collect_garbage(&dir, &lock, budget(300), &needed, "e1-c1");
        assert_eq!((kept.blobs, kept.native), (200, 100));
        assert!(dir.blobs().join("aa").exists() && dir.native().join("aa-e1-c1").exists());
        assert!(!dir.blobs().join("bb").exists(), "oldest of the unneeded");
        assert!(
            !dir.native().join("aa-e0-c1").exists(),
            "another engine's code is not needed"
        );
        collect_garbage(&dir, &lock, budget(0), &needed, "e1-c1");
        assert!(!dir.blobs().join("cc").exists());
        assert!(
            dir.blobs().join("aa").exists(),
            "needed files stay even above the budget"
        );
    }

    #[test]
    fn drafts_of_ended_processes_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        dir.create().unwrap();
        let lock = StateLock::try_take(&dir).unwrap().unwrap();
        put(&dir.blobs().join(".draft-1-1"), 1, 3700);
        put(&dir.blobs().join(".draft-1-2"), 1, 60);
        remove_stale_drafts(&dir, &lock, SystemTime::now());
        assert_eq!(entries(&dir.blobs()).count(), 1);
    }
}
