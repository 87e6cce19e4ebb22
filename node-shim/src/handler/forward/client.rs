//! The request of a client that another node serves.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;
use node_shim_core::headers;

use super::super::response::{
    HttpResponse, ResponseFraming, content_length, error_response, reset_stalled_stream,
};
use super::{Answer, Failed, Forwarding};
use crate::body::{InboundBody, ResponseBody, UnreadBody};
use crate::connection::{Connection, RequestGuard, StreamReset};
use crate::forward::{ForwardOutcome, ForwardParts, ForwardedResponse, SharedBody};
use crate::shim_response;

impl Forwarding<'_> {
    /// Sends the request to a node of the function, and starts the response to the client of `conn`.
    pub(in super::super) async fn run(
        self,
        conn: &Connection,
        parts: Parts,
        body: InboundBody,
        guard: RequestGuard,
    ) -> HttpResponse {
        let counters = &self.plane.node_counters;
        let framing = ResponseFraming::of(&parts);
        let upload = SharedBody::new(body, self.plane.forwarder.replayed.clone());
        let mut answer = match self.answer(parts, &upload).await {
            Ok(answer) => self.respond(conn, answer, &upload, guard, &framing),
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

    /// Builds the response to the client from that of the other node.
    fn respond(
        &self,
        conn: &Connection,
        answer: Answer,
        upload: &Arc<SharedBody>,
        guard: RequestGuard,
        framing: &ResponseFraming,
    ) -> HttpResponse {
        let (mut head, body) = answer.response.into_parts();
        let trailers = framing.allows_trailers(content_length(&head.headers));
        let named = trailers && framing.version == Version::HTTP_11;
        headers::rewrite_forwarded_response(&mut head.headers, named);
        head.version = Version::HTTP_11;
        if head.status.canonical_reason().is_none() && framing.version < Version::HTTP_2 {
            // hyper would send `<none>`
            head.extensions.insert(ReasonPhrase::from_static(b""));
        }
        let counters = self.plane.node_counters.clone();
        if body.is_end_stream() {
            counters.forwarded(ForwardOutcome::Answered);
            let body = ResponseBody::Buffered {
                bytes: None,
                trailers: None,
                observer: None,
                _guard: Some(guard),
            };
            return Response::from_parts(head, body);
        }
        let parts = ForwardParts {
            upload: upload.clone(),
            _stream: answer.stream,
            _place: answer.place,
            counters,
            _guard: Some(guard),
        };
        let reset = (framing.version == Version::HTTP_10).then(|| conn.reset.clone());
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
