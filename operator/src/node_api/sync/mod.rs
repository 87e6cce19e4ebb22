//! Stream of one node, from Hello to Goodbye.
//!
//! ```text
//! token ─► rates ─► Hello ─► node claim ─► two per node ─► register ─┬─► reader: reports ─► fleet
//!                                                                    └─► writer: welcome, table, hints
//! ```
//! The first of these events ends the stream: the node leaves, a rule is violated, the writer cannot drain, the token
//! must be presented again, or the replica stops. Every end by the operator has a reason.

mod reader;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use node_api::v1::node_message::Kind;
use node_api::{FORWARD, v1};
use prost::Message;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::authenticate::{Identity, Role};
use super::calls::{Calls, LimitReached, Permit};
use super::codec::Sized;
use super::fleet::{Origin, SessionId};
use super::listen::Peer;
use super::metrics::Meter;
use super::tables::Opening;
use reader::Reader;
use writer::Writer;

/// Encoded messages to the node.
pub(super) type Outbound = ReceiverStream<Result<Bytes, Status>>;

/// Deadline of the first message after a node opened a stream.
const HELLO: Duration = Duration::from_secs(10);
/// A connection that did not accept its Goodbye within this time is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The node ended it.
    Left,
    /// The node did not accept pending messages in time.
    Slow,
    /// The node acknowledged a version that was never sent to it.
    AckOfTheFuture,
    /// The node keeps sending increments although it was asked for absolute counters.
    CountersGap,
    /// A message was invalid or too long.
    Malformed,
    /// The token must be presented again.
    Reauthenticate,
    /// This replica stops.
    Stopping,
    /// The caches are not complete yet.
    Starting,
    /// New streams are opened too fast.
    Busy,
    /// The node already has the maximum number of streams.
    TooMany,
}

impl End {
    fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Slow => "slow",
            Self::AckOfTheFuture => "ack_of_the_future",
            Self::CountersGap => "counters_gap",
            Self::Malformed => "malformed",
            Self::Reauthenticate => "reauthenticate",
            Self::Stopping => "stopping",
            Self::Starting => "starting",
            Self::Busy => "busy",
            Self::TooMany => "too_many_streams",
        }
    }

    /// Delay before the node should reconnect, in ms; 0 means at once.
    fn retry_after(self) -> u64 {
        match self {
            Self::Left | Self::Reauthenticate | Self::Stopping | Self::CountersGap => 0,
            Self::Starting => 1_000,
            // Spread the delays, because nodes that were sent away together should not return together.
            Self::Busy => 1_000 + fastrand::u64(..4_000),
            Self::Slow | Self::AckOfTheFuture | Self::Malformed | Self::TooMany => 5_000,
        }
    }

    fn goodbye(self) -> Bytes {
        encode(v1::operator_message::Kind::Goodbye(v1::Goodbye {
            reason: self.label().to_owned(),
            retry_after: self.retry_after(),
        }))
    }
}

pub(super) fn encode(kind: v1::operator_message::Kind) -> Bytes {
    let message = v1::OperatorMessage { kind: Some(kind) };
    message.encode_to_vec().into()
}

/// State that reader and writer share.
struct Progress {
    /// Highest table version that was sent to the node, or that it claimed to have.
    sent: AtomicU64,
    counters_wanted: Notify,
}

/// Opens a stream: answers with it, with a stream that only contains a Goodbye, or with a status.
pub(super) async fn open(
    calls: Arc<Calls>,
    mut request: Request<Streaming<Sized>>,
) -> Result<Response<Outbound>, Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    let caller = calls.authenticator.caller(request.metadata(), Role::Node);
    let caller = caller.await?;
    if !calls.openings.take(&caller.node, Instant::now()) {
        return Ok(turned_away(&calls, End::Busy));
    }
    let hello = first_message(request.get_mut()).await?;
    check_hello(&calls, &caller, &hello)?;
    let held = match calls.streams.take(&caller.node) {
        Ok(held) => held,
        Err(LimitReached::Each) => return Ok(turned_away(&calls, End::TooMany)),
        Err(LimitReached::All) => return Ok(turned_away(&calls, End::Busy)),
    };
    let remote = hello.capabilities.iter().any(|one| one == FORWARD);
    // A table of a process that could not forward has no functions of other nodes.
    let have = if remote && !hello.have_remote {
        0
    } else {
        hello.have
    };
    let Some(opening) = calls.tables.open(&caller.node, have, remote) else {
        return Ok(turned_away(&calls, End::Starting));
    };
    let Some(session) = calls.fleet.connect(Origin::Direct, hello.clone()) else {
        calls.tables.close(opening.id);
        return Ok(turned_away(&calls, End::Busy));
    };
    tracing::info!(node = %caller.node, have = hello.have, snapshot = opening.snapshot.is_some(), "node connected");
    let (sender, receiver) = mpsc::channel(1);
    let span = tracing::debug_span!("node_stream", node = %caller.node, session = session.number);
    let registered = Registered {
        stream: opening.id,
        session,
        calls,
        _held: held,
    };
    let node = Node {
        caller,
        have: hello.have,
        remote,
        peer,
        registered,
    };
    let stream = node.serve(opening, request.into_inner(), sender);
    tokio::spawn(stream.instrument(span));
    Ok(Response::new(ReceiverStream::new(receiver)))
}

