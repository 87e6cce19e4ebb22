//! On-disk cache of native code that the compiler process of this node produced.
//!
//! Mapping a file executes the code in it. Each file is therefore authenticated with an HMAC under a key
//! that never leaves the node. The HMAC covers name, length and content, so code for another engine, CPU
//! or component is not accepted under a wrong name. A file that fails authentication is removed, and the
//! component is compiled again.

mod checked_files;
mod node_key;
mod sealed;

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::disk::{DiskHealth, Draft, StateDir};
use crate::resource_exhaustion;
use checked_files::{CheckedFiles, FileIdentity};

pub(crate) use sealed::{SealedFolder, Verdict};

/// Kind and format of the files.
const FORMAT: &[u8] = b"selvage native code 1\0";

/// Result of looking a component up in the cache.
#[derive(Debug)]
pub enum Lookup {
    /// Authenticated native code; the file is positioned at its start.
    Hit(File),
    /// The cache has no native code for the component.
    Miss,
    /// The file failed authentication, for the given reason, and was removed.
    Rejected(&'static str),
    /// The file cannot be read at present, because file descriptors or memory are exhausted. It was kept.
    ResourceExhausted(io::Error),
}

/// Directory of native code for one engine and one CPU type.
pub struct NativeCache {
    files: SealedFolder,
    engine: String,
    health: Arc<DiskHealth>,
    checked: CheckedFiles,
}

impl std::fmt::Debug for NativeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the key must not be logged
        f.debug_struct("NativeCache")
            .field("folder", &self.files.folder())
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

impl NativeCache {
    /// Opens the cache below `dir` for the engine identified by `engine_hash`. Without a readable key a
    /// new one is created, which invalidates all cached code.
    ///
    /// # Errors
    /// Returns an error when the system provides no random bytes.
    pub fn open(dir: &StateDir, engine_hash: &str, health: Arc<DiskHealth>) -> io::Result<Self> {
        Ok(Self {
            files: SealedFolder::open(dir, dir.native(), FORMAT, Arc::clone(&health))?,
            engine: engine_name(engine_hash),
            health,
            checked: CheckedFiles::default(),
        })
    }

    /// Returns the identity of engine and CPU, which is also the suffix of the engine's file names.
    #[must_use]
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Looks a component up by its digest in hex. Authenticates the whole file and updates its modification time, unless
    /// this process has done so before and the file has not changed since.
    #[must_use]
    pub fn get(&self, hex: &str) -> Lookup {
        let name = self.name(hex);
        let mut file = match self.files.open_file(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.checked.forget(&name);
                return Lookup::Miss;
            }
            Err(error) if resource_exhaustion::is_resource_exhaustion(&error) => {
                return Lookup::ResourceExhausted(error);
            }
            Err(_) => return self.reject(&name, "cannot be opened as a plain file"),
        };
        if self.checked.contains(&name, &file) {
            return Lookup::Hit(file);
        }
        // before the identity is taken, because it changes the ctime
        let _ = file.set_modified(SystemTime::now());
        let before = FileIdentity::of(&file);
        match self.files.verify(&name, &mut file) {
            Verdict::Authentic => {
                self.checked.record(&name, before, &file);
                Lookup::Hit(file)
            }
            Verdict::Rejected(why) => self.reject(&name, why),
            Verdict::ResourceExhausted(error) => Lookup::ResourceExhausted(error),
        }
    }

    /// Returns an empty draft for native code.
    ///
    /// # Errors
    /// See [`Draft::create`].
    pub fn draft(&self) -> io::Result<Draft> {
        self.files.draft()
    }

    /// Returns a draft in memory, after the compiler process found the disk full.
    ///
    /// # Errors
    /// See [`Draft::in_memory`].
    pub fn draft_in_memory(&self) -> io::Result<Draft> {
        self.health
            .failed(&io::Error::from(io::ErrorKind::StorageFull));
        Draft::in_memory(&self.health)
    }

    /// Returns whether a file for the component exists. It is not authenticated.
    #[must_use]
    pub fn has(&self, hex: &str) -> bool {
        self.files.path(&self.name(hex)).is_file()
    }

