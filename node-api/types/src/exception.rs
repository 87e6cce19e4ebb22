//! Why a node reports an exception.

/// Reason of an exception in a node's report: what keeps a revision from running on the node as its definition says, or
/// what is wrong with the node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExceptionReason {
    /// The compiler failed.
    CompileFailed,
    /// The component exceeds a limit of the compiler or of an instance.
    CompileLimit,
    /// The compiler process attempted something that is forbidden to it, which is a sign of an attack.
    CompilerViolation,
    /// The content is not what its digest or size promises.
    DigestMismatch,
    /// The state directory of the node cannot be written.
    DiskFull,
    /// The native code cannot be mapped, or the component cannot run within its limits.
    LoadFailed,
    /// The image does not contain exactly one component.
    NotAComponent,
    /// The component could not be fetched.
    PullFailed,
    /// The node rejected the newest record of the function.
    RecordRefused,
    /// Requests failed on instances that had answered others, so the revision gets a fresh instance for every request.
    ReuseUnsafe,
    /// The node lacks a value of a Secret that the revision was created with.
    SecretsUnavailable,
    /// The registry or the operator refused access to the component.
    Unauthorized,
    /// The component uses a feature of WebAssembly that nodes do not enable.
    UnsupportedFeature,
    /// The component imports something that nodes do not offer, or exports no handler.
    WorldMismatch,
}

impl ExceptionReason {
    /// Returns the reason in CamelCase, as on the wire, in the status of objects and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CompileFailed => "CompileFailed",
            Self::CompileLimit => "CompileLimit",
            Self::CompilerViolation => "CompilerViolation",
            Self::DigestMismatch => "DigestMismatch",
            Self::DiskFull => "DiskFull",
            Self::LoadFailed => "LoadFailed",
            Self::NotAComponent => "NotAComponent",
            Self::PullFailed => "PullFailed",
            Self::RecordRefused => "RecordRefused",
            Self::ReuseUnsafe => "ReuseUnsafe",
            Self::SecretsUnavailable => "SecretsUnavailable",
            Self::Unauthorized => "Unauthorized",
            Self::UnsupportedFeature => "UnsupportedFeature",
            Self::WorldMismatch => "WorldMismatch",
        }
    }
}
