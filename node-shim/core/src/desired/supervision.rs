//! How long this node has been on its own. A candidate is watched by an operator or it gets no
//! traffic: after the time to live without contact its share ends, and only a table that an
//! operator confirmed brings it back.

use std::time::{Duration, Instant};

/// Contact with an operator over time.
#[derive(Clone, Debug)]
pub struct Supervision {
    ttl: Duration,
    contact: Contact,
    expired: bool,
}

#[derive(Clone, Debug)]
enum Contact {
    /// A stream is up; the table behind it may still be on its way.
    Connected,
    /// None since `since`, and none for `before` ahead of it (an earlier run of the process).
    Disconnected { since: Instant, before: Duration },
}

impl Supervision {
    /// A node that starts at `now`, whose earlier run had its last contact `before` ago.
    #[must_use]
    pub fn new(ttl: Duration, before: Duration, now: Instant) -> Self {
        Self {
            ttl,
            contact: Contact::Disconnected { since: now, before },
            expired: before >= ttl,
        }
    }

    /// An operator answered; it says what the time to live is.
    pub fn connected(&mut self, ttl: Duration) {
        self.ttl = ttl;
        self.contact = Contact::Connected;
    }

    /// The stream ended.
    pub fn disconnected(&mut self, now: Instant) {
        if matches!(self.contact, Contact::Connected) {
            self.contact = Contact::Disconnected {
                since: now,
                before: Duration::ZERO,
            };
        }
    }

    /// The table is what a connected operator wants: shares count again.
    pub fn confirmed(&mut self) {
        if matches!(self.contact, Contact::Connected) {
            self.expired = false;
        }
    }

    /// Looks at the time; true when the shares of candidates end by this look.
    pub fn expire(&mut self, now: Instant) -> bool {
        let due = !self.expired && self.expires_at(now).is_some_and(|at| at <= now);
        self.expired |= due;
        due
    }

    /// Candidates get nothing: nobody watches them.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.expired
    }

    /// When to look again; `None` while a stream is up or after the end.
    #[must_use]
    pub fn expires_next_at(&self, now: Instant) -> Option<Instant> {
        if self.expired {
            None
        } else {
            self.expires_at(now)
        }
    }

    /// Time without contact.
    #[must_use]
    pub fn unsupervised_for(&self, now: Instant) -> Duration {
        match &self.contact {
            Contact::Connected => Duration::ZERO,
            Contact::Disconnected { since, before } => now
                .saturating_duration_since(*since)
                .saturating_add(*before),
        }
    }

    /// The time to live in force.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    fn expires_at(&self, now: Instant) -> Option<Instant> {
        match &self.contact {
            Contact::Connected => None,
            Contact::Disconnected { since, before } => {
                // beyond what the clock can express is as good as far ahead
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

    #[allow(clippy::disallowed_methods, reason = "a test has to start somewhere")]
    fn origin() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_share_ends_once_after_the_time_to_live_and_returns_only_when_confirmed() {
        let start = origin();
        let mut supervision = Supervision::new(TTL, Duration::ZERO, start);
        supervision.connected(TTL);
        assert!(!supervision.expire(start + TTL * 5), "a stream is contact");
        let cut = start + TTL * 5;
        supervision.disconnected(cut);
        assert_eq!(supervision.expires_next_at(cut), Some(cut + TTL));
        assert!(!supervision.expire(cut + TTL - Duration::from_millis(1)));
        assert!(supervision.expire(cut + TTL));
        assert!(!supervision.expire(cut + TTL), "told once");
        supervision.connected(TTL);
        assert!(
            supervision.expired(),
            "contact alone does not bring a candidate back"
        );
        supervision.confirmed();
        assert!(!supervision.expired());
    }

    #[test]
    fn a_restart_does_not_lengthen_it() {
        let start = origin();
        let mut supervision = Supervision::new(TTL, Duration::from_secs(590), start);
        assert!(!supervision.expire(start + Duration::from_secs(9)));
        assert!(supervision.expire(start + Duration::from_secs(10)));
        assert!(Supervision::new(TTL, TTL, start).expired());
    }

    #[test]
    fn reconnecting_without_success_does_not_lengthen_it() {
        let start = origin();
        let mut supervision = Supervision::new(TTL, Duration::ZERO, start);
        supervision.disconnected(start + TTL / 2);
        assert!(supervision.expire(start + TTL));
        supervision.confirmed();
        assert!(supervision.expired(), "nobody is there to confirm");
    }
}
