//! The init container's job: the folder on the host belongs to root when kubelet makes it, and the
//! shim runs as somebody else. This runs as root with the capability to change owners and nothing
//! more, so it neither reads other people's folders nor follows links.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};

use super::StateDir;

/// Makes the folder and gives it, with all that is in it, to `owner` (user and group id).
///
/// # Errors
/// The file system's, with the path.
pub fn prepare(dir: &StateDir, owner: u32) -> io::Result<()> {
    fs::create_dir_all(dir.root()).map_err(|error| at(dir.root(), &error))?;
    give(dir.root(), owner)
}

fn give(path: &Path, owner: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path).map_err(|error| at(path, &error))?;
    if found.uid() == owner && found.gid() == owner {
        // it was handed over before; without more rights we could not look inside anyway
        return Ok(());
    }
    if found.is_dir() {
        for entry in fs::read_dir(path).map_err(|error| at(path, &error))? {
            give(&entry.map_err(|error| at(path, &error))?.path(), owner)?;
        }
        // before it is given away: afterwards only its owner may
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
    fn gives_everything_to_the_owner_and_is_harmless_twice() {
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
