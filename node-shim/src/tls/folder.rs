//! Folder with a certificate in `tls.crt` and its key in `tls.key`, as the kubelet mounts a Secret of type
//! `kubernetes.io/tls`. The kubelet replaces both files when the Secret changes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node_api::certificate::{CHAIN, Certificate, CertificateError, KEY};
use zeroize::Zeroizing;

use super::slot::CertificateSlot;

/// Inode, modification time and size of a file; `None` when there is none.
type FileStamp = Option<(u64, i64, i64, u64)>;

/// Why the certificate in a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// A file cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The files contain no certificate with its key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// A folder and the certificate in use.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// State of the files when they were last read.
    stamp: Option<[FileStamp; 2]>,
    slot: CertificateSlot,
}

/// Reads the files `tls.crt` and `tls.key` of a folder.
///
/// # Errors
/// Returns an error when a file cannot be read, and those of [`Certificate::parse`].
pub(crate) fn read(folder: &Path) -> Result<Certificate, FolderError> {
    let read = |name: &str| {
        let unreadable = |error| FolderError::Unreadable(format!("{name}: {error}"));
        fs::read(folder.join(name)).map_err(unreadable)
    };
    let certificate = Certificate::parse(&read(CHAIN)?, &Zeroizing::new(read(KEY)?))?;
    Ok(certificate)
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            stamp: None,
            slot: CertificateSlot::default(),
        }
    }

    /// Returns the last component of the path.
    pub(super) fn name(&self) -> String {
        let last = self.path.file_name().unwrap_or(OsStr::new(""));
        last.to_string_lossy().into_owned()
    }

    pub(super) fn current(&self) -> Option<&Arc<Certificate>> {
        self.slot.current()
    }

    /// Reads the files if they have changed, and returns whether another certificate is in use now. `now` is in seconds
    /// of Unix time. A certificate that is not valid never replaces another one.
    pub(super) fn refresh(&mut self, now: i64) -> bool {
        let stamp = [CHAIN, KEY].map(|name| file_stamp(&self.path.join(name)));
        if self.stamp == Some(stamp) {
            let advanced = self.slot.advance(now);
            if advanced {
                self.log_current(now);
            }
            return advanced;
        }
        self.stamp = Some(stamp);
        self.slot.forget_upcoming();
        let folder = self.path.display();
        match read(&self.path) {
            Err(error) => {
                let kept = self.current().is_some();
                tracing::warn!(%folder, %error, kept, "the certificate cannot be used");
                false
            }
            Ok(new) => {
                let not_after = new.details().not_after();
                let taken = self.slot.offer(Arc::new(new), now);
                if taken {
                    self.log_current(now);
                } else {
                    tracing::warn!(%folder, not_after, "the new certificate is not valid at this time; the old one stays in use");
                }
                taken
            }
        }
    }

    fn log_current(&self, now: i64) {
        let Some(current) = self.current() else {
            return;
        };
        let (folder, details) = (self.path.display(), current.details());
        let (names, not_after) = (details.names().join(", "), details.not_after());
        if details.is_valid_at(now) {
            tracing::info!(%folder, names, not_after, "certificate in use");
        } else {
            tracing::warn!(%folder, names, not_after, "the certificate in use is not valid at this time");
        }
    }
}

fn file_stamp(path: &Path) -> FileStamp {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
}
