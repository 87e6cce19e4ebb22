//! How messages of the Sync stream become bytes: down they are encoded already, up their size is noted.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use node_api::v1;
use node_api::v1::node_api_server::NodeApiServer;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::codegen::{Body, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};

use super::calls::Calls;
use super::sync::{self, Outbound};

/// A message of a node and how long it was on the wire.
pub(super) struct Sized {
    pub(super) message: v1::NodeMessage,
    pub(super) bytes: usize,
}

struct SyncCodec;
struct EncodeShared;
struct DecodeSized;

impl Codec for SyncCodec {
    type Encode = Bytes;
    type Decode = Sized;
    type Encoder = EncodeShared;
    type Decoder = DecodeSized;

    fn encoder(&mut self) -> EncodeShared {
        EncodeShared
    }

    fn decoder(&mut self) -> DecodeSized {
        DecodeSized
    }
}

impl Encoder for EncodeShared {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for DecodeSized {
    type Item = Sized;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Sized>, Status> {
        let bytes = src.remaining();
        let message = v1::NodeMessage::decode(src)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Some(Sized { message, bytes }))
    }
}

/// The service: Sync by the codec above, everything else by the generated code.
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
