//! The key under which a node authenticates the native code on its disk. It never leaves the node, and the compiler process
//! does not have it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::sealed::open_plain;
use crate::disk::DiskHealth;

const KEY_BYTES: usize = 32;

pub(super) type HmacSha256 = Hmac<Sha256>;

pub(super) struct NodeKey(Zeroizing<Vec<u8>>);

impl NodeKey {
    /// Reads the node's key or creates it. Two processes that create it concurrently agree on one key.
    ///
    /// # Errors
    /// Returns an error when the system provides no random bytes.
    pub(super) fn open(path: &Path, health: &DiskHealth) -> io::Result<Self> {
        if let Some(key) = read_key(path) {
            return Ok(Self(key));
        }
        let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        match store_key(path, &key) {
            Ok(()) => Ok(Self(read_key(path).unwrap_or(key))),
            Err(error) => {
                health.failed(&error);
                Ok(Self(key))
            }
        }
    }

    /// Computes the HMAC over format, name, length and content, and rewinds the file.
    pub(super) fn mac(&self, format: &[u8], name: &str, file: &mut File) -> io::Result<HmacSha256> {
        let mut mac = HmacSha256::new_from_slice(&self.0)
            .map_err(|_| io::Error::other("HMAC rejected the key"))?;
        mac.update(format);
        mac.update(name.as_bytes());
        mac.update(b"\0");
        mac.update(&file.metadata()?.len().to_le_bytes());
        file.rewind()?;
        io::copy(file, &mut mac)?;
        file.rewind()?;
        Ok(mac)
    }
}

fn read_key(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let file = open_plain(path).ok()?;
    if file.metadata().ok()?.mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "other users could read the node key; creating a new one");
        let _ = fs::remove_file(path);
        return None;
    }
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key).ok()?;
    if key.len() == KEY_BYTES {
        return Some(key);
    }
    let _ = fs::remove_file(path);
    None
}

fn store_key(path: &Path, key: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let stored = file
        .write_all(key)
        .and_then(|()| file.sync_all())
        .and_then(|()| {
            match fs::hard_link(&draft, path) {
                // another process was first; its key is used
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        });
    let _ = fs::remove_file(&draft);
    stored
}