fn turned_away(calls: &Calls, end: End) -> Response<Outbound> {
    Meter::count(&calls.meter.closed, end.label());
    let (sender, receiver) = mpsc::channel(1);
    let _ = sender.try_send(Ok(end.goodbye()));
    Response::new(ReceiverStream::new(receiver))
}

async fn first_message(inbound: &mut Streaming<Sized>) -> Result<v1::Hello, Status> {
    let first = tokio::time::timeout(HELLO, inbound.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no Hello within 10 s"))?;
    match first?.and_then(|sized| sized.message.kind) {
        Some(Kind::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message must be Hello")),
    }
}

fn check_hello(calls: &Calls, caller: &Identity, hello: &v1::Hello) -> Result<(), Status> {
    if hello.node != caller.node {
        Meter::count(&calls.meter.closed, "wrong_node");
        tracing::warn!(claimed = %hello.node.escape_debug(), token = %caller.node, "a node uses the name of another node");
        return Err(Status::permission_denied(
            "the token is bound to another node",
        ));
    }
    if !hello
        .protocol_versions
        .contains(&node_api::PROTOCOL_VERSION)
    {
        Meter::count(&calls.meter.closed, "protocol");
        let ours = node_api::PROTOCOL_VERSION;
        return Err(Status::failed_precondition(format!(
            "this operator speaks version {ours}"
        )));
    }
    let lists = hello.addresses.len() <= 32 && hello.capabilities.len() <= 128;
    let texts = hello.addresses.iter().chain(&hello.capabilities);
    let short = texts
        .chain([&hello.shim_version, &hello.wasmtime_version])
        .all(|text| text.len() <= 256);
    if !lists || !short {
        Meter::count(&calls.meter.closed, End::Malformed.label());
        return Err(Status::invalid_argument("Hello is too long"));
    }
    Ok(())
}

/// Undoes everything that must be undone when the stream ends, however it ends.
struct Registered {
    calls: Arc<Calls>,
    stream: u64,
    session: SessionId,
    _held: Permit,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.calls.tables.close(self.stream);
        self.calls.fleet.gone(&self.session);
        self.calls.meter.streams.dec();
    }
}

struct Node {
    caller: Identity,
    have: u64,
    /// Whether the node receives functions of other nodes.
    remote: bool,
    peer: Option<Peer>,
    registered: Registered,
}

impl Node {
    async fn serve(
        self,
        opening: Opening,
        inbound: Streaming<Sized>,
        sender: mpsc::Sender<Result<Bytes, Status>>,
    ) {
        let calls = &self.registered.calls;
        calls.meter.streams.inc();
        let resumed = opening.snapshot.is_none();
        let progress = Progress {
            sent: AtomicU64::new(self.have),
            counters_wanted: Notify::new(),
        };
        let mut reader = Reader::new(
            calls,
            &self.registered.session,
            &progress,
            resumed.then_some(&*opening.queue),
        );
        let mut writer = Writer {
            calls,
            node: &self.caller.node,
            queue: &opening.queue,
            sender: &sender,
            progress: &progress,
            version: if resumed { self.have } else { 0 },
            remote: self.remote,
        };
        let end = tokio::select! {
            end = reader.run(inbound) => end,
            end = writer.run(opening.snapshot) => end,
            () = sender.closed() => End::Left,
            () = tokio::time::sleep_until(self.caller.until) => End::Reauthenticate,
            () = calls.stop.cancelled() => End::Stopping,
        };
        tracing::info!(node = %self.caller.node, reason = end.label(), "node stream ended");
        Meter::count(&calls.meter.closed, end.label());
        let peer = self.peer;
        // Release this first: the next stream of this node must not count this one.
        drop(self.registered);
        if end != End::Left {
            let farewell = sender.send(Ok(end.goodbye()));
            let taken = tokio::time::timeout(FAREWELL, farewell).await;
            // Otherwise, data in the buffers of the connection would keep its memory for long.
            if (taken.is_err() || end == End::Slow)
                && let Some(peer) = peer
            {
                peer.cut.cancel();
            }
        }
    }
}

impl Progress {
    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
