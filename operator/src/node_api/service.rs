//! Routes each gRPC call to the module that implements it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use node_api::v1;
use node_api::v1::node_api_server::{NodeApi, NodeApiServer};
use tonic::codec::Streaming;
use tonic::codegen::{Body, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status};

use super::authenticate::Role;
use super::calls::Calls;
use super::codec::{Sized, SyncCodec};
use super::sync::Outbound;
use super::{blob_transfer, relay_server, sync};

/// Serves Sync with a custom codec, and everything else with the generated code.
#[derive(Clone)]
pub(super) struct NodeApiService {
    calls: Arc<Calls>,
    others: NodeApiServer<Calls>,
    frame_bytes: usize,
}

impl NodeApiService {
    pub(super) fn new(calls: Arc<Calls>, frame_bytes: usize) -> Self {
        let others = NodeApiServer::from_arc(Arc::clone(&calls))
            .max_decoding_message_size(frame_bytes)
            .max_encoding_message_size(frame_bytes);
        Self {
            calls,
            others,
            frame_bytes,
        }
    }
}

impl NamedService for NodeApiService {
    const NAME: &'static str = "selvage.node.v1.NodeApi";
}

impl<B> Service<http::Request<B>> for NodeApiService
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != "/selvage.node.v1.NodeApi/Sync" {
            return self.others.call(request);
        }
        let method = SyncMethod(Arc::clone(&self.calls));
        let limit = Some(self.frame_bytes);
        Box::pin(async move {
            let mut grpc = Grpc::new(SyncCodec).apply_max_message_size_config(limit, limit);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct SyncMethod(Arc<Calls>);

impl StreamingService<Sized> for SyncMethod {
    type Response = Bytes;
    type ResponseStream = Outbound;
    type Future = BoxFuture<'static, Result<tonic::Response<Outbound>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Sized>>) -> Self::Future {
        Box::pin(sync::open(Arc::clone(&self.0), request))
    }
}

#[tonic::async_trait]
impl NodeApi for Calls {
    type SyncStream = BoxStream<'static, Result<v1::OperatorMessage, Status>>;
    type BlobStream = BoxStream<'static, Result<v1::BlobChunk, Status>>;
    type RelayStream = BoxStream<'static, Result<v1::RelayDown, Status>>;

    /// Sync is routed to its own codec before it reaches this method.
    async fn sync(
        &self,
        _: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        Err(Status::internal("not routed"))
    }

    async fn blob(
        &self,
        request: Request<v1::BlobRequest>,
    ) -> Result<Response<Self::BlobStream>, Status> {
        let caller = self.authenticator.caller(request.metadata(), Role::Node);
        let caller = caller.await?;
        blob_transfer::blob(self, &caller, request).await
    }

    async fn relay(
        &self,
        request: Request<Streaming<v1::RelayUp>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        let caller = self.authenticator.caller(request.metadata(), Role::Replica);
        let caller = caller.await?;
        relay_server::serve(self, &caller, request.into_inner())
    }
}
