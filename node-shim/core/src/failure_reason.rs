//! Why a request failed, and the status, headers and outcome that belong to each reason.

use node_api_types::Outcome;

/// Why a request failed; the `reason` label of `selvage_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureReason {
    /// The guest returned without a response.
    NoResponse,
    /// The guest returned an error code in place of a response.
    ErrorCode,
    /// The response head is invalid.
    BadHead,
    /// The body is longer or shorter than its `content-length`.
    BadLength,
    /// The guest exited before it had responded.
    Exit,
    /// The guest ended without finishing its body.
    Unfinished,
    /// The guest executed a trapping instruction.
    Trap,
    /// The guest exceeded a limit of a host call, such as the number of handles.
    HostLimit,
    /// The request exceeded `limits.cpu`.
    Cpu,
    /// The request exceeded `limits.timeout`.
    Wall,
    /// The response head did not arrive within `limits.firstByte`.
    FirstByte,
    /// The body paused for longer than `limits.idle`.
    Idle,
    /// The guest trapped after it was refused memory beyond `limits.memory`.
    Memory,
    /// All permits of the revision were in use, and it has no queue.
    Concurrency,
    /// The queue of the revision was full, or the request waited for too long in it.
    Queue,
    /// The instance pool of the node was full.
    Pool,
    /// The node was short of memory.
    MemoryPressure,
    /// The code was not loaded in time.
    Compile,
    /// The function is suspended.
    Suspended,
    /// The values of the function's secrets are not known on the node.
    SecretsUnavailable,
    /// The component cannot be loaded on the node.
    Unloadable,
    /// The kernel refused the node memory that an instance needed.
    HostMemory,
    /// A host call panicked.
    Panic,
    /// The node stopped the request, for example at the end of a drain.
    Cancelled,
    /// The request body is larger than `limits.requestBody`.
    BodyTooLarge,
    /// The request body arrived too slowly.
    BodySlow,
    /// The framing of the request body is broken, or the body was cut short.
    BadFraming,
    /// The client disconnected before the response was complete.
    ClientGone,
}

/// Response of the node-shim in place of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// Status code.
    pub status: u16,
    /// Value of the `selvage-error` header.
    pub error: &'static str,
    /// Value of the `retry-after` header in seconds.
    pub retry_after: Option<u32>,
}

// === impl FailureReason ===

impl FailureReason {
    /// All reasons in the order of their indices.
    pub const ALL: [Self; 28] = [
        Self::NoResponse,
        Self::ErrorCode,
        Self::BadHead,
        Self::BadLength,
        Self::Exit,
        Self::Unfinished,
        Self::Trap,
        Self::HostLimit,
        Self::Cpu,
        Self::Wall,
        Self::FirstByte,
        Self::Idle,
        Self::Memory,
        Self::Concurrency,
        Self::Queue,
        Self::Pool,
        Self::MemoryPressure,
        Self::Compile,
        Self::Suspended,
        Self::SecretsUnavailable,
        Self::Unloadable,
        Self::HostMemory,
        Self::Panic,
        Self::Cancelled,
        Self::BodyTooLarge,
        Self::BodySlow,
        Self::BadFraming,
        Self::ClientGone,
    ];

    /// Returns the position in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }

