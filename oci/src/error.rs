//! Errors of a pull.

use std::time::Duration;

use crate::{ManifestError, UnpackError};

/// Why a pull failed. Messages name hosts and repositories, never credentials or signed URLs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the registry, or to a host that it redirects to.
    #[error("{host} cannot be reached: {cause}")]
    Unreachable {
        /// Host that was connected to.
        host: String,
        /// Innermost cause, for example `Connection refused`.
        cause: String,
    },
    /// The connection, the answer or the next piece of it took too long.
    #[error("{host} did not answer in time")]
    Timeout {
        /// Host that was connected to.
        host: String,
    },
    /// The answer arrives so slowly that it is given up.
    #[error("{host} sends {what} too slowly: less than 64 KiB in 15 s")]
    TooSlow {
        /// Host that answered.
        host: String,
        /// What was being read, for example `the manifest`.
        what: &'static str,
    },
    /// The connection ended before the answer did.
    #[error("the connection to {host} ended in the middle of {what}")]
    Interrupted {
        /// Host that answered.
        host: String,
        /// What was being read, for example `the manifest`.
        what: &'static str,
    },
    /// The registry names a redirect or a token service that must not be called.
    #[error("{host} refers to {target}: denied, {why}")]
    Denied {
        /// Host of the registry.
        host: String,
        /// Host that the registry names.
        target: String,
        /// The rule that denies the target.
        why: &'static str,
    },
    /// The registry answered with another status than success.
    #[error("{}", status_message(host, repository, *status))]
    Status {
        /// Host of the registry, or of the token service.
        host: String,
        /// Repository that was requested.
        repository: String,
        /// HTTP status code.
        status: u16,
        /// Time to wait before the next attempt, from `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The registry requires authentication that is not available.
    #[error("{host} requires authentication: {why}")]
    Unauthorized {
        /// Host of the registry.
        host: String,
        /// What is missing for authentication.
        why: &'static str,
    },
    /// A manifest or a token is longer than allowed.
    #[error("{what} of {host} is larger than {limit} bytes")]
    TooLarge {
        /// Host that answered.
        host: String,
        /// What was being read, for example `the manifest`.
        what: &'static str,
        /// Allowed size in bytes.
        limit: u64,
    },
    /// The content has more or fewer bytes than declared, or more than a component may have.
    #[error("the registry sent {received} bytes or more of content with {declared} bytes")]
    SizeMismatch {
        /// Bytes that were declared, or allowed when nothing was declared.
        declared: u64,
        /// Bytes received when reading stopped.
        received: u64,
    },
    /// The content does not match its digest.
    #[error("the registry sent content with digest {found} instead of {expected}")]
    DigestMismatch {
        /// Digest that was requested.
        expected: String,
        /// Digest of the received content.
        found: String,
    },
    /// A digest is not `sha256:` and 64 lower-case hexadecimal digits.
    #[error("{digest:?} is not a sha256 digest")]
    UnsupportedDigest {
        /// The malformed digest.
        digest: String,
    },
    /// The manifest does not describe exactly one component.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The layer does not contain exactly one component.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

// === impl Error ===

impl Error {
    /// Delay before the next attempt, if the registry requested one.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether other credentials could help.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized { .. }
                | Self::Status {
                    status: 401 | 403,
                    ..
                }
        )
    }
}

fn status_message(host: &str, repository: &str, status: u16) -> String {
    match status {
        401 | 403 => format!("{host} refuses access to {repository} ({status})"),
        404 => format!("{host} has no {repository} with this tag or digest (404)"),
        _ => format!("{host} answered {status}"),
    }
}
