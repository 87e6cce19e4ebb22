//! Passes a request on to a node on which the function is placed: that of a client (`client`), or the call of a function
//! (`call`).
//!
//! The request is sent to another node only if nothing has served it: the connection could not be made, or the node
//! answered that it does not have the function. A request that was passed on once is never passed on again.

mod call;
mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::forward_header::{Forwarded, ForwardedCall, ForwardedFrom};
use node_shim_core::headers;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Sender;
use super::admission::validated;
use super::origin::signed_host;
use super::response::HttpResponse;
use crate::body::ResponseBody;
use crate::connection::RequestGuard;
use crate::data_plane::DataPlaneState;
use crate::forward::{
    ForwardOutcome, ForwardParts, ForwardedResponse, NoConnection, RequestReader, SharedBody,
    StreamPlace,
};
use crate::routing_table::RemoteNodes;
use crate::shim_response::{ERROR, Unserved};

/// Maximum number of nodes that a request is sent to. While a function moves, most of its nodes may not have it yet, or no
/// longer, and answer so at once.
const MAX_NODES: usize = 16;
/// Maximum number of nodes that cannot be reached. Each may take the whole time to connect.
const MAX_UNREACHED: usize = 4;
/// Maximum number of connections to a node that close before a request is sent.
const MAX_CLOSED: usize = 2;

/// A request to pass on.
pub(super) struct Forwarding<'a> {
    pub(super) plane: &'a Arc<DataPlaneState>,
    pub(super) sender: &'a Sender<'a>,
    pub(super) nodes: Arc<RemoteNodes>,
}

/// Result of sending a request to one node.
enum Sent {
    Answered(Response<Incoming>, StreamPlace),
    /// The node answered that it does not have the function.
    NotHere(Response<Incoming>, StreamPlace),
    /// There is no connection to the node.
    Unreached(NoConnection),
    Failed(Failed),
}

/// Why the sender receives no response of another node.
enum Failed {
    Unserved(Unserved, ForwardOutcome),
    /// The sender has left, or its request is faulty.
    Client(FailureReason),
}

/// The response of another node, and what it holds until it has ended.
struct Answer {
    response: Response<Incoming>,
    stream: StreamPlace,
    place: OwnedSemaphorePermit,
}

/// How the body of a response reaches the sender.
struct Delivery {
    /// Request of a connection. `None` for a call.
    guard: Option<RequestGuard>,
    /// Whether trailers can be sent to the sender.
    trailers: bool,
    /// Flag that resets the connection, for a body that ends with it.
    reset: Option<Arc<AtomicBool>>,
}

/// Ends the request at the other node if the sender leaves before its response begins.
struct GiveUp(Option<Arc<SharedBody>>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        if let Some(upload) = &self.0 {
            upload.give_up();
        }
    }
}