    /// Returns the value of the metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoResponse => "no_response",
            Self::ErrorCode => "error_code",
            Self::BadHead => "bad_head",
            Self::BadLength => "bad_length",
            Self::Exit => "exit",
            Self::Unfinished => "unfinished",
            Self::Trap => "trap",
            Self::HostLimit => "host_limit",
            Self::Cpu => "cpu",
            Self::Wall => "wall",
            Self::FirstByte => "first_byte",
            Self::Idle => "idle",
            Self::Memory => "memory",
            Self::Concurrency => "concurrency",
            Self::Queue => "queue",
            Self::Pool => "pool",
            Self::MemoryPressure => "memory_pressure",
            Self::Compile => "compile",
            Self::Suspended => "suspended",
            Self::SecretsUnavailable => "secrets_unavailable",
            Self::Unloadable => "unloadable",
            Self::HostMemory => "host_memory",
            Self::Panic => "panic",
            Self::Cancelled => "cancelled",
            Self::BodyTooLarge => "body_too_large",
            Self::BodySlow => "body_slow",
            Self::BadFraming => "bad_framing",
            Self::ClientGone => "client_gone",
        }
    }

    /// Returns the outcome that the reason belongs to.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::NoResponse
            | Self::ErrorCode
            | Self::BadHead
            | Self::BadLength
            | Self::Exit
            | Self::Unfinished => Outcome::GuestError,
            Self::Trap | Self::HostLimit => Outcome::Trap,
            Self::Cpu | Self::Wall | Self::FirstByte | Self::Idle => Outcome::Deadline,
            Self::Memory => Outcome::OutOfMemory,
            Self::Concurrency
            | Self::Queue
            | Self::Pool
            | Self::MemoryPressure
            | Self::Compile
            | Self::Suspended => Outcome::Overloaded,
            Self::SecretsUnavailable
            | Self::Unloadable
            | Self::HostMemory
            | Self::Panic
            | Self::Cancelled => Outcome::HostError,
            Self::BodyTooLarge | Self::BodySlow | Self::BadFraming | Self::ClientGone => {
                Outcome::ClientFault
            }
        }
    }

    /// Returns whether the revision's own concurrency limit or queue rejected the request. Only these
    /// rejections count against the revision.
    pub fn counts_as_saturation(self) -> bool {
        matches!(self, Self::Concurrency | Self::Queue)
    }

    /// Returns the response to the client; `None` when the client has disconnected.
    pub fn error_response(self) -> Option<ErrorResponse> {
        let reply = |status, error| {
            Some(ErrorResponse {
                status,
                error,
                retry_after: None,
            })
        };
        let later = |error| {
            Some(ErrorResponse {
                status: 503,
                error,
                retry_after: Some(1),
            })
        };
        match self {
            Self::ClientGone => None,
            Self::BodyTooLarge => reply(413, "body_too_large"),
            Self::BodySlow => reply(408, "body_slow"),
            Self::BadFraming => reply(400, "bad_framing"),
            Self::Suspended => reply(503, "suspended"),
            Self::SecretsUnavailable => reply(503, "secrets_unavailable"),
            Self::Unloadable | Self::Cancelled => reply(503, "host_error"),
            Self::Panic => reply(500, "host_error"),
            Self::Concurrency
            | Self::Queue
            | Self::Pool
            | Self::MemoryPressure
            | Self::HostMemory => later("overloaded"),
            Self::Compile => later("loading"),
            Self::Trap | Self::HostLimit => reply(500, "trap"),
            Self::Memory => reply(500, "out_of_memory"),
            Self::Cpu | Self::Wall | Self::FirstByte | Self::Idle => reply(504, "deadline"),
            Self::NoResponse
            | Self::ErrorCode
            | Self::BadHead
            | Self::BadLength
            | Self::Exit
            | Self::Unfinished => reply(502, "guest_error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_match_the_list() {
        for (at, reason) in FailureReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }

    #[test]
    fn each_reason_has_its_response() {
        let response = |reason: FailureReason| {
            reason
                .error_response()
                .map(|r| (r.status, r.error, r.retry_after))
        };
        assert_eq!(
            response(FailureReason::NoResponse),
            Some((502, "guest_error", None))
        );
        assert_eq!(
            response(FailureReason::HostLimit),
            Some((500, "trap", None))
        );
        assert_eq!(
            response(FailureReason::FirstByte),
            Some((504, "deadline", None))
        );
        assert_eq!(
            response(FailureReason::Memory),
            Some((500, "out_of_memory", None))
        );
        assert_eq!(
            response(FailureReason::Pool),
            Some((503, "overloaded", Some(1)))
        );
        assert_eq!(
            response(FailureReason::Compile),
            Some((503, "loading", Some(1)))
        );
        assert_eq!(response(FailureReason::ClientGone), None);
    }

    #[test]
    fn only_the_revisions_own_limits_count_as_saturation() {
        assert!(
            FailureReason::Queue.counts_as_saturation()
                && FailureReason::Concurrency.counts_as_saturation()
        );
        assert!(
            !FailureReason::Pool.counts_as_saturation()
                && !FailureReason::MemoryPressure.counts_as_saturation()
        );
    }
}
