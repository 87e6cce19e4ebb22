//! How a request can end, what the client then sees, and what it counts as.

/// How a request of a function ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The guest's own response ended as promised, whatever its status.
    Ok,
    /// No response, an error code, a bad head, a broken length.
    GuestError,
    /// The guest trapped, or its output exceeded a limit of the host.
    Trap,
    /// A time limit passed: CPU, whole request, response head, or the pause between two chunks.
    Deadline,
    /// The guest needed more memory than `limits.memory`.
    OutOfMemory,
    /// The request was refused before the guest started: no permit, no queue place, no instance slot, no memory on the node.
    Overloaded,
    /// The node's fault: a panic, missing code or secrets.
    HostError,
    /// The client left, or its body broke or was too large or too slow.
    ClientFault,
}

/// Why, within an outcome; the label of `selvage_failures_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureReason {
    NoResponse,
    /// The guest set an error code instead of a response.
    ErrorCode,
    /// The guest's response head is not valid.
    BadHead,
    /// The guest's body is shorter or longer than its `content-length`.
    BadLength,
    /// The guest called `exit`.
    Exit,
    /// The guest ended before its response body was complete.
    Unfinished,
    /// The guest trapped.
    Trap,
    /// The guest exceeded a limit of the host that is neither time nor memory.
    HostLimit,
    /// The guest used its CPU time (`limits.cpu`).
    Cpu,
    /// The request took longer than `limits.timeout`.
    Wall,
    /// The response head took longer than `limits.firstByte`.
    FirstByte,
    /// No chunk of the body moved for `limits.idle`.
    Idle,
    /// The guest needed more memory than `limits.memory`.
    Memory,
    /// All permits of the revision were taken and it has no queue.
    Concurrency,
    /// The queue of the revision was full, or no permit became free in time.
    Queue,
    /// The node had no free instance slot.
    Pool,
    /// The node refuses requests because its memory is short.
    MemoryPressure,
    /// The code was not ready in time, or too many requests waited for code.
    Compile,
    /// The circuit breaker of the function is open.
    Breaker,
    /// The function is suspended (`spec.suspend`).
    Suspended,
    /// The node has no value for a Secret that the revision refers to.
    SecretsUnavailable,
    /// The node cannot load the code of the revision.
    Unloadable,
    /// The task that ran the request panicked.
    Panic,
    /// The node stopped the request, for instance at the end of a drain.
    Cancelled,
    /// The request body is larger than `limits.requestBody`.
    BodyTooLarge,
    /// The client sent no chunk of its body for `limits.idle`.
    BodySlow,
    /// The client closed the connection before the response was complete.
    ClientGone,
}

/// Class of the status the client was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatusClass {
    C2xx,
    /// 300 to 399.
    C3xx,
    /// 400 to 499.
    C4xx,
    /// 500 to 599, and everything that is in no other class.
    C5xx,
    /// Nothing was sent.
    None,
}

/// Whether the code was there when the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StartKind {
    Warm,
    /// The request waited for the code.
    Cold,
}

/// Which kind of traffic a request belongs to; kept apart because only comparable requests are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Population {
    /// Ordinary requests of clients.
    Live,
    /// Requests that an A/B test assigned by a rule.
    Matched,
    /// Copies of requests whose responses are discarded.
    Shadow,
    /// Requests that the operator generates as a load test.
    Synthetic,
    /// Requests that address a candidate explicitly, before it gets traffic.
    Preview,
}

/// What the shim answers when the guest's own head was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    pub status: u16,
    /// Value of `selvage-error`.
    pub error: &'static str,
    /// Seconds.
    pub retry_after: Option<u32>,
}

// === impl Outcome ===

impl Outcome {
    /// All outcomes, in the order of their positions.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::GuestError,
        Self::Trap,
        Self::Deadline,
        Self::OutOfMemory,
        Self::Overloaded,
        Self::HostError,
        Self::ClientFault,
    ];

    /// Value of the metrics label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::GuestError => "guest_error",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::OutOfMemory => "oom",
            Self::Overloaded => "overloaded",
            Self::HostError => "host_error",
            Self::ClientFault => "client",
        }
    }

    /// Position in `ALL`.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Codes that traffic with this outcome can carry: an abort keeps the code whose head went out.
    pub fn status_classes(self) -> &'static [StatusClass] {
        match self {
            Self::Overloaded => &[StatusClass::C5xx],
            Self::Ok
            | Self::GuestError
            | Self::Trap
            | Self::Deadline
            | Self::OutOfMemory
            | Self::HostError => &[
                StatusClass::C2xx,
                StatusClass::C3xx,
                StatusClass::C4xx,
                StatusClass::C5xx,
            ],
            Self::ClientFault => &StatusClass::ALL,
        }
    }
}

