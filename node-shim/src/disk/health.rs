//! Health of the disk. A failed write sets the error, a successful write clears it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
/// Current error of the disk and number of failed writes.
#[derive(Debug, Default)]
pub struct DiskHealth {
    trouble: Mutex<Option<String>>,
    errors: AtomicU64,
}

impl DiskHealth {
    /// Records a failed write.
    pub fn failed(&self, error: &io::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble.lock();
        if trouble.is_none() {
            tracing::warn!(%error, "writing to the state directory failed; continuing in memory");
        }
        *trouble = Some(error.to_string());
    }

    /// Records a successful write.
    pub fn succeeded(&self) {
        let mut trouble = self.trouble.lock();
        if trouble.take().is_some() {
            tracing::info!("writing to the state directory works again");
        }
    }

    /// Returns the current error; `None` when the last write succeeded.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Returns the number of failed writes since the start of the process.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}
