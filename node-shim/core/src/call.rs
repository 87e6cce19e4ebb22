//! Decisions about calls between functions: how many calls may lead to one, and how long a called function may run.

use std::time::Duration;

use crate::failure_reason::FailureReason;

/// Maximum number of calls, and of outbound requests to hosts of the same cluster, that may lead to a request.
pub const MAX_HOPS: u8 = 8;

/// Number of calls and outbound requests of functions that led to a request. The request of a client has 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hops(u8);

/// Wall-clock time of a request, and how the request ends when it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    /// Time from the start of the guest.
    pub limit: Duration,
    /// Why the guest is stopped then.
    pub reason: FailureReason,
}

impl Hops {
    /// Returns the number of a request that was sent with the header value `count`.
    #[must_use]
    pub const fn new(count: u8) -> Self {
        Self(count)
    }

    /// Returns the number as it is written in a header.
    #[must_use]
    pub const fn count(self) -> u8 {
        self.0
    }

    /// Returns the number of a request that this one sends.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns whether more than [`MAX_HOPS`] calls led to the request. It is answered with 508.
    #[must_use]
    pub const fn is_loop(self) -> bool {
        self.0 > MAX_HOPS
    }
}

impl WallClock {
    /// Returns the time of a request to a function whose own limit is `own`. `caller` is the time that a calling function
    /// has left; `None` for the request of a client.
    ///
    /// A function that could have continued, but whose caller has no time left, has lost its client: this must not count
    /// against its revision, whose limits it kept.
    ///
    /// ```
    /// use std::time::Duration;
    /// use node_shim_core::call::WallClock;
    /// use node_shim_core::failure_reason::FailureReason;
    ///
    /// let seconds = Duration::from_secs;
    /// assert_eq!(WallClock::new(seconds(30), Some(seconds(40))).reason, FailureReason::Wall);
    /// let shorter = WallClock::new(seconds(30), Some(seconds(2)));
    /// assert_eq!((shorter.limit, shorter.reason), (seconds(2), FailureReason::ClientGone));
    /// ```
    #[must_use]
    pub fn new(own: Duration, caller: Option<Duration>) -> Self {
        match caller {
            Some(left) if left < own => Self {
                limit: left,
                reason: FailureReason::ClientGone,
            },
            _ => Self {
                limit: own,
                reason: FailureReason::Wall,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HG-21: the ninth call is one too many.
    #[test]
    fn eight_calls_may_lead_to_a_request() {
        let mut hops = Hops::default();
        for count in 0..=u8::MAX {
            assert_eq!((hops.count(), hops.is_loop()), (count, count > 8));
            hops = hops.next();
        }
        assert_eq!(hops, Hops::new(u8::MAX), "the number does not start again");
    }

    #[test]
    fn the_smaller_time_decides_and_says_whose_it_is() {
        let ms = Duration::from_millis;
        for (own, caller, limit, reason) in [
            (10, None, 10, FailureReason::Wall),
            (10, Some(11), 10, FailureReason::Wall),
            (10, Some(10), 10, FailureReason::Wall),
            (10, Some(9), 9, FailureReason::ClientGone),
            (10, Some(0), 0, FailureReason::ClientGone),
        ] {
            let clock = WallClock::new(ms(own), caller.map(ms));
            assert_eq!((clock.limit, clock.reason), (ms(limit), reason));
        }
        // a request without time for its client does not count against the revision
        let outcome = FailureReason::ClientGone.outcome();
        assert_eq!(outcome, crate::request_labels::Outcome::ClientFault);
    }
}
