//! Why a component could not be loaded, and what follows from the cause.

use std::fmt::Display;
use std::time::Duration;

use node_api_types::ExceptionReason;

/// Cause of a failed attempt to load a component. It decides what the node reports and whether the attempt is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFailure {
    /// The component could not be fetched at present.
    Pull,
    /// The registry or the operator refused access.
    Unauthorized,
    /// The reference to the component is malformed, or the component is larger than allowed.
    InvalidSource,
    /// The digest is malformed, or the source has other content under it.
    WrongContent,
    /// The copy on this node's disk is damaged.
    DamagedCopy,
    /// The content is not one component.
    NotAComponent,
    /// The component uses a feature of WebAssembly that is disabled.
    UnsupportedFeature,
    /// The component does not fit the world that nodes offer.
    WorldMismatch,
    /// The component exceeds a limit of the compiler or of an instance.
    CompileLimit,
    /// The compilation exceeded its wall-clock limit before it had the CPU time that it may use.
    CompileStarved,
    /// The compiler rejected the component.
    CompileRejected,
    /// The compiler process made a system call that is forbidden to it and was killed.
    CompilerViolation,
    /// The compiler process could not be run.
    CompilerUnavailable,
    /// The compiler process was killed from outside, such as by the kernel for lack of memory.
    CompilerKilled,
    /// The component or its native code cannot be read or mapped at present.
    Load,
    /// The component cannot run within the limits of the revision.
    RevisionLimit,
    /// Neither disk nor memory has room.
    DiskFull,
}

/// A failed attempt to load a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why the attempt failed.
    pub cause: LoadFailure,
    /// Explanation in one sentence.
    pub message: String,
    /// Delay that the server asked for (`Retry-After`).
    pub retry_after: Option<Duration>,
}

impl LoadFailure {
    /// The causes that lie in the component itself: they stay the same wherever it is loaded from. A mismatch with the
    /// world is none of them, because another release of the node may offer more interfaces.
    pub const FAULTS_OF_THE_COMPONENT: [Self; 5] = [
        Self::NotAComponent,
        Self::UnsupportedFeature,
        Self::CompileLimit,
        Self::CompileRejected,
        Self::CompilerViolation,
    ];

    /// Returns the reason that the node reports.
    #[must_use]
    pub const fn reason(self) -> ExceptionReason {
        match self {
            Self::Pull | Self::InvalidSource => ExceptionReason::PullFailed,
            Self::Unauthorized => ExceptionReason::Unauthorized,
            Self::WrongContent | Self::DamagedCopy => ExceptionReason::DigestMismatch,
            Self::NotAComponent => ExceptionReason::NotAComponent,
            Self::UnsupportedFeature => ExceptionReason::UnsupportedFeature,
            Self::WorldMismatch => ExceptionReason::WorldMismatch,
            Self::CompileLimit => ExceptionReason::CompileLimit,
            Self::CompileRejected
            | Self::CompileStarved
            | Self::CompilerUnavailable
            | Self::CompilerKilled => ExceptionReason::CompileFailed,
            Self::CompilerViolation => ExceptionReason::CompilerViolation,
            Self::Load | Self::RevisionLimit => ExceptionReason::LoadFailed,
            Self::DiskFull => ExceptionReason::DiskFull,
        }
    }

    /// Returns whether another attempt with the same bytes and the same engine would fail the same way.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        match self {
            Self::InvalidSource
            | Self::WrongContent
            | Self::NotAComponent
            | Self::UnsupportedFeature
            | Self::WorldMismatch
            | Self::CompileLimit
            | Self::CompileRejected
            | Self::CompilerViolation
            | Self::RevisionLimit => true,
            Self::Pull
            | Self::Unauthorized
            | Self::DamagedCopy
            | Self::CompileStarved
            | Self::CompilerUnavailable
            | Self::CompilerKilled
            | Self::Load
            | Self::DiskFull => false,
        }
    }
}

impl Failure {
    /// Creates a failure for which no server asked for a delay.
    pub fn new(cause: LoadFailure, message: impl Display) -> Self {
        Self {
            cause,
            message: message.to_string(),
            retry_after: None,
        }
    }

    /// Returns the reason that the node reports.
    #[must_use]
    pub const fn reason(&self) -> ExceptionReason {
        self.cause.reason()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are remembered across restarts, by the name of their reason.
    #[test]
    fn faults_of_a_component_are_permanent_and_have_reasons_of_their_own() {
        let faults = LoadFailure::FAULTS_OF_THE_COMPONENT;
        assert!(faults.into_iter().all(LoadFailure::is_permanent));
        let mut reasons = faults.map(LoadFailure::reason).to_vec();
        reasons.sort();
        reasons.dedup();
        assert_eq!(reasons.len(), faults.len());
    }
}
