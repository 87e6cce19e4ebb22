//! The cache of compiled functions of the user who runs `serve` or `dev`.
//!
//! Its directory is `$XDG_CACHE_HOME/selvage/node-shim`, by default `~/.cache/selvage/node-shim`. All processes of the user
//! share it. It is authenticated and bounded like that of a node.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use crate::disk::StateDir;
use crate::engine::Engine;
use crate::function_cache::FunctionCache;
use crate::native_cache::engine_name;

/// Opens the cache. Returns `None` when the environment names no directory for it.
///
/// # Errors
/// Returns a sentence when the directory cannot be used. Callers can compile without the cache.
pub(crate) fn open(engine: &Engine) -> anyhow::Result<Option<Arc<FunctionCache>>> {
    let Some(folder) = folder(|name| std::env::var_os(name)) else {
        return Ok(None);
    };
    let engine = engine_name(&format!("{:016x}", engine.compatibility()));
    let cache = open_in(&folder, &engine).with_context(|| {
        let folder = folder.display();
        format!("compiled functions are not kept for later compilations: cannot use {folder}")
    })?;
    Ok(Some(Arc::new(cache)))
}

/// Returns the directory that the environment names. A path that is not absolute counts as missing.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| {
        let path = variable(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let of_home = || absolute("HOME").map(|home| home.join(".cache"));
    let caches = absolute("XDG_CACHE_HOME").or_else(of_home)?;
    Some(caches.join("selvage").join("node-shim"))
}

fn open_in(folder: &Path, engine: &str) -> io::Result<FunctionCache> {
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700).create(folder)?;
    // root, for example, does not run code that another user can replace
    if fs::metadata(folder)?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    FunctionCache::open_shared(StateDir::new(folder), engine)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_environment_names_the_directory() {
        let found = |list: &[(&str, &str)]| {
            let value = |name: &str| {
                let mut same = list.iter().filter(|(listed, _)| *listed == name);
                same.next().map(|(_, value)| OsString::from(value))
            };
            folder(value).map(|path| path.to_string_lossy().into_owned())
        };
        let of_home = Some("/home/a/.cache/selvage/node-shim".to_owned());
        let of_caches = Some("/var/c/selvage/node-shim".to_owned());
        assert_eq!(found(&[("HOME", "/home/a")]), of_home);
        let both = [("HOME", "/home/a"), ("XDG_CACHE_HOME", "/var/c")];
        assert_eq!(found(&both), of_caches);
        for none in ["", "relative"] {
            assert_eq!(found(&[("XDG_CACHE_HOME", none)]), None);
            assert_eq!(found(&[("HOME", none)]), None);
            let home = [("HOME", "/home/a"), ("XDG_CACHE_HOME", none)];
            assert_eq!(found(&home), of_home);
        }
    }

    #[test]
    fn the_directory_is_created_for_its_user_only() {
        let caches = tempfile::tempdir().unwrap();
        let folder = caches.path().join("selvage/node-shim");
        for _ in 0..2 {
            open_in(&folder, "e1").unwrap();
            let mode = fs::metadata(&folder).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "a file").unwrap();
        assert!(open_in(&folder, "e1").is_err());
    }
}
