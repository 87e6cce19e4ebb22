//! The certificate in use from one source, and the next one while it is not valid yet.

use std::sync::Arc;

use node_api::certificate::Certificate;

/// Certificates of one source: a folder, or a Secret that a function names.
#[derive(Debug, Default)]
pub(crate) struct CertificateSlot {
    current: Option<Arc<Certificate>>,
    /// Certificate that was received and is not valid yet, or no longer.
    upcoming: Option<Arc<Certificate>>,
}

impl CertificateSlot {
    /// Returns the certificate in use.
    pub(crate) fn current(&self) -> Option<&Arc<Certificate>> {
        self.current.as_ref()
    }

    /// Takes a new certificate and returns whether it is in use now. One that is not valid at `now`, in seconds of Unix time,
    /// never replaces another one: it waits until it is.
    pub(crate) fn offer(&mut self, new: Arc<Certificate>, now: i64) -> bool {
        if new.details().is_valid_at(now) || self.current.is_none() {
            self.current = Some(new);
            self.upcoming = None;
            return true;
        }
        self.upcoming = Some(new);
        false
    }

    /// Drops the certificate that waits. The one in use stays.
    pub(crate) fn forget_upcoming(&mut self) {
        self.upcoming = None;
    }

    /// Puts the certificate that waits in use if it is valid at `now`, and returns whether that was so.
    pub(crate) fn advance(&mut self, now: i64) -> bool {
        let due = |upcoming: &mut Arc<Certificate>| upcoming.details().is_valid_at(now);
        let Some(upcoming) = self.upcoming.take_if(due) else {
            return false;
        };
        self.current = Some(upcoming);
        true
    }
}
