//! The request of a client that another node serves.

use std::sync::Arc;

use http::Version;
use http::request::Parts;
use hyper::ext::ReasonPhrase;
use node_shim_core::headers;

use super::super::response::{
    HttpResponse, ResponseFraming, content_length, error_response, reset_stalled_stream,
};
use super::{Answer, Delivery, Failed, Forwarding};
use crate::body::{InboundBody, ResponseBody, UnreadBody};
use crate::connection::{Connection, RequestGuard, StreamReset};
use crate::forward::{ForwardOutcome, SharedBody};
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
        mut answer: Answer,
        upload: &Arc<SharedBody>,
        guard: RequestGuard,
        framing: &ResponseFraming,
    ) -> HttpResponse {
        let head = answer.response.headers_mut();
        let trailers = framing.allows_trailers(content_length(head));
        let named = trailers && framing.version == Version::HTTP_11;
        headers::rewrite_forwarded_response(head, named);
        *answer.response.version_mut() = Version::HTTP_11;
        let unnamed = answer.response.status().canonical_reason().is_none();
        if unnamed && framing.version < Version::HTTP_2 {
            // hyper would send `<none>`
            let extensions = answer.response.extensions_mut();
            extensions.insert(ReasonPhrase::from_static(b""));
        }
        let delivery = Delivery {
            guard: Some(guard),
            trailers,
            reset: (framing.version == Version::HTTP_10).then(|| conn.reset.clone()),
        };
        let response = self.deliver(answer, upload, delivery);
        if let (ResponseBody::Forwarded(body), Some(stream)) =
            (response.body(), StreamReset::current())
        {
            self.plane.guests.spawn(reset_stalled_stream(
                body.progress(),
                stream,
                self.plane.options.connections.write_stall,
            ));
        }
        response
    }
}
