//! Whether the disk takes writes. Set by whoever fails, cleared by whoever succeeds.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

/// Present trouble of the disk, and how often writes failed.
#[derive(Debug, Default)]
pub struct DiskHealth {
    trouble: Mutex<Option<String>>,
    errors: AtomicU64,
}

impl DiskHealth {
    /// A write failed.
    pub fn failed(&self, error: &io::Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.is_none() {
            tracing::warn!(%error, "the disk does not take writes; serving from memory");
        }
        *trouble = Some(error.to_string());
    }

    /// A write reached the disk.
    pub fn succeeded(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.take().is_some() {
            tracing::info!("the disk takes writes again");
        }
    }

    /// What is wrong at present.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Failed writes since the start.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}