    /// Stores the output of the compiler process with its HMAC, and returns the code positioned at its
    /// start.
    ///
    /// # Errors
    /// Returns an error when the code cannot be read back.
    pub fn store(&self, draft: Draft, hex: &str) -> io::Result<File> {
        self.files.seal(draft, &self.name(hex))
    }

    /// Removes authentic code that did not load.
    pub fn discard(&self, hex: &str) {
        self.remove(&self.name(hex));
    }

    /// Forgets the checked files that no longer exist.
    pub fn forget_removed(&self) {
        self.checked.retain(|name| self.files.path(name).is_file());
    }

    fn name(&self, hex: &str) -> String {
        format!("{hex}-{}", self.engine)
    }

    fn reject(&self, name: &str, why: &'static str) -> Lookup {
        tracing::warn!(
            name,
            why,
            "native code rejected and removed; the component is compiled again"
        );
        self.remove(name);
        Lookup::Rejected(why)
    }

    fn remove(&self, name: &str) {
        self.checked.forget(name);
        self.files.remove(name);
    }
}

/// Returns a hash of the CPU features, all of which native code may use.
/// Returns the identity of an engine and of the CPU of this machine, as [`NativeCache::engine`] does.
pub(crate) fn engine_name(engine_hash: &str) -> String {
    format!("{engine_hash}-{}", cpu_features())
}

