//! Queries and what their answers say.

use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, Rtype, ToName};
use domain::rdata::{A, Aaaa};

/// Maximum number of addresses of one family that are used.
const MAX_ADDRESSES: usize = 16;
/// Maximum length of a label in bytes.
const MAX_LABEL: u8 = 63;
const CLASS_IN: u16 = 1;

/// A query for the addresses of one name.
pub(super) struct Query {
    bytes: Vec<u8>,
    kind: Rtype,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The addresses of the name, and how long they are valid.
    Found(Vec<IpAddr>, Duration),
    /// The name does not exist or has no addresses of this kind.
    Absent,
    /// The answer did not fit into a datagram.
    Truncated,
    /// The server could not answer; with its code.
    Failed(String),
}

impl Query {
    /// Returns a query with a random number. `None` when the name is not a DNS name.
    pub(super) fn new(name: &str, kind: Rtype) -> Option<Self> {
        let [high, low] = random()?;
        // recursion is desired, and there is one question
        let mut bytes = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok();
            bytes.push(length.filter(|length| (1..=MAX_LABEL).contains(length))?);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_int().to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        Some(Self { bytes, kind })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads an answer. `None` when it does not answer this query.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<Answer> {
        let message = Message::from_octets(bytes).ok()?;
        let query = Message::from_octets(self.bytes()).ok()?;
        if !message.is_answer(&query) {
            return None;
        }
        if message.header().tc() {
            return Some(Answer::Truncated);
        }
        match message.header().rcode() {
            Rcode::NOERROR => {}
            Rcode::NXDOMAIN => return Some(Answer::Absent),
            other => return Some(Answer::Failed(other.to_string())),
        }
        // the name at the end of the aliases; records of other names are not for this query
        let name = message.canonical_name()?;
        let records = message.answer().ok()?;
        let found: Vec<(IpAddr, u32)> = if self.kind == Rtype::A {
            let records = records.limit_to_in::<A>().flatten();
            let own = records.filter(|record| name.name_eq(record.owner()));
            own.map(|record| (record.data().addr().into(), record.ttl().as_secs()))
                .take(MAX_ADDRESSES)
                .collect()
        } else {
            let records = records.limit_to_in::<Aaaa>().flatten();
            let own = records.filter(|record| name.name_eq(record.owner()));
            own.map(|record| (record.data().addr().into(), record.ttl().as_secs()))
                .take(MAX_ADDRESSES)
                .collect()
        };
        let ttl = found.iter().map(|(_, ttl)| *ttl).min();
        Some(match ttl {
            Some(ttl) => Answer::Found(
                found.into_iter().map(|(address, _)| address).collect(),
                Duration::from_secs(ttl.into()),
            ),
            None => Answer::Absent,
        })
    }
}

/// Returns a number that no other host can guess.
fn random() -> Option<[u8; 2]> {
    let mut bytes = [0; 2];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut bytes).ok()?;
    Some(bytes)
}
