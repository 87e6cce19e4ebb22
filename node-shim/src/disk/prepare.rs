//! Preparation of the state directory by the init container. The kubelet creates the host directory as
//! root, but the node-shim runs as another user. This code runs as root with `CAP_CHOWN` only, so it cannot
//! enter directories of other users, and it does not follow symbolic links.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};

use super::StateDir;

/// Creates the directory and changes its owner and that of its content to `owner` (user and group id).
///
/// # Errors
/// Returns the error of the file system with the path.
pub fn prepare(dir: &StateDir, owner: u32) -> io::Result<()> {
    fs::create_dir_all(dir.root()).map_err(|error| at(dir.root(), &error))?;
    give(dir.root(), owner)
}

fn give(path: &Path, owner: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path).map_err(|error| at(path, &error))?;
    if found.uid() == owner && found.gid() == owner {
        // its owner was changed before; root without further capabilities could not read it either
        return Ok(());
    }
    if found.is_dir() {
        for entry in fs::read_dir(path).map_err(|error| at(path, &error))? {
            give(&entry.map_err(|error| at(path, &error))?.path(), owner)?;
        }
        // before the owner changes, because only the owner may change permissions
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| at(path, &error))?;
    }
    chownat(
        CWD,
        path,
        Some(Uid::from_raw(owner)),
        Some(Gid::from_raw(owner)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(|error| at(path, &error.into()))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_the_owner_of_everything_and_is_idempotent() {
        let folder = tempfile::tempdir().unwrap();
        let owner = if rustix::process::getuid().is_root() {
            65_532
        } else {
            rustix::process::getuid().as_raw()
        };
        let dir = StateDir::new(folder.path().join("selvage"));
        dir.create().unwrap();
        fs::write(dir.state().join("table"), b"x").unwrap();
        for _ in 0..2 {
            prepare(&dir, owner).unwrap();
            for path in [
                dir.root().to_owned(),
                dir.state(),
                dir.state().join("table"),
                dir.native(),
            ] {
                assert_eq!(
                    fs::metadata(&path).unwrap().uid(),
                    owner,
                    "{}",
                    path.display()
                );
            }
        }
        assert_eq!(fs::metadata(dir.root()).unwrap().mode() & 0o777, 0o700);
    }
}
