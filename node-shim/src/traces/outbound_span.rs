//! Spans of the outbound requests and calls of a guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use http::Method;
use node_shim_core::egress::OutboundTarget;
use node_shim_core::trace::TraceContext;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::attributes::{self, Described};
use super::{DropReason, OpenSpan};
use crate::revision::Revision;

/// Maximum number of spans of outbound requests of one request. A guest may send any number of requests, and the queue is
/// shared.
const MAX_OUTBOUND: u32 = 128;

/// Span of a guest, below which its outbound requests have theirs. Clones are cheap.
#[derive(Clone)]
pub(crate) struct SpanParent(Arc<GuestContext>);

struct GuestContext {
    open: OpenSpan,
    outbound: AtomicU32,
}

impl SpanParent {
    pub(super) fn new(open: OpenSpan) -> Self {
        Self(Arc::new(GuestContext {
            open,
            outbound: AtomicU32::new(0),
        }))
    }

    pub(super) fn open(&self) -> &OpenSpan {
        &self.0.open
    }

    /// Returns the span of an outbound request that begins now; `None` when the request of the guest has too many.
    pub(crate) fn outbound(
        &self,
        method: &Method,
        target: &OutboundTarget,
    ) -> Option<OutboundSpan> {
        let tracer = &self.0.open.tracer;
        let add = |count: u32| (count < MAX_OUTBOUND).then_some(count + 1);
        let counter = &self.0.outbound;
        if counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_err()
        {
            tracer.counters.dropped(DropReason::Limit, 1);
            return None;
        }
        Some(OutboundSpan {
            open: self.0.open.child(Instant::now()),
            method: method.clone(),
            // without the query, which may contain secrets
            url: format!("{target}{}", target.path.path()),
            host: target.host.to_string(),
            port: target.port,
        })
    }
}

/// Span of an outbound request or a call, from its admission to the head of the response.
pub(crate) struct OutboundSpan {
    open: OpenSpan,
    method: Method,
    url: String,
    host: String,
    port: u16,
}

impl OutboundSpan {
    /// Returns the trace that the request passes on.
    pub(crate) fn context(&self) -> TraceContext {
        self.open.context()
    }

    /// Ends the span with the status of the response, or with why there is none.
    pub(crate) fn end(
        self,
        status: Option<u16>,
        failure: Option<&'static str>,
        revision: &Revision,
    ) {
        let Self {
            open,
            method,
            url,
            host,
            port,
        } = self;
        let mut attributes = Vec::with_capacity(9);
        let name = attributes::method(&mut attributes, &method);
        attributes.extend([
            KeyValue::new("url.full", url),
            KeyValue::new("server.address", host),
            KeyValue::new("server.port", i64::from(port)),
        ]);
        attributes::function(
            &mut attributes,
            revision.function(),
            revision.name().as_str(),
        );
        let status = attributes::client_end(&mut attributes, status, failure);
        let described = Described {
            kind: SpanKind::Client,
            name,
            attributes,
            status,
        };
        open.end(Instant::now(), described);
    }
}
