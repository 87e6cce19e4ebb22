//! Serves the bytes of components that a node cannot pull itself, by digest, and only of components placed on that
//! node.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use node_api::v1;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::authenticate::Identity;
use super::blobs::{BlobError, BlobWanted};
use super::calls::{Calls, LimitReached};
use super::listen::Peer;
use super::metrics::Meter;

/// Largest chunk of the contract, in bytes.
const CHUNK: usize = 256 * 1024;

/// Deadline of a transfer. A node that stops reading would otherwise occupy its place indefinitely.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(300);

async fn watch(done: CancellationToken, peer: Peer) {
    if tokio::time::timeout(TRANSFER_TIMEOUT, done.cancelled())
        .await
        .is_err()
    {
        peer.cut.cancel();
    }
}

pub(super) async fn blob(
    calls: &Calls,
    caller: &Identity,
    request: Request<v1::BlobRequest>,
) -> Result<Response<BoxStream<'static, Result<v1::BlobChunk, Status>>>, Status> {
    let counter = &calls.meter.blobs;
    let peer = request.extensions().get::<Peer>().cloned();
    let request = request.into_inner();
    if request.node != caller.node {
        Meter::count(counter, "wrong_node");
        return Err(Status::permission_denied(
            "the token is bound to another node",
        ));
    }
    let functions = calls.tables.referring(&caller.node, &request.digest);
    // Same message for digests that exist elsewhere and for those that do not exist.
    if functions.is_empty() {
        Meter::count(counter, "not_placed");
        return Err(Status::permission_denied(
            "no function on this node refers to that digest",
        ));
    }
    let held = calls.blob_calls.take(&caller.node).map_err(|full| {
        Meter::count(counter, "busy");
        match full {
            LimitReached::Each => Status::resource_exhausted("at most two blob calls at a time"),
            LimitReached::All => Status::unavailable("too many blob calls at present; try again"),
        }
    })?;
    let digest = request.digest;
    let bytes = calls.blobs.fetch(BlobWanted { digest, functions }).await;
    let bytes = bytes.map_err(|error| match error {
        BlobError::Missing { .. } => {
            Meter::count(counter, "missing");
            Status::not_found(error.to_string())
        }
        BlobError::Unavailable(_) => {
            Meter::count(counter, "unavailable");
            Status::unavailable(error.to_string())
        }
    })?;
    Meter::count(counter, "ok");
    let done = CancellationToken::new();
    if let Some(peer) = peer {
        tokio::spawn(watch(done.clone(), peer));
    }
    let kept = (held, done.drop_guard());
    let chunks = stream::unfold((bytes, kept), |(mut rest, kept)| async move {
        let data = rest.split_to(CHUNK.min(rest.len())).to_vec();
        (!data.is_empty()).then(|| (Ok(v1::BlobChunk { data }), (rest, kept)))
    });
    Ok(Response::new(chunks.boxed()))
}
