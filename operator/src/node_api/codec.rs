//! Codec of the Sync stream: messages to nodes are already encoded; the size of messages from nodes is recorded.

use bytes::{Buf, BufMut, Bytes};
use node_api::v1;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A message of a node with its encoded length.
pub(super) struct Sized {
    pub(super) message: v1::NodeMessage,
    pub(super) bytes: usize,
}

pub(super) struct SyncCodec;
pub(super) struct EncodeShared;
pub(super) struct DecodeSized;

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