fn cpu_features() -> String {
    let described = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = described
        .lines()
        .find(|line| line.starts_with("flags") || line.starts_with("Features"))
        .unwrap_or_default();
    let hash = Sha256::digest(format!("{} {features}", std::env::consts::ARCH));
    hex::encode(hash).chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        dir: StateDir,
        health: Arc<DiskHealth>,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let dir = StateDir::new(folder.path());
            dir.create().unwrap();
            Self {
                _folder: folder,
                dir,
                health: Arc::default(),
            }
        }

        fn open(&self, engine: &str) -> NativeCache {
            NativeCache::open(&self.dir, engine, Arc::clone(&self.health)).unwrap()
        }
    }

    fn store(cache: &NativeCache, hex: &str, code: &[u8]) -> PathBuf {
        let mut draft = cache.draft().unwrap();
        draft.write_all(code).unwrap();
        cache.store(draft, hex).unwrap();
        cache.files.path(&cache.name(hex))
    }

    fn hit(cache: &NativeCache, hex: &str) -> Option<Vec<u8>> {
        match cache.get(hex) {
            Lookup::Hit(mut file) => {
                let mut code = Vec::new();
                file.read_to_end(&mut code).unwrap();
                Some(code)
            }
            Lookup::Miss | Lookup::Rejected(_) | Lookup::ResourceExhausted(_) => None,
        }
    }

    #[test]
    fn survives_a_restart_and_belongs_to_one_engine() {
        let fixture = Fixture::new();
        store(&fixture.open("e1"), "aa", b"code");
        assert_eq!(
            hit(&fixture.open("e1"), "aa").as_deref(),
            Some(&b"code"[..])
        );
        assert!(matches!(fixture.open("e2").get("aa"), Lookup::Miss));
        assert!(matches!(fixture.open("e1").get("bb"), Lookup::Miss));
        assert_eq!(
            fs::metadata(fixture.dir.node_key()).unwrap().mode() & 0o777,
            0o600
        );
    }

    /// HS-10, FN-4: a cached file that was changed in any way is removed and never returned.
    #[test]
    fn tampered_code_is_rejected_and_removed() {
        type Harm = fn(&Path);
        let harms: [(&str, Harm); 7] = [
            ("flipped", |path| {
                let mut code = fs::read(path).unwrap();
                code[1] ^= 1;
                fs::write(path, code).unwrap();
            }),
            ("cut", |path| fs::write(path, b"cod").unwrap()),
            ("longer", |path| fs::write(path, b"code\0").unwrap()),
            ("replaced", |path| fs::write(path, b"evil").unwrap()),
            ("linked", |path| {
                let elsewhere = path.with_extension("elsewhere");
                fs::rename(path, &elsewhere).unwrap();
                std::os::unix::fs::symlink(elsewhere, path).unwrap();
            }),
            ("unsealed", |path| {
                fs::remove_file(format!("{}.mac", path.display())).unwrap();
            }),
            ("sealed by nothing", |path| {
                fs::write(format!("{}.mac", path.display()), []).unwrap();
            }),
        ];
        for (what, harm, known) in harms
            .into_iter()
            .flat_map(|(what, harm)| [(what, harm, false), (what, harm, true)])
        {
            let fixture = Fixture::new();
            let cache = fixture.open("e1");
            let path = store(&cache, "aa", b"code");
            if known {
                // the HMAC has been read before, so its loss is noticed by the next process only
                if what.contains("sealed") {
                    continue;
                }
                assert!(hit(&cache, "aa").is_some(), "{what}");
            }
            harm(&path);
            assert!(matches!(cache.get("aa"), Lookup::Rejected(_)), "{what}");
            assert!(fs::symlink_metadata(&path).is_err(), "{what}: still there");
            assert!(matches!(cache.get("aa"), Lookup::Miss), "{what}");
            store(&cache, "aa", b"code");
            assert!(hit(&cache, "aa").is_some(), "{what}: rebuilt");
        }
    }

    #[test]
    fn a_file_is_authenticated_once_until_it_changes() {
        let fixture = Fixture::new();
        let cache = fixture.open("e1");
        let path = store(&cache, "aa", b"code");
        let seal = format!("{}.mac", path.display());
        assert!(hit(&cache, "aa").is_some());
        // without its HMAC the file can only pass when it is not authenticated again
        let sealed = fs::read(&seal).unwrap();
        fs::remove_file(&seal).unwrap();
        assert_eq!(hit(&cache, "aa").as_deref(), Some(&b"code"[..]));
        fs::write(&seal, &sealed).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        fs::remove_file(&seal).unwrap();
        assert!(matches!(cache.get("aa"), Lookup::Rejected(_)));
    }

    #[test]
    fn verified_files_are_forgotten_when_they_are_removed() {
        let fixture = Fixture::new();
        let cache = fixture.open("e1");
        let paths = ["aa", "bb", "cc"].map(|hex| {
            let path = store(&cache, hex, b"code");
            assert!(hit(&cache, hex).is_some());
            path
        });
        let known = || {
            let mut known = cache.checked.names();
            known.sort();
            known
        };
        let names = ["aa", "bb", "cc"].map(|hex| cache.name(hex));
        assert_eq!(known(), names);
        fs::remove_file(&paths[0]).unwrap();
        cache.forget_removed();
        assert_eq!(known(), names[1..]);
        // a lookup that misses forgets the file as well
        fs::remove_file(&paths[1]).unwrap();
        assert!(matches!(cache.get("bb"), Lookup::Miss));
        assert_eq!(known(), names[2..]);
    }

    #[test]
    fn code_under_another_name_or_key_is_rejected() {
        let fixture = Fixture::new();
        let cache = fixture.open("e1");
        let path = store(&cache, "aa", b"code");
        let other = cache.files.path(&cache.name("bb"));
        fs::copy(&path, &other).unwrap();
        fs::copy(
            format!("{}.mac", path.display()),
            format!("{}.mac", other.display()),
        )
        .unwrap();
        assert!(matches!(cache.get("bb"), Lookup::Rejected(_)));
        fs::write(fixture.dir.node_key(), [7; 32]).unwrap();
        assert!(matches!(fixture.open("e1").get("aa"), Lookup::Rejected(_)));
    }

    #[test]
    fn a_key_that_other_users_can_read_is_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let fixture = Fixture::new();
        store(&fixture.open("e1"), "aa", b"code");
        let before = fs::read(fixture.dir.node_key()).unwrap();
        fs::set_permissions(fixture.dir.node_key(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(fixture.open("e1").get("aa"), Lookup::Rejected(_)));
        assert_ne!(fs::read(fixture.dir.node_key()).unwrap(), before);
    }
}
