//! Encodes records. A protobuf message is the concatenation of its fields, so a batch is assembled from fields that
//! were encoded once, when the record changed.

use bytes::{BufMut, Bytes, BytesMut};
use node_api::v1;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::super::placement::Placement;
use super::{Entry, FunctionKey, RECORD_BYTES, RecordRefused};

/// Field numbers of the contract's `Batch` and `OperatorMessage`; a test compares them with the generated code.
mod field {
    pub(super) const VERSION: u32 = 1;
    pub(super) const SNAPSHOT: u32 = 2;
    pub(super) const FUNCTIONS: u32 = 3;
    pub(super) const SPLITS: u32 = 4;
    pub(super) const REMOVALS: u32 = 5;
    pub(super) const KEPT: u32 = 6;
    pub(super) const NODE_SETS: u32 = 7;
    pub(super) const REMOTE: u32 = 8;
    pub(super) const ADDRESSES: u32 = 9;
    pub(super) const ADDRESSES_COMPLETE: u32 = 10;
    pub(super) const BATCH: u32 = 2;
}

impl Entry {
    pub(super) fn new(
        record: v1::FunctionRecord,
        placement: Placement,
    ) -> Result<Self, RecordRefused> {
        let bytes = record.encoded_len();
        if bytes > RECORD_BYTES {
            let limit = RECORD_BYTES;
            return Err(RecordRefused::TooLarge { bytes, limit });
        }
        let split = v1::SplitUpdate {
            key: record.key.clone(),
            version: record.version,
            split: record.split.clone(),
        };
        Ok(Self {
            whole: encode_field(field::FUNCTIONS, &record),
            split: encode_field(field::SPLITS, &split),
            record,
            placement,
            remote: None,
        })
    }
}

/// Encodes a removal as a field of a batch.
pub(super) fn removal(key: &FunctionKey, version: u64) -> Bytes {
    let removal = v1::Removal {
        key: Some(key.into()),
        version,
    };
    encode_field(field::REMOVALS, &removal)
}

/// Encodes a function that a node keeps, as a field of a batch.
pub(super) fn kept(function: &v1::KeptFunction) -> Bytes {
    encode_field(field::KEPT, function)
}

/// Encodes a function for nodes that do not run it, as a field of a batch.
pub(super) fn remote(function: &v1::RemoteFunction) -> Bytes {
    encode_field(field::REMOTE, function)
}

/// Encodes a set of nodes as a field of a batch.
pub(super) fn node_set(set: &v1::NodeSet) -> Bytes {
    encode_field(field::NODE_SETS, set)
}

/// Encodes the address of a node as a field of a batch.
pub(super) fn address(address: &v1::NodeAddress) -> Bytes {
    encode_field(field::ADDRESSES, address)
}

/// Encodes that the addresses of a batch are all that there are, as a field of a batch.
pub(super) fn addresses_complete() -> Bytes {
    let mut out = BytesMut::with_capacity(2);
    put_uint(&mut out, field::ADDRESSES_COMPLETE, 1);
    out.freeze()
}

/// Encodes an `OperatorMessage` with a `Batch` of the given fields.
pub(super) fn batch(version: u64, phase: v1::SnapshotPhase, fields: &[Bytes]) -> Bytes {
    let phase = u64::try_from(i32::from(phase)).unwrap_or(0);
    let mut head = BytesMut::with_capacity(16);
    put_uint(&mut head, field::VERSION, version);
    put_uint(&mut head, field::SNAPSHOT, phase);
    let body = head.len() + fields.iter().map(Bytes::len).sum::<usize>();
    let mut out = BytesMut::with_capacity(body + 8);
    encode_key(field::BATCH, WireType::LengthDelimited, &mut out);
    encode_varint(length(body), &mut out);
    out.put(head);
    for field in fields {
        out.put_slice(field);
    }
    out.freeze()
}

/// Proto3 omits zero values.
fn put_uint(out: &mut BytesMut, number: u32, value: u64) {
    if value != 0 {
        encode_key(number, WireType::Varint, out);
        encode_varint(value, out);
    }
}

fn encode_field<M: Message>(number: u32, message: &M) -> Bytes {
    let body = message.encoded_len();
    let mut out = BytesMut::with_capacity(body + encoded_len_varint(length(body)) + 2);
    encode_key(number, WireType::LengthDelimited, &mut out);
    encode_varint(length(body), &mut out);
    out.put_slice(&message.encode_to_vec());
    out.freeze()
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use node_api::v1::operator_message::Kind;

    use super::*;

    #[test]
    fn a_batch_put_together_from_fields_is_the_contracts_batch() {
        let key = FunctionKey::new("shop", "checkout");
        let record = v1::FunctionRecord {
            key: Some((&key).into()),
            uid: "u".to_owned(),
            version: 7,
            split: Some(v1::TrafficSplit {
                token: Some(v1::FencingToken {
                    epoch: 1,
                    serial: 2,
                }),
                stable: "checkout-1".to_owned(),
                ..v1::TrafficSplit::default()
            }),
            ..v1::FunctionRecord::default()
        };
        let entry = Entry::new(record.clone(), Placement::All).unwrap();
        let keep = v1::KeptFunction {
            key: record.key.clone(),
            uid: "u".to_owned(),
        };
        let elsewhere = v1::RemoteFunction {
            key: record.key.clone(),
            node_set: 3,
            ..v1::RemoteFunction::default()
        };
        let set = v1::NodeSet {
            id: 3,
            nodes: vec!["n-1".to_owned()],
        };
        let of_node = v1::NodeAddress {
            node: "n-1".to_owned(),
            address: "192.0.2.1".to_owned(),
            port: 8080,
        };
        let fields = [
            entry.split.clone(),
            removal(&key, 9),
            entry.whole.clone(),
            entry.split.clone(),
            kept(&keep),
            remote(&elsewhere),
            node_set(&set),
            address(&of_node),
            addresses_complete(),
        ];
        let bytes = batch(300, v1::SnapshotPhase::End, &fields);
        let split = v1::SplitUpdate {
            key: record.key.clone(),
            version: 7,
            split: record.split.clone(),
        };
        let expected = v1::OperatorMessage {
            kind: Some(Kind::Batch(v1::Batch {
                version: 300,
                snapshot: v1::SnapshotPhase::End.into(),
                functions: vec![record],
                splits: vec![split.clone(), split],
                removals: vec![v1::Removal {
                    key: Some((&key).into()),
                    version: 9,
                }],
                kept: vec![keep.clone()],
                node_sets: vec![set],
                remote: vec![elsewhere],
                addresses: vec![of_node],
                addresses_complete: true,
            })),
        };
        assert_eq!(v1::OperatorMessage::decode(bytes).unwrap(), expected);
        let empty = batch(0, v1::SnapshotPhase::None, &[]);
        assert_eq!(
            v1::OperatorMessage::decode(empty).unwrap().kind,
            Some(Kind::Batch(v1::Batch::default()))
        );
    }

    /// FD-5: an oversized record is refused with its size.
    #[test]
    fn a_record_above_the_limit_is_refused_with_its_size() {
        let record = v1::FunctionRecord {
            uid: "x".repeat(RECORD_BYTES),
            ..v1::FunctionRecord::default()
        };
        assert!(matches!(
            Entry::new(record, Placement::All).map(|_| ()),
            Err(RecordRefused::TooLarge { bytes, .. }) if bytes > RECORD_BYTES
        ));
    }
}
