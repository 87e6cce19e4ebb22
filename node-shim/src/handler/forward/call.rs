//! The call of a function that another node serves.

use std::sync::Arc;

use http::request::Parts;
use node_shim_core::headers;

use super::super::response::HttpResponse;
use super::{Answer, Delivery, Failed, Forwarding, has_error, is_not_here};
use crate::body::InboundBody;
use crate::egress::CallRefusal;
use crate::forward::{ForwardOutcome, SharedBody};
use crate::shim_response::Unserved;

impl Forwarding<'_> {
    /// Sends the call to a node of the function, and starts the response to the caller.
    ///
    /// # Errors
    /// No function has received the call, or its response has not begun.
    pub(in super::super) async fn call(
        self,
        parts: Parts,
        body: InboundBody,
    ) -> Result<HttpResponse, CallRefusal> {
        let counters = &self.plane.node_counters;
        let upload = SharedBody::new(body, self.plane.forwarder.replayed.clone());
        match self.answer(parts, &upload).await {
            Ok(answer) => {
                let refusal = refusal(&answer);
                if refusal.is_some() {
                    counters.forwarded(ForwardOutcome::Answered);
                }
                refusal.map_or_else(|| Ok(self.respond_to_caller(answer, &upload)), Err)
            }
            Err(Failed::Unserved(reason, outcome)) => {
                counters.forwarded(outcome);
                Err(CallRefusal::Unserved(reason))
            }
            Err(Failed::Client(_)) => {
                counters.forwarded(ForwardOutcome::Client);
                Err(CallRefusal::Unserved(Unserved::ForwardFailed))
            }
        }
    }

    fn respond_to_caller(&self, mut answer: Answer, upload: &Arc<SharedBody>) -> HttpResponse {
        headers::rewrite_forwarded_response(answer.response.headers_mut(), true);
        let delivery = Delivery {
            guard: None,
            trailers: true,
            reset: None,
        };
        self.deliver(answer, upload, delivery)
    }
}

/// Returns why the other node has given the call to no function, if it has not.
fn refusal(answer: &Answer) -> Option<CallRefusal> {
    if is_not_here(&answer.response) {
        return Some(CallRefusal::Unserved(Unserved::NotHere));
    }
    has_error(&answer.response, Unserved::NotGranted).then_some(CallRefusal::NotGranted)
}
