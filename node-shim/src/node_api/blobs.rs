//! Client for components that only the operator can read. It uses the connection of the node's stream.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use node_api::v1::BlobRequest;
use node_api::v1::node_api_client::NodeApiClient;
use node_shim_core::desired::{Failure, LoadFailure};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::Channel;

use super::bearer::{Bearer, with_token};
use crate::pull::OperatorBlobs;

/// Connection to an operator, and the token that was valid when it was opened.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    pub(super) token: Bearer,
}

/// Fetches components from the operator replica to which the stream is connected.
#[derive(Clone)]
pub struct BlobClient {
    pub(super) node: String,
    pub(super) connection: watch::Receiver<Option<Connection>>,
}

impl OperatorBlobs for BlobClient {
    fn blob(
        &self,
        digest: &str,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Failure>>, Failure>> {
        let request = BlobRequest {
            digest: digest.to_string(),
            node: self.node.clone(),
        };
        let connection = self.connection.borrow().clone();
        async move {
            let Some(connection) = connection else {
                return Err(Failure::new(LoadFailure::Pull, "no operator is connected"));
            };
            let request = with_token(request, &connection.token);
            let answer = NodeApiClient::new(connection.channel).blob(request).await;
            let stream = answer.map_err(|status| refused(&status))?.into_inner();
            Ok(stream
                .map_ok(|chunk| Bytes::from(chunk.data))
                .map_err(|status| refused(&status))
                .boxed())
        }
        .boxed()
    }
}

fn refused(status: &tonic::Status) -> Failure {
    // The replica may not have seen the function's placement on this node yet, so no refusal is permanent.
    let cause = match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => LoadFailure::Unauthorized,
        _ => LoadFailure::Pull,
    };
    let (code, message) = (status.code(), status.message());
    Failure::new(cause, format!("the operator answered {code}: {message}"))
}
