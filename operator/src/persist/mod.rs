//! Persistence of the rollout state in `status`: as readable fields for users, and as the record that the operator
//! reads back.
//!
//! Only the record is read. Changes to the other fields are overwritten and have no effect. A missing or unreadable
//! record means that the state was lost, and the core recovers: the newest promoted revision becomes stable, no
//! revision is the candidate, and the rollout is held.

mod compression;
mod status_fields;

use crds::{EdgeFunctionStatus, EdgeRevision};
use operator_core::function::Revision;
use operator_core::rollout::RolloutState;
use serde::Deserialize;

pub use status_fields::{history, micro, rollout, time};

/// Prefix of a record: its version, followed by the packed data. A record that begins with a brace is version 1,
/// plain JSON.
const PREFIX: &str = "2:";

/// A record of version 1.
#[derive(Deserialize)]
struct Plain<S> {
    v: u32,
    state: S,
}

/// Why a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The status has no record.
    #[error("status holds no record of the rollout")]
    Absent,
    /// The record has an unknown version.
    #[error("the record has version {0}")]
    Version(u32),
    /// The record is damaged.
    #[error("the record cannot be read: {0}")]
    Damaged(String),
}

/// Serialises the state as a record.
///
/// # Errors
/// The state contains a value that JSON cannot represent.
pub fn encode(state: &RolloutState) -> Result<String, serde_json::Error> {
    let text = serde_json::to_vec(state)?;
    Ok(format!("{PREFIX}{}", compression::pack(&text)))
}

/// Reads the state from a status.
///
/// # Errors
/// The status has no record, or it cannot be read.
pub fn decode(status: &EdgeFunctionStatus) -> Result<RolloutState, RecordError> {
    let record = status
        .rollout
        .as_ref()
        .and_then(|rollout| rollout.working_record.as_deref())
        .ok_or(RecordError::Absent)?;
    let damaged = |error: serde_json::Error| RecordError::Damaged(error.to_string());
    let unpacked = |error: compression::UnpackError| RecordError::Damaged(error.to_string());
    if let Some(packed) = record.strip_prefix(PREFIX) {
        let text = compression::unpack(packed).map_err(unpacked)?;
        return serde_json::from_slice(&text).map_err(damaged);
    }
    if let Some(v) = record
        .split_once(':')
        .and_then(|(version, _)| version.parse().ok())
    {
        return Err(RecordError::Version(v));
    }
    let Plain { v, .. } =
        serde_json::from_str::<Plain<serde::de::IgnoredAny>>(record).map_err(damaged)?;
    if v != 1 {
        return Err(RecordError::Version(v));
    }
    serde_json::from_str::<Plain<RolloutState>>(record)
        .map(|record| record.state)
        .map_err(damaged)
}

/// Finds the revision that was promoted last.
#[must_use]
pub fn last_promoted<'a>(revisions: impl Iterator<Item = &'a EdgeRevision>) -> Option<Revision> {
    revisions
        .filter_map(|revision| {
            let at = revision.status.as_ref()?.promoted_at.as_ref()?.0;
            Some((at, revision.spec.number, revision))
        })
        .max_by_key(|(at, number, _)| (*at, *number))
        .map(|(_, _, revision)| Revision {
            name: revision.metadata.name.clone().unwrap_or_default(),
            digest: revision.spec.digest.clone(),
        })
}

#[cfg(test)]
mod tests;
