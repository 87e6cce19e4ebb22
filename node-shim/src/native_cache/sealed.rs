//! Folder of files with an HMAC beside each, under the key of the node. What another process wrote under a name, or another
//! kind of file, is not accepted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::Mac;

use super::node_key::NodeKey;
use crate::disk::{DiskHealth, Draft, StateDir};
use crate::resource_exhaustion;

const MAC_BYTES: usize = 32;

/// Result of the authentication of a file.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The content is what was stored under the name.
    Authentic,
    /// The content is not authentic, for the given reason.
    Rejected(&'static str),
    /// The file cannot be read at present, because file descriptors or memory are exhausted.
    ResourceExhausted(io::Error),
}

/// Folder of authenticated files of one kind.
pub(crate) struct SealedFolder {
    folder: PathBuf,
    /// Kind and format of the content, which is part of the HMAC.
    format: &'static [u8],
    key: NodeKey,
    health: Arc<DiskHealth>,
}

impl SealedFolder {
    /// Opens a folder with the key of `dir`. Without a readable key a new one is created, which invalidates all files.
    ///
    /// # Errors
    /// Returns an error when the system provides no random bytes.
    pub(crate) fn open(
        dir: &StateDir,
        folder: PathBuf,
        format: &'static [u8],
        health: Arc<DiskHealth>,
    ) -> io::Result<Self> {
        let key = NodeKey::open(&dir.node_key(), &health)?;
        Ok(Self {
            folder,
            format,
            key,
            health,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens a file, which is not authenticated yet.
    ///
    /// # Errors
    /// Returns an error when it cannot be opened or is not a plain file.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        open_plain(&self.path(name))
    }

    /// Authenticates an open file, and rewinds it.
    pub(crate) fn verify(&self, name: &str, file: &mut File) -> Verdict {
        let mac = open_plain(&self.mac_path(name)).and_then(|file| {
            let mut mac = Vec::with_capacity(MAC_BYTES);
            file.take(MAC_BYTES as u64 + 1)
                .read_to_end(&mut mac)
                .map(|_| mac)
        });
        let mac = match mac {
            Ok(mac) => mac,
            Err(error) if resource_exhaustion::is_resource_exhaustion(&error) => {
                return Verdict::ResourceExhausted(error);
            }
            Err(_) => return Verdict::Rejected("has no authentication code"),
        };
        let verified = self
            .key
            .mac(self.format, name, file)
            .map(|found| found.verify_slice(&mac).is_ok());
        match verified {
            Ok(true) => Verdict::Authentic,
            Ok(false) => Verdict::Rejected("authentication failed"),
            Err(error) if resource_exhaustion::is_resource_exhaustion(&error) => {
                Verdict::ResourceExhausted(error)
            }
            Err(_) => Verdict::Rejected("cannot be read"),
        }
    }

    /// Returns an empty draft.
    ///
    /// # Errors
    /// See [`Draft::create`].
    pub(crate) fn draft(&self) -> io::Result<Draft> {
        Draft::create(&self.folder, &self.health)
    }

    /// Stores a draft with its HMAC, and returns it positioned at its start.
    ///
    /// # Errors
    /// Returns an error when the draft cannot be read back.
    pub(crate) fn seal(&self, draft: Draft, name: &str) -> io::Result<File> {
        let mut bytes = draft.handle()?;
        let mac = self.key.mac(self.format, name, &mut bytes)?;
        let mac = mac.finalize().into_bytes();
        let on_disk = !draft.is_in_memory();
        let mut file = draft.keep(&self.path(name))?;
        if on_disk {
            // a file without its HMAC is built again, so the order of the two files does not matter
            let mut sealed = self.draft()?;
            sealed.write_all(&mac)?;
            if !sealed.is_in_memory() {
                sealed.keep(&self.mac_path(name))?;
            }
        }
        file.rewind()?;
        Ok(file)
    }

    pub(crate) fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
        let _ = fs::remove_file(self.mac_path(name));
    }

    fn mac_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.mac"))
    }
}

/// Opens a file that is neither a symbolic link nor a device.
pub(super) fn open_plain(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a plain file"))
    }
}
