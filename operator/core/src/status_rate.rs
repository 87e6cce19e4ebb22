//! Rate limits of the status writes that report node counts of a function without a rollout.
//!
//! Such a change is written at once, within two limits. One function is not written again within [`SPACING`], so a node
//! that repeatedly fails and recovers causes few writes. All functions share the rate of a [`StatusRateLimiter`], so a zone
//! outage does not flood the API server. A function that has to wait for the shared rate holds a reservation: a time of its
//! own, at which it is woken once. The work is therefore proportional to the number of writes, not to the number of
//! waiting functions.
//!
//! Times are durations since an arbitrary origin on a monotonic clock, so a wall clock that is set back delays nothing.

use std::time::Duration;

use crate::token_bucket::TokenBucket;
use delivery::rollout::NodesCount;

/// Minimum time between two such writes of one function. Nodes also have this time to apply a new weight before their
/// progress is written.
pub const SPACING: Duration = Duration::from_secs(10);
/// Number of such writes per second over all functions, and the largest burst.
pub const PER_SECOND: u32 = 5;

/// Difference between the nodes of a function at rest and the counts in its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStatusChange {
    /// The status is up to date.
    None,
    /// More nodes apply the weight than the status shows, but not all of them yet.
    Rising,
    /// Fewer nodes apply the weight than the status shows.
    Falling,
    /// All live nodes apply the weight, or another part of the status changed.
    Settled,
}

impl NodeStatusChange {
    /// Classifies counts that differ from the status. `other` is true when another part of the status differs too.
    #[must_use]
    pub fn between(old: NodeCounts, new: &NodesCount, other: bool) -> Self {
        if new.applied < old.applied || new.failed > old.failed || new.loaded < old.loaded {
            Self::Falling
        } else if other || new.applied >= new.live {
            Self::Settled
        } else {
            Self::Rising
        }
    }
}

/// Node counts in a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Number of nodes that apply the current weight.
    pub applied: u32,
    /// Number of nodes that have loaded the revision.
    pub loaded: u32,
    /// Number of nodes that cannot load the revision.
    pub failed: u32,
}

/// Answer of the limiter to one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is nothing to write.
    Idle,
    /// The function may write now.
    Write,
    /// The function has to ask again at this time, and no earlier.
    Wait(Duration),
}

/// State of the limits for one function.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FunctionLimit {
    /// Time at which the nodes began to differ from the status.
    since: Option<Duration>,
    /// Time of the last write.
    written: Option<Duration>,
    /// Whether the nodes have agreed with the status once since this leader started. Before that, missing nodes may just not
    /// have connected yet.
    agreed: bool,
    /// Reserved time for the next write.
    reserved: Option<Duration>,
}

impl FunctionLimit {
    /// Earliest time at which the limits of this function alone allow a write; `None` without a difference.
    fn due(&mut self, change: NodeStatusChange, now: Duration) -> Option<Duration> {
        if change == NodeStatusChange::None {
            self.since = None;
            self.agreed = true;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let patient = match change {
            NodeStatusChange::Rising => true,
            NodeStatusChange::Falling => !self.agreed,
            NodeStatusChange::None | NodeStatusChange::Settled => false,
        };
        let first = if patient { since + SPACING } else { since };
        Some(self.written.map_or(first, |at| first.max(at + SPACING)))
    }
}

/// Limits the writes of all functions together and of each function by itself.
#[derive(Debug)]
pub struct StatusRateLimiter {
    bucket: TokenBucket,
}

impl Default for StatusRateLimiter {
    fn default() -> Self {
        Self {
            bucket: TokenBucket::new(PER_SECOND, PER_SECOND),
        }
    }
}

impl StatusRateLimiter {
    /// Decides whether `function` may write the difference `change` now. [`Admission::Write`] counts as a write.
    pub fn admit(
        &mut self,
        function: &mut FunctionLimit,
        change: NodeStatusChange,
        now: Duration,
    ) -> Admission {
        let Some(due) = function.due(change, now) else {
            self.cancel(function);
            return Admission::Idle;
        };
        if due > now {
            self.cancel(function);
            return Admission::Wait(due);
        }
        // A process that was not the leader for a while holds reservations that have passed. Using all of them would be a burst.
        function.reserved.take_if(|at| *at + SPACING < now);
        let at = function
            .reserved
            .take()
            .unwrap_or_else(|| self.bucket.reserve(now));
        if at > now {
            function.reserved = Some(at);
            return Admission::Wait(at);
        }
        function.since = None;
        function.written = Some(now);
        function.agreed = true;
        Admission::Write
    }

