//! Source of the component bytes that a node cannot pull itself.

use bytes::Bytes;
use futures::future::BoxFuture;

use super::FunctionKey;

/// A blob request of a node, after the check that the component is placed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobWanted {
    /// Digest of the component's bytes (`sha256:<hex>`).
    pub digest: String,
    /// Functions on that node that refer to the component; their pull secrets may be used to fetch it.
    pub functions: Vec<FunctionKey>,
}

/// Why a blob is not available.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// No source has the bytes, and a retry will not help.
    #[error("{digest} is not available: {reason}")]
    Missing {
        /// Digest that the node requested.
        digest: String,
        /// Explanation in one sentence, without credentials.
        reason: String,
    },
    /// The registry did not answer; a retry may help.
    #[error("not available now: {0}")]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
}

/// Provides component bytes by digest, from a cache or by fetching them again.
pub trait Blobs: Send + Sync + 'static {
    /// Returns the bytes, verified against the digest.
    fn fetch(&self, wanted: BlobWanted) -> BoxFuture<'_, Result<Bytes, BlobError>>;
}
