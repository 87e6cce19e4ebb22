//! Files that a function is made of, and which of them have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folders that contain output or dependencies.
const IGNORED: [&str; 4] = ["target", "node_modules", "__pycache__", "venv"];

/// What changes when a file is written, replaced or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// Files by path with their stamps.
pub(super) type Stamps = BTreeMap<PathBuf, Stamp>;

impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        Self {
            inode: file.ino(),
            size: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        }
    }
}

/// Returns the stamps of the files that exist.
pub(super) fn stamps<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Stamps {
    let stamp = |path: &PathBuf| Some((path.clone(), Stamp::from(&path.metadata().ok()?)));
    files.into_iter().filter_map(stamp).collect()
}

/// Files of a folder and of those below it, without output, dependencies and hidden files.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: Stamps,
    pub(super) folders: BTreeSet<PathBuf>,
}

impl Tree {
    /// Reads a folder. What cannot be read counts as missing.
    pub(super) fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let name = name.to_string_lossy();
                // without following links, which may form a circle
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                if name.starts_with('.') {
                } else if !metadata.is_dir() {
                    tree.files.insert(path, Stamp::from(&metadata));
                } else if !IGNORED.contains(&&*name) {
                    open.push(path);
                }
            }
            tree.folders.insert(folder);
        }
        tree
    }
}

/// Returns the files that were written, created or removed between two readings.
pub(super) fn changed(before: &Stamps, after: &Stamps) -> BTreeSet<PathBuf> {
    let differs =
        |(path, stamp): &(&PathBuf, &Stamp), other: &Stamps| other.get(*path) != Some(*stamp);
    let written = after.iter().filter(|entry| differs(entry, before));
    let gone = before.iter().filter(|entry| differs(entry, after));
    written.chain(gone).map(|(path, _)| path.clone()).collect()
}

/// Tells output of the build from source that was edited while it ran: output changes in each build.
#[derive(Debug, Default)]
pub(super) struct BuildOutputs {
    known: BTreeSet<PathBuf>,
    suspected: BTreeSet<PathBuf>,
}

impl BuildOutputs {
    /// Removes known output from changed files.
    pub(super) fn sources(&self, changed: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        &changed - &self.known
    }

    /// Takes the files that changed during a build. Returns whether they may be source, which needs another build.
    pub(super) fn observe(&mut self, changed: BTreeSet<PathBuf>) -> bool {
        let unknown = self.sources(changed);
        let repeated: BTreeSet<PathBuf> = &unknown & &self.suspected;
        self.suspected = &unknown - &repeated;
        self.known.extend(repeated);
        !self.suspected.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(paths: &BTreeSet<PathBuf>) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        paths.iter().map(name).collect()
    }

    #[test]
    fn written_new_replaced_and_removed_files_have_changed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for ignored in ["target/debug", "node_modules/a", ".git", "src/deep"] {
            fs::create_dir_all(at(ignored)).unwrap();
        }
        for file in ["same", "longer", "replaced", "gone", "src/deep/removed"] {
            fs::write(at(file), "1").unwrap();
        }
        let before = Tree::read(folder.path());
        fs::write(at("longer"), "12").unwrap();
        fs::write(at("fresh"), "1").unwrap();
        fs::rename(at("fresh"), at("replaced")).unwrap();
        fs::remove_file(at("gone")).unwrap();
        fs::remove_dir_all(at("src")).unwrap();
        for ignored in ["target/debug/x", "node_modules/a/x", ".git/x", ".hidden"] {
            fs::write(at(ignored), "1").unwrap();
        }
        let after = Tree::read(folder.path());
        let found = changed(&before.files, &after.files);
        assert_eq!(names(&found), ["gone", "longer", "replaced", "removed"]);
        assert_eq!(before.folders.len(), 3, "{:?}", before.folders);
    }

    #[test]
    fn what_changes_in_each_build_is_output() {
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        let mut outputs = BuildOutputs::default();
        assert!(!outputs.observe(files(&[])), "nothing changed");
        assert!(outputs.observe(files(&["out"])), "it may have been edited");
        assert!(!outputs.observe(files(&["out"])), "each build writes it");
        assert_eq!(outputs.sources(files(&["out", "src"])), files(&["src"]));
        assert!(
            outputs.observe(files(&["out", "src"])),
            "an edit during the build"
        );
        assert!(!outputs.observe(files(&["out"])));
        assert_eq!(outputs.sources(files(&["src"])), files(&["src"]));
    }
}