    /// Records that a status write for another reason includes the node counts of `function`.
    pub fn carried(&mut self, function: &mut FunctionLimit) {
        function.since = None;
        self.cancel(function);
    }

    /// Gives the reservation of `function` back, for example because the function is deleted.
    pub fn cancel(&mut self, function: &mut FunctionLimit) {
        if let Some(at) = function.reserved.take() {
            self.bucket.give_back(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    /// A limiter with a single function.
    #[derive(Default)]
    struct Alone {
        limiter: StatusRateLimiter,
        function: FunctionLimit,
    }

    impl Alone {
        fn admit(&mut self, change: NodeStatusChange, now: Duration) -> Admission {
            self.limiter.admit(&mut self.function, change, now)
        }
    }

    #[test]
    fn a_change_is_written_at_once_and_the_next_one_of_the_same_function_a_little_later() {
        let mut one = Alone::default();
        assert_eq!(
            one.admit(NodeStatusChange::Settled, at(0)),
            Admission::Write
        );
        assert_eq!(one.admit(NodeStatusChange::None, at(100)), Admission::Idle);
        let later = Admission::Wait(at(10_000));
        assert_eq!(one.admit(NodeStatusChange::Falling, at(200)), later);
        assert_eq!(one.admit(NodeStatusChange::None, at(300)), Admission::Idle);
        assert_eq!(
            one.admit(NodeStatusChange::Falling, at(20_000)),
            Admission::Write
        );
    }

    #[test]
    fn progress_is_written_when_all_nodes_apply_the_weight_or_after_the_spacing() {
        let mut one = Alone::default();
        let later = Admission::Wait(at(10_000));
        assert_eq!(one.admit(NodeStatusChange::Rising, at(0)), later);
        assert_eq!(one.admit(NodeStatusChange::Rising, at(500)), later);
        assert_eq!(
            one.admit(NodeStatusChange::Settled, at(600)),
            Admission::Write
        );
    }

    #[test]
    fn a_new_leader_does_not_report_nodes_as_missing_that_have_not_connected_yet() {
        let mut one = Alone::default();
        let later = Admission::Wait(at(10_000));
        assert_eq!(one.admit(NodeStatusChange::Falling, at(0)), later);
        assert_eq!(one.admit(NodeStatusChange::None, at(900)), Admission::Idle);
        assert_eq!(
            one.admit(NodeStatusChange::Falling, at(1_000)),
            Admission::Write
        );
    }

    /// Simulates functions that all differ at `at(0)` and ask again at the times they get. Returns the writes in order and the
    /// number of requests of each function.
    fn play(count: usize) -> (Vec<(Duration, usize)>, Vec<u32>) {
        let mut limiter = StatusRateLimiter::default();
        let mut functions: Vec<FunctionLimit> = Vec::new();
        functions.resize_with(count, FunctionLimit::default);
        let mut timers: BTreeSet<(Duration, usize)> = (0..count).map(|n| (at(0), n)).collect();
        let (mut writes, mut asks) = (Vec::new(), vec![0; count]);
        while let Some((now, n)) = timers.pop_first() {
            asks[n] += 1;
            match limiter.admit(&mut functions[n], NodeStatusChange::Settled, now) {
                Admission::Write => writes.push((now, n)),
                Admission::Wait(until) => assert!(timers.insert((until, n))),
                Admission::Idle => panic!("{n} differs"),
            }
        }
        (writes, asks)
    }

    #[test]
    fn each_of_many_functions_is_woken_once_at_its_own_time_and_in_order() {
        let (writes, asks) = play(2_000);
        assert!(
            asks.iter().all(|asks| *asks <= 2),
            "{:?}",
            asks.iter().max()
        );
        let order: Vec<usize> = writes.iter().map(|(_, n)| *n).collect();
        assert!(order.is_sorted(), "first come, first served");
        assert_eq!(order.len(), 2_000);
        for (nth, (when, _)) in (0u64..).zip(&writes) {
            assert_eq!(*when, at(nth.saturating_sub(4) * 200), "write {nth}");
        }
    }

    #[test]
    fn a_function_that_asks_again_while_it_waits_keeps_its_time() {
        let mut limiter = StatusRateLimiter::default();
        let mut functions: Vec<FunctionLimit> = Vec::new();
        functions.resize_with(7, FunctionLimit::default);
        let mut ask =
            |n: usize, now| limiter.admit(&mut functions[n], NodeStatusChange::Settled, now);
        for n in 0..5 {
            assert_eq!(ask(n, at(0)), Admission::Write);
        }
        assert_eq!(ask(5, at(0)), Admission::Wait(at(200)));
        for millis in 0..200 {
            assert_eq!(ask(5, at(millis)), Admission::Wait(at(200)));
        }
        assert_eq!(ask(6, at(199)), Admission::Wait(at(400)));
        assert_eq!(ask(5, at(230)), Admission::Write, "also a little late");
    }

    #[test]
    fn functions_that_no_longer_need_a_write_leave_no_queue_behind() {
        let mut limiter = StatusRateLimiter::default();
        let mut functions: Vec<FunctionLimit> = Vec::new();
        functions.resize_with(1_000, FunctionLimit::default);
        for function in &mut functions {
            limiter.admit(function, NodeStatusChange::Settled, at(0));
        }
        for (n, function) in functions.iter_mut().enumerate() {
            match n % 3 {
                0 => limiter.carried(function),
                1 => limiter.cancel(function),
                _ => drop(limiter.admit(function, NodeStatusChange::None, at(100))),
            }
        }
        let mut late = FunctionLimit::default();
        let answer = limiter.admit(&mut late, NodeStatusChange::Settled, at(100));
        assert_eq!(answer, Admission::Wait(at(200)));
    }

    #[test]
    fn reservations_that_passed_while_another_replica_led_cause_no_burst() {
        let mut limiter = StatusRateLimiter::default();
        let mut functions: Vec<FunctionLimit> = Vec::new();
        functions.resize_with(1_000, FunctionLimit::default);
        for function in &mut functions {
            limiter.admit(function, NodeStatusChange::Settled, at(0));
        }
        let mut written = 0;
        for function in &mut functions[5..] {
            let answer = limiter.admit(function, NodeStatusChange::Settled, at(3_600_000));
            written += u32::from(answer == Admission::Write);
        }
        assert_eq!(written, PER_SECOND);
    }

    #[test]
    fn drift_is_classified_by_the_change_of_the_counts() {
        let old = NodeCounts {
            applied: 1,
            loaded: 3,
            failed: 0,
        };
        let new = |applied, loaded, failed| NodesCount {
            desired: 3,
            live: 3,
            applied,
            loaded,
            failed,
            problem: None,
        };
        let between = |new, other| NodeStatusChange::between(old, &new, other);
        assert_eq!(between(new(2, 3, 0), false), NodeStatusChange::Rising);
        assert_eq!(between(new(2, 3, 0), true), NodeStatusChange::Settled);
        assert_eq!(between(new(3, 3, 0), false), NodeStatusChange::Settled);
        assert_eq!(between(new(0, 3, 0), true), NodeStatusChange::Falling);
        assert_eq!(between(new(3, 3, 1), false), NodeStatusChange::Falling);
    }
}
