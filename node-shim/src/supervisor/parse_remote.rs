//! Validates functions of other nodes. Pure.

use node_api::FencingToken;
use node_api::v1 as wire;
use node_shim_core::desired::RecordVersions;
use node_shim_core::table::{FunctionEntry, TrafficSplit};
use prost::Message;

use super::parse_record::{MAX_RECORD, RecordError, callers, key, routes, token};

/// Returns the versions by which a function of other nodes is compared.
pub(crate) fn remote_versions(remote: &wire::RemoteFunction) -> RecordVersions {
    RecordVersions {
        uid: remote.uid.clone(),
        version: remote.version,
        config_token: token(remote.accepted),
        split_token: FencingToken::default(),
    }
}

/// Validates a function of other nodes.
///
/// # Errors
/// Returns the first violation of a limit or shape.
pub(crate) fn parse_remote(remote: &wire::RemoteFunction) -> Result<FunctionEntry, RecordError> {
    if remote.encoded_len() > MAX_RECORD {
        return Err(RecordError::TooLarge);
    }
    Ok(FunctionEntry {
        key: key(remote.key.as_ref())?,
        created_ms: remote.created,
        routes: routes(&remote.routes)?,
        suspended: remote.suspended,
        callers: callers(&remote.callers)?,
        split: TrafficSplit::default(),
    })
}
