//! Labels of the metrics about outbound requests.

/// Why an outbound request was denied; the `reason` label of `selvage_egress_denied_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DenialReason {
    /// No entry of `egress.allow` matches.
    NotAllowed,
    /// The called function is in another namespace, and no function there names the caller.
    NotGranted,
    /// The URI or the method is malformed or ambiguous.
    InvalidTarget,
    /// The administrator of the cluster denies the host to all functions.
    DeniedHost,
    /// No function may reach the address, or it is private and no entry allows it.
    Address,
    /// Too many outbound requests of the request, the function or the node are in flight.
    Limit,
}

/// How an outbound request that was not denied ended; the `outcome` label of `selvage_egress_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EgressOutcome {
    /// The head of a response arrived, whatever its status.
    Response,
    /// The name could not be resolved.
    Dns,
    /// No connection could be established.
    Connect,
    /// The TLS handshake failed, for example because of the certificate.
    Tls,
    /// The connection or the head of the response took too long.
    Timeout,
    /// The connection ended, or the server violated the protocol, before the head was complete.
    Broken,
    /// The function dropped the request, or its own request ended.
    Cancelled,
}

impl DenialReason {
    /// All reasons in the order of their indices.
    pub const ALL: [Self; 6] = [
        Self::NotAllowed,
        Self::NotGranted,
        Self::InvalidTarget,
        Self::DeniedHost,
        Self::Address,
        Self::Limit,
    ];

    /// Returns the value of the metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::NotGranted => "not_granted",
            Self::InvalidTarget => "invalid_target",
            Self::DeniedHost => "denied_host",
            Self::Address => "address",
            Self::Limit => "limit",
        }
    }

    /// Returns the position in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl EgressOutcome {
    /// All outcomes in the order of their indices.
    pub const ALL: [Self; 7] = [
        Self::Response,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Broken,
        Self::Cancelled,
    ];

    /// Returns the value of the metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns the position in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