impl Forwarding<'_> {
    /// Sends the request to a node of the function, and waits for the head of the response.
    async fn answer(&self, parts: Parts, upload: &Arc<SharedBody>) -> Result<Answer, Failed> {
        let Some(place) = self.plane.forwarder.place() else {
            let (reason, outcome) = (Unserved::Overloaded, ForwardOutcome::Overloaded);
            return Err(Failed::Unserved(reason, outcome));
        };
        let mut gone = GiveUp(Some(upload.clone()));
        let exchanged = self.exchange(parts, upload).await;
        gone.0 = None;
        let (response, stream) = exchanged?;
        Ok(Answer {
            response,
            stream,
            place,
        })
    }

    /// Returns the response of the other node, whose head is that for the sender already.
    fn deliver(&self, answer: Answer, upload: &Arc<SharedBody>, to: Delivery) -> HttpResponse {
        let (head, body) = answer.response.into_parts();
        let counters = self.plane.node_counters.clone();
        if body.is_end_stream() {
            counters.forwarded(ForwardOutcome::Answered);
            let body = ResponseBody::Buffered {
                bytes: None,
                trailers: None,
                observer: None,
                _guard: to.guard,
            };
            return Response::from_parts(head, body);
        }
        let parts = ForwardParts {
            upload: upload.clone(),
            _stream: answer.stream,
            _place: answer.place,
            counters,
            _guard: to.guard,
        };
        let body = ForwardedResponse::new(body, parts, to.trailers, to.reset);
        Response::from_parts(head, ResponseBody::Forwarded(Box::new(body)))
    }

    /// Sends the request to one node after another, until one serves it.
    async fn exchange(
        &self,
        parts: Parts,
        upload: &Arc<SharedBody>,
    ) -> Result<(Response<Incoming>, StreamPlace), Failed> {
        let head = Head::new(parts, self.sender)?;
        let nodes = self.order();
        let (mut full, mut unreached) = (false, 0);
        for (at, node) in nodes.iter().enumerate() {
            let last = at + 1 == nodes.len();
            match self.send(*node, &head, upload, last).await {
                Sent::Answered(response, stream) => {
                    upload.keep_nothing();
                    return Ok((response, stream));
                }
                Sent::NotHere(response, stream) if last || !upload.is_known() => {
                    return Ok((response, stream));
                }
                Sent::NotHere(..) => {}
                Sent::Unreached(why) => {
                    full |= why == NoConnection::Full;
                    unreached += 1;
                    if unreached == MAX_UNREACHED {
                        break;
                    }
                }
                Sent::Failed(failed) => return Err(failed),
            }
        }
        Err(if full {
            Failed::Unserved(Unserved::Overloaded, ForwardOutcome::Overloaded)
        } else {
            Failed::Unserved(Unserved::Unreachable, ForwardOutcome::Unreachable)
        })
    }

    /// Returns the nodes in the order in which they are tried: an even choice, and those that could not be reached a moment
    /// ago last.
    fn order(&self) -> Vec<SocketAddr> {
        let all = &self.nodes.addresses;
        if all.is_empty() {
            return Vec::new();
        }
        let first = fastrand::usize(..all.len());
        let from_first = all.iter().cycle().skip(first).take(all.len()).copied();
        let pool = &self.plane.forwarder.pool;
        let (suspect, mut nodes): (Vec<_>, Vec<_>) =
            from_first.partition(|node| pool.is_suspect(*node));
        nodes.extend(suspect);
        nodes.truncate(MAX_NODES);
        nodes
    }

    async fn send(
        &self,
        node: SocketAddr,
        head: &Head,
        upload: &Arc<SharedBody>,
        last: bool,
    ) -> Sent {
        let forwarder = &self.plane.forwarder;
        for _ in 0..=MAX_CLOSED {
            let stream = match forwarder.pool.connection(node).await {
                Ok(stream) => stream,
                Err(why) => return Sent::Unreached(why),
            };
            let Some(reader) = upload.reader() else {
                break;
            };
            let request = self.request(head, reader, last);
            let mut error = match stream.sender().try_send_request(request).await {
                Ok(response) if is_not_here(&response) => return Sent::NotHere(response, stream),
                Ok(response) => return Sent::Answered(response, stream),
                Err(error) => error,
            };
            if let Some(reason) = upload.fault() {
                return Sent::Failed(Failed::Client(reason));
            }
            // the connection was closed at that moment, and the node has seen nothing of the request
            if error.take_message().is_none() && !is_refused(&error) {
                tracing::debug!(%node, error = %error.error(), "a forwarded request failed");
                break;
            }
        }
        Sent::Failed(Failed::Unserved(
            Unserved::ForwardFailed,
            ForwardOutcome::Failed,
        ))
    }

    fn request(&self, head: &Head, body: RequestReader, last: bool) -> Request<RequestReader> {
        let mut request = Request::new(body);
        *request.method_mut() = head.parts.method.clone();
        *request.uri_mut() = head.uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&head.parts.headers);
        let forwarded = Forwarded {
            from: sent_by(self.sender),
            last,
        };
        let signed = self
            .plane
            .egress
            .hop_key
            .signs(forwarded, &head.signed_host);
        signed.write(headers);
        request
    }
}

/// Head of a request as other nodes receive it.
struct Head {
    parts: Parts,
    uri: Uri,
    signed_host: String,
}

impl Head {
    fn new(mut parts: Parts, sender: &Sender<'_>) -> Result<Self, Failed> {
        let invalid = || Failed::Client(FailureReason::BadFraming);
        // it was validated before, so neither fails
        let passed = validated(&parts).map_err(|_| invalid())?;
        let path = parts.uri.path_and_query();
        let uri = Uri::builder()
            .scheme("http")
            .authority(passed.authority.as_str())
            .path_and_query(path.map_or("/", |path| path.as_str()))
            .build()
            .map_err(|_| invalid())?;
        match sender {
            Sender::Client(..) => headers::rewrite_forwarded(&mut parts.headers),
            Sender::Function(call) => {
                let (headers, id) = (&mut parts.headers, &call.request_id);
                headers::rewrite_call(headers, &passed.authority, id);
            }
        }
        Ok(Self {
            signed_host: signed_host(&passed.authority),
            parts,
            uri,
        })
    }
}

/// Returns what the other node has to know about the sender of a request.
fn sent_by(sender: &Sender<'_>) -> ForwardedFrom {
    match sender {
        Sender::Client(_, origin) => ForwardedFrom::Client {
            peer: origin.peer,
            https: origin.https,
        },
        Sender::Function(call) => ForwardedFrom::Function(ForwardedCall {
            caller: call.caller.clone(),
            hops: call.hops,
            left: whole_millis(call.deadline.saturating_duration_since(Instant::now())),
            traced: call.traced.as_ref().and_then(|traced| traced.ids()),
        }),
    }
}

/// Rounds up, so that a caller ends before what it has called.
fn whole_millis(time: Duration) -> Duration {
    let millis = time.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Whether the other node has not served the request, because it does not have the function.
fn is_not_here(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SERVICE_UNAVAILABLE && has_error(response, Unserved::NotHere)
}

/// Whether the other node has answered with this error. Functions cannot set the field.
fn has_error(response: &Response<Incoming>, reason: Unserved) -> bool {
    let error = response.headers().get(ERROR);
    error.is_some_and(|error| error == reason.error())
}

/// Whether the other node has refused the stream before it has processed the request.
fn is_refused(error: &TrySendError<Request<RequestReader>>) -> bool {
    let mut source = std::error::Error::source(error.error());
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        source = error.source();
    }
    false
}
