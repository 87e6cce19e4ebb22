//! Tracks how long the node has had no contact with an operator. A candidate receives traffic only
//! while an operator evaluates it: after the TTL without contact its weight drops to 0, and it is
//! restored only when an operator has confirmed the node's table.

use std::time::{Duration, Instant};

/// State of the contact with an operator.
#[derive(Clone, Debug)]
pub struct Supervision {
    ttl: Duration,
    contact: Contact,
    expired: bool,
}

#[derive(Clone, Debug)]
enum Contact {
    /// A stream is open; the table may not have arrived yet.
    Connected,
    /// No stream since `since`, nor for the duration `before` that preceded it in an earlier process.
    Disconnected { since: Instant, before: Duration },
}

impl Supervision {
    /// Starts at `now` for a node whose previous process had its last contact `before` ago.
    #[must_use]
    pub fn new(ttl: Duration, before: Duration, now: Instant) -> Self {
        Self {
            ttl,
            contact: Contact::Disconnected { since: now, before },
            expired: before >= ttl,
        }
    }

    /// Records that an operator accepted the stream and set the TTL.
    pub fn connected(&mut self, ttl: Duration) {
        self.ttl = ttl;
        self.contact = Contact::Connected;
    }

    /// Records that the stream ended at `now`.
    pub fn disconnected(&mut self, now: Instant) {
        if matches!(self.contact, Contact::Connected) {
            self.contact = Contact::Disconnected {
                since: now,
                before: Duration::ZERO,
            };
        }
    }

    /// Records that the table matches the connected operator's, which restores the candidates' weights.
    pub fn confirmed(&mut self) {
        if matches!(self.contact, Contact::Connected) {
            self.expired = false;
        }
    }

    /// Checks the TTL at `now`. Returns true once, when candidates have to lose their traffic.
    pub fn expire(&mut self, now: Instant) -> bool {
        let due = !self.expired && self.expires_at(now).is_some_and(|at| at <= now);
        self.expired |= due;
        due
    }

    /// Returns whether candidates receive no traffic because no operator evaluates them.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.expired
    }

    /// Returns the current TTL.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns the end of the TTL; `None` while a stream is open.
    fn expires_at(&self, now: Instant) -> Option<Instant> {
        match &self.contact {
            Contact::Connected => None,
            Contact::Disconnected { since, before } => {
                // a time that the clock cannot represent is treated as one TTL ahead
                since
                    .checked_add(self.ttl.saturating_sub(*before))
                    .or_else(|| now.checked_add(self.ttl))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    #[allow(
        clippy::disallowed_methods,
        reason = "a test needs some instant to start from"
    )]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn candidates_expire_once_after_the_ttl_and_return_only_when_confirmed() {
        let start = origin();
        let mut supervision = Supervision::new(TTL, Duration::ZERO, start);
        supervision.connected(TTL);
        assert!(!supervision.expire(start + TTL * 5), "a stream is contact");
        let cut = start + TTL * 5;
        supervision.disconnected(cut);
        assert_eq!(supervision.expires_at(cut), Some(cut + TTL));
        assert!(!supervision.expire(cut + TTL - Duration::from_millis(1)));
        assert!(supervision.expire(cut + TTL));
        assert!(!supervision.expire(cut + TTL), "reported once");
        supervision.connected(TTL);
        assert!(
            supervision.expired(),
            "contact alone does not bring a candidate back"
        );
        supervision.confirmed();
        assert!(!supervision.expired());
    }

    #[test]
    fn a_restart_does_not_extend_the_ttl() {
        let start = origin();
        let mut supervision = Supervision::new(TTL, Duration::from_secs(590), start);
        assert!(!supervision.expire(start + Duration::from_secs(9)));
        assert!(supervision.expire(start + Duration::from_secs(10)));
        assert!(Supervision::new(TTL, TTL, start).expired());
    }

    #[test]
    fn a_failed_reconnect_does_not_extend_the_ttl() {
        let start = origin();
        let mut supervision = Supervision::new(TTL, Duration::ZERO, start);
        supervision.disconnected(start + TTL / 2);
        assert!(supervision.expire(start + TTL));
        supervision.confirmed();
        assert!(supervision.expired(), "no operator is connected to confirm");
    }
}
