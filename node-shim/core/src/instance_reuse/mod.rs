//! Reuse of instances: whether an instance that has answered a request may answer another one, which idle instance gives
//! way first, and when a revision does not stand it.

mod guard;
mod idle;

use std::time::Duration;

pub use guard::{ReuseGuard, TOLERATED_RERUNS, WINDOW};
pub use idle::IdleSet;

use crate::failure_reason::FailureReason;
use crate::request_labels::Outcome;

/// How a revision reuses its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReusePolicy {
    /// Number of requests that one instance answers, one after another. Default: 1, a fresh instance for every request.
    pub max_requests: u32,
    /// Time for which an idle instance is kept. Default: 1 s.
    pub idle_timeout: Duration,
}

/// State of an instance whose handler has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedInstance {
    /// Number of requests that it has answered, this one included.
    pub requests: u32,
    /// Whether the request succeeded as far as the guest is concerned.
    pub succeeded: bool,
    /// Memory after its first request, in bytes.
    pub first_memory: u64,
    /// Memory now, in bytes.
    pub memory: u64,
    /// Whether the guest still holds resources of its request, such as a body, or turns away further calls.
    pub holds_request: bool,
}

/// A request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedRun {
    /// Why it failed.
    pub reason: FailureReason,
    /// Number of requests that the instance had answered before.
    pub requests_before: u32,
    /// Whether the guest has set a response head.
    pub head_set: bool,
    /// Whether the guest has read some of the client's body.
    pub body_read: bool,
}

/// Why an instance is dropped although its revision reuses instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropCause {
    /// It has answered as many requests as it may.
    Requests,
    /// Its request failed, or its client disconnected.
    Failed,
    /// It holds more than twice the memory that it held after its first request.
    Memory,
    /// The guest still holds resources of its request, or turns away further calls.
    Resources,
    /// It was idle for too long.
    Idle,
    /// Another instance needed its place or its memory.
    Evicted,
    /// The node is short of memory.
    Pressure,
    /// The node drains.
    Drain,
    /// Its revision left the node, or was replaced.
    Retired,
    /// Its revision does not stand reuse.
    Unsafe,
}

impl DropCause {
    /// All causes in the order of their indices.
    pub const ALL: [Self; 10] = [
        Self::Requests,
        Self::Failed,
        Self::Memory,
        Self::Resources,
        Self::Idle,
        Self::Evicted,
        Self::Pressure,
        Self::Drain,
        Self::Retired,
        Self::Unsafe,
    ];

    /// Returns the position in [`ALL`](Self::ALL).
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Returns the value of the metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Failed => "failed",
            Self::Memory => "memory",
            Self::Resources => "resources",
            Self::Idle => "idle",
            Self::Evicted => "evicted",
            Self::Pressure => "memory_pressure",
            Self::Drain => "drain",
            Self::Retired => "retired",
            Self::Unsafe => "unsafe",
        }
    }
}

impl Default for ReusePolicy {
    fn default() -> Self {
        Self {
            max_requests: 1,
            idle_timeout: Duration::from_secs(1),
        }
    }
}

impl ReusePolicy {
    /// Returns whether an instance may answer more than one request.
    #[must_use]
    pub fn is_enabled(self) -> bool {
        self.max_requests > 1
    }

    /// Returns why the instance is dropped; `None` when it is kept for another request.
    #[must_use]
    pub fn drop_cause(self, instance: UsedInstance) -> Option<DropCause> {
        if !instance.succeeded {
            Some(DropCause::Failed)
        } else if instance.requests >= self.max_requests {
            Some(DropCause::Requests)
        } else if instance.holds_request {
            Some(DropCause::Resources)
        } else if instance.memory > instance.first_memory.saturating_mul(2) {
            Some(DropCause::Memory)
        } else {
            None
        }
    }
}

impl FailedRun {
    /// Returns whether the request runs again on a fresh instance: what earlier requests left behind may be the cause, the
    /// client has noticed nothing, and its body is still there. A request that has used up its time does not run again.
    #[must_use]
    pub fn runs_again(self) -> bool {
        let may_be_left_behind = matches!(
            self.reason.outcome(),
            Outcome::GuestError | Outcome::Trap | Outcome::OutOfMemory
        );
        self.requests_before > 0 && may_be_left_behind && !self.head_set && !self.body_read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn an_instance_is_kept_only_in_a_good_state() {
        let policy = ReusePolicy {
            max_requests: 3,
            ..ReusePolicy::default()
        };
        let good = UsedInstance {
            requests: 1,
            succeeded: true,
            first_memory: MIB,
            memory: 2 * MIB,
            holds_request: false,
        };
        type Change = fn(&mut UsedInstance);
        let table: [(Change, Option<DropCause>); 8] = [
            (|_| {}, None),
            (|it| it.requests = 2, None),
            (|it| it.requests = 3, Some(DropCause::Requests)),
            (|it| it.requests = u32::MAX, Some(DropCause::Requests)),
            (|it| it.memory = 2 * MIB + 1, Some(DropCause::Memory)),
            (|it| it.holds_request = true, Some(DropCause::Resources)),
            (|it| it.succeeded = false, Some(DropCause::Failed)),
            (
                |it| {
                    it.first_memory = u64::MAX;
                    it.memory = u64::MAX;
                },
                None,
            ),
        ];
        for (change, cause) in table {
            let mut instance = good;
            change(&mut instance);
            assert_eq!(policy.drop_cause(instance), cause, "{instance:?}");
        }
        assert!(policy.is_enabled());
        let default = ReusePolicy::default();
        assert!(!default.is_enabled());
        assert_eq!(default.drop_cause(good), Some(DropCause::Requests));
    }

    #[test]
    fn a_request_runs_again_only_when_nothing_is_lost() {
        let failed = |reason| FailedRun {
            reason,
            requests_before: 1,
            head_set: false,
            body_read: false,
        };
        for reason in FailureReason::ALL {
            let expected = matches!(
                reason,
                FailureReason::NoResponse
                    | FailureReason::ErrorCode
                    | FailureReason::BadHead
                    | FailureReason::BadLength
                    | FailureReason::Exit
                    | FailureReason::Unfinished
                    | FailureReason::Trap
                    | FailureReason::HostLimit
                    | FailureReason::Memory
            );
            assert_eq!(failed(reason).runs_again(), expected, "{reason:?}");
        }
        let trap = failed(FailureReason::Trap);
        for lost in [
            FailedRun {
                requests_before: 0,
                ..trap
            },
            FailedRun {
                head_set: true,
                ..trap
            },
            FailedRun {
                body_read: true,
                ..trap
            },
        ] {
            assert!(!lost.runs_again(), "{lost:?}");
        }
    }

    #[test]
    fn indices_match_the_list_of_causes() {
        for (at, cause) in DropCause::ALL.into_iter().enumerate() {
            assert_eq!(cause.index(), at);
        }
    }
}
