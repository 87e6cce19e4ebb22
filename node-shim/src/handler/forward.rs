//! Passes the request of a client on to a node on which the function is placed.
//!
//! The request is sent to another node only if nothing has served it: the connection could not be made, or the node answered that it
//! does not have the function. A request that was passed on once is never passed on again.

use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::ext::ReasonPhrase;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::forward_header::Forwarded;
use node_shim_core::headers;

use super::admission::validated;
use super::origin::{Origin, signed_host};
use super::response::{
    HttpResponse, ResponseFraming, content_length, error_response, reset_stalled_stream,
};
use crate::body::{BodySource, ResponseBody, UnreadBody};
use crate::connection::{Connection, RequestGuard, StreamReset};
use crate::data_plane::DataPlaneState;
use crate::forward::{
    ForwardOutcome, ForwardParts, ForwardedResponse, NoConnection, RequestReader, SharedBody,
    StreamPlace,
};
use crate::routing_table::RemoteNodes;
use crate::shim_response::{self, ERROR, Unserved};

/// Maximum number of nodes that a request is sent to.
const MAX_NODES: usize = 4;
/// Maximum number of connections to a node that close before a request is sent.
const MAX_CLOSED: usize = 2;

/// A request to pass on.
pub(super) struct Forwarding<'a> {
    pub(super) plane: &'a Arc<DataPlaneState>,
    pub(super) conn: &'a Arc<Connection>,
    pub(super) origin: Origin,
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

/// Why the client receives no response of another node.
pub(super) enum Failed {
    Unserved(Unserved, ForwardOutcome),
    /// The client has left, or its request is faulty.
    Client(FailureReason),
}

/// Ends the request at the other node if the client leaves before its response begins.
struct GiveUp(Option<Arc<SharedBody>>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        if let Some(upload) = &self.0 {
            upload.give_up();
        }
    }
}

impl Forwarding<'_> {
    /// Sends the request to a node of the function, and starts the response.
    pub(super) async fn run(
        self,
        parts: Parts,
        body: Incoming,
        source: BodySource,
        guard: RequestGuard,
    ) -> HttpResponse {
        let counters = &self.plane.node_counters;
        let framing = ResponseFraming::of(&parts);
        let upload = SharedBody::new(body, source, self.plane.forwarder.replayed.clone());
        let exchanged = match self.plane.forwarder.place() {
            Some(place) => {
                let mut gone = GiveUp(Some(upload.clone()));
                let exchanged = self.exchange(parts, &upload).await;
                gone.0 = None;
                exchanged.map(|exchanged| (exchanged, place))
            }
            None => Err(Failed::Unserved(
                Unserved::Overloaded,
                ForwardOutcome::Overloaded,
            )),
        };
        let mut answer = match exchanged {
            Ok(((response, stream), place)) => {
                let parts = ForwardParts {
                    upload: upload.clone(),
                    _stream: stream,
                    _place: place,
                    counters: counters.clone(),
                    guard,
                };
                self.respond(response, parts, &framing)
            }
            Err(Failed::Unserved(reason, outcome)) => {
                counters.forwarded(outcome);
                shim_response::unserved(reason, Some(guard))
            }
            Err(Failed::Client(reason)) => {
                counters.forwarded(ForwardOutcome::Client);
                error_response(reason, None, Some(guard))
            }
        };
        if upload.unread() == UnreadBody::Closes {
            shim_response::close(&mut answer);
        }
        answer
    }

    /// Sends the request to one node after another, until one serves it.
    async fn exchange(
        &self,
        parts: Parts,
        upload: &Arc<SharedBody>,
    ) -> Result<(Response<Incoming>, StreamPlace), Failed> {
        let head = Head::new(parts)?;
        let nodes = self.order();
        let mut full = false;
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
                Sent::Unreached(why) => full |= why == NoConnection::Full,
                Sent::Failed(failed) => return Err(failed),
            }
        }
        Err(if full {
            Failed::Unserved(Unserved::Overloaded, ForwardOutcome::Overloaded)
        } else {
            Failed::Unserved(Unserved::Unreachable, ForwardOutcome::Unreachable)
        })
    }

    /// Returns the nodes in the order in which they are tried: an even choice, and those that could not be reached a moment ago
    /// last.
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
            peer: self.origin.peer,
            https: self.origin.https,
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

    /// Builds the response to the client from that of the other node.
    fn respond(
        &self,
        response: Response<Incoming>,
        parts: ForwardParts,
        framing: &ResponseFraming,
    ) -> HttpResponse {
        let (mut head, body) = response.into_parts();
        let trailers = framing.allows_trailers(content_length(&head.headers));
        let named = trailers && framing.version == Version::HTTP_11;
        headers::rewrite_forwarded_response(&mut head.headers, named);
        head.version = Version::HTTP_11;
        if head.status.canonical_reason().is_none() && framing.version < Version::HTTP_2 {
            // hyper would send `<none>`
            head.extensions.insert(ReasonPhrase::from_static(b""));
        }
        if body.is_end_stream() {
            parts.counters.forwarded(ForwardOutcome::Answered);
            let body = ResponseBody::Buffered {
                bytes: None,
                trailers: None,
                observer: None,
                _guard: Some(parts.guard),
            };
            return Response::from_parts(head, body);
        }
        let reset = (framing.version == Version::HTTP_10).then(|| self.conn.reset.clone());
        let body = ForwardedResponse::new(body, parts, trailers, reset);
        if let Some(stream) = StreamReset::current() {
            self.plane.guests.spawn(reset_stalled_stream(
                body.progress(),
                stream,
                self.plane.options.connections.write_stall,
            ));
        }
        Response::from_parts(head, ResponseBody::Forwarded(Box::new(body)))
    }
}

/// Head of a request as other nodes receive it.
struct Head {
    parts: Parts,
    uri: Uri,
    signed_host: String,
}

impl Head {
    fn new(mut parts: Parts) -> Result<Self, Failed> {
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
        headers::rewrite_forwarded(&mut parts.headers);
        Ok(Self {
            signed_host: signed_host(&passed.authority),
            parts,
            uri,
        })
    }
}

/// Whether the other node has not served the request, because it does not have the function. Functions cannot set the field.
fn is_not_here(response: &Response<Incoming>) -> bool {
    let error = response.headers().get(ERROR);
    response.status() == StatusCode::SERVICE_UNAVAILABLE
        && error.is_some_and(|error| error == Unserved::NotHere.error())
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
