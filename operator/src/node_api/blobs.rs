//! Where the bytes of components come from that a node cannot pull itself.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::FunctionKey;

/// What a node asked for, after it was found to be placed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobWanted {
    /// `sha256:<hex>` of the component's bytes.
    pub digest: String,
    /// The functions on that node that refer to it: whose pull secrets may fetch it again.
    pub functions: Vec<FunctionKey>,
}

/// Why there are no bytes.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Nobody has them, and asking again will not help.
    #[error("{digest} is not available: {reason}")]
    Missing {
        /// What was asked for.
        digest: String,
        /// One sentence without credentials.
        reason: String,
    },
    /// The registry did not answer; worth another try.
    #[error("not available now: {0}")]
    Unavailable(String),
}

/// Gives component bytes by digest, from a cache or by fetching them again.
pub trait Blobs: Send + Sync + 'static {
    /// The bytes, verified against the digest.
    fn fetch(&self, wanted: BlobWanted) -> BoxFuture<'_, Result<Bytes, BlobError>>;
}