// === impl Reason ===

impl FailureReason {
    pub const ALL: [Self; 27] = [
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
        Self::Breaker,
        Self::Suspended,
        Self::SecretsUnavailable,
        Self::Unloadable,
        Self::Panic,
        Self::Cancelled,
        Self::BodyTooLarge,
        Self::BodySlow,
        Self::ClientGone,
    ];

    /// Position in `ALL`.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Value of the metrics label `reason`.
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
            Self::Breaker => "breaker",
            Self::Suspended => "suspended",
            Self::SecretsUnavailable => "secrets_unavailable",
            Self::Unloadable => "unloadable",
            Self::Panic => "panic",
            Self::Cancelled => "cancelled",
            Self::BodyTooLarge => "body_too_large",
            Self::BodySlow => "body_slow",
            Self::ClientGone => "client_gone",
        }
    }

    /// The outcome that this reason belongs to.
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
            | Self::Breaker
            | Self::Suspended => Outcome::Overloaded,
            Self::SecretsUnavailable | Self::Unloadable | Self::Panic | Self::Cancelled => {
                Outcome::HostError
            }
            Self::BodyTooLarge | Self::BodySlow | Self::ClientGone => Outcome::ClientFault,
        }
    }

    /// Refused by the revision's own permits or queue: the refusals that count against it.
    pub fn counts_as_saturation(self) -> bool {
        matches!(self, Self::Concurrency | Self::Queue)
    }

    /// What the client is told; `None` when there is nobody to tell.
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
            Self::Suspended => reply(503, "suspended"),
            Self::SecretsUnavailable => reply(503, "secrets_unavailable"),
            Self::Unloadable | Self::Cancelled => reply(503, "host_error"),
            Self::Panic => reply(500, "host_error"),
            Self::Breaker => later("breaker"),
            Self::Concurrency | Self::Queue | Self::Pool | Self::MemoryPressure | Self::Compile => {
                later("overloaded")
            }
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

// === impl Code, Start, Population ===

impl StatusClass {
    pub const ALL: [Self; 5] = [Self::C2xx, Self::C3xx, Self::C4xx, Self::C5xx, Self::None];

    /// The class of a status. A status outside of 200 to 499 counts as `C5xx`.
    pub fn of(status: u16) -> Self {
        match status / 100 {
            2 => Self::C2xx,
            3 => Self::C3xx,
            4 => Self::C4xx,
            _ => Self::C5xx,
        }
    }

    /// Value of the metrics label `code`.
    pub fn label(self) -> &'static str {
        match self {
            Self::C2xx => "2xx",
            Self::C3xx => "3xx",
            Self::C4xx => "4xx",
            Self::C5xx => "5xx",
            Self::None => "none",
        }
    }

    /// Position in `ALL`.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl StartKind {
    pub const ALL: [Self; 2] = [Self::Warm, Self::Cold];

    /// Value of the metrics label `start`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    /// Position in `ALL`.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl Population {
    /// All populations, in the order of their positions.
    pub const ALL: [Self; 5] = [
        Self::Live,
        Self::Matched,
        Self::Shadow,
        Self::Synthetic,
        Self::Preview,
    ];

    /// Value of the metrics label `population`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Matched => "matched",
            Self::Shadow => "shadow",
            Self::Synthetic => "synthetic",
            Self::Preview => "preview",
        }
    }

    /// Position in `ALL`.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_agree_with_the_lists() {
        for (at, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.index(), at);
        }
        for (at, code) in StatusClass::ALL.into_iter().enumerate() {
            assert_eq!(code.index(), at);
        }
        for (at, reason) in FailureReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
        for (at, population) in Population::ALL.into_iter().enumerate() {
            assert_eq!(population.index(), at);
        }
    }

    #[test]
    fn a_head_that_was_not_sent_names_the_outcome() {
        let told = |reason: FailureReason| {
            reason
                .error_response()
                .map(|r| (r.status, r.error, r.retry_after))
        };
        assert_eq!(
            told(FailureReason::NoResponse),
            Some((502, "guest_error", None))
        );
        assert_eq!(told(FailureReason::HostLimit), Some((500, "trap", None)));
        assert_eq!(
            told(FailureReason::FirstByte),
            Some((504, "deadline", None))
        );
        assert_eq!(
            told(FailureReason::Memory),
            Some((500, "out_of_memory", None))
        );
        assert_eq!(
            told(FailureReason::Pool),
            Some((503, "overloaded", Some(1)))
        );
        assert_eq!(told(FailureReason::ClientGone), None);
    }

    #[test]
    fn only_own_permits_saturate() {
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
