//! Folder with a certificate in `tls.crt` and its key in `tls.key`, as the kubelet mounts a Secret of type
//! `kubernetes.io/tls`. The kubelet replaces both files when the Secret changes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::{CERTIFICATE, Certificate, KEY};

/// Inode, modification time and size of a file; `None` when there is none.
type FileStamp = Option<(u64, i64, i64, u64)>;

/// A folder and the certificate in use.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// State of the files when they were last read.
    stamp: Option<[FileStamp; 2]>,
    current: Option<Arc<Certificate>>,
    /// Certificate that was read and is not valid yet.
    upcoming: Option<Arc<Certificate>>,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            stamp: None,
            current: None,
            upcoming: None,
        }
    }

    /// Returns the last component of the path.
    pub(super) fn name(&self) -> String {
        let last = self.path.file_name().unwrap_or(OsStr::new(""));
        last.to_string_lossy().into_owned()
    }

    pub(super) fn current(&self) -> Option<&Arc<Certificate>> {
        self.current.as_ref()
    }

    /// Reads the files if they have changed, and returns whether another certificate is in use now. `now` is in seconds
    /// of Unix time. A certificate that is not valid never replaces another one.
    pub(super) fn refresh(&mut self, now: i64) -> bool {
        let stamp = [CERTIFICATE, KEY].map(|name| file_stamp(&self.path.join(name)));
        let read = if self.stamp == Some(stamp) {
            match self.upcoming.take_if(|upcoming| upcoming.is_valid_at(now)) {
                Some(upcoming) => Ok(upcoming),
                None => return false,
            }
        } else {
            self.stamp = Some(stamp);
            self.upcoming = None;
            Certificate::read(&self.path).map(Arc::new)
        };
        let folder = self.path.display();
        match read {
            Err(error) => {
                let kept = self.current.is_some();
                tracing::warn!(%folder, %error, kept, "the certificate cannot be used");
                false
            }
            Ok(new) if !new.is_valid_at(now) && self.current.is_some() => {
                let not_after = new.not_after();
                tracing::warn!(%folder, not_after, "the new certificate is not valid at this time; the old one stays in use");
                self.upcoming = Some(new);
                false
            }
            Ok(new) => {
                let (names, not_after) = (new.names().join(", "), new.not_after());
                if new.is_valid_at(now) {
                    tracing::info!(%folder, names, not_after, "certificate in use");
                } else {
                    tracing::warn!(%folder, names, not_after, "the certificate in use is not valid at this time");
                }
                self.current = Some(new);
                true
            }
        }
    }
}

fn file_stamp(path: &Path) -> FileStamp {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
}
