//! Span of a request that the node serves, and of the guest that answers it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::table::FunctionKey;
use node_shim_core::trace::TraceContext;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::OpenSpan;
use super::attributes::{self, Described};
use super::outbound_span::SpanParent;
use crate::revision::Revision;

/// Span of a request.
pub(crate) struct RequestSpan(OpenSpan);

/// What a request was.
pub(crate) struct SpannedRequest<'a> {
    pub(crate) method: &'a Method,
    /// Host as it was sent, with the port.
    pub(crate) host: &'a str,
    /// Path without the query.
    pub(crate) path: &'a str,
    pub(crate) protocol: &'static str,
    pub(crate) https: bool,
    /// Address of the client; `None` for the call of a function.
    pub(crate) client: Option<IpAddr>,
    pub(crate) request_id: Option<&'a str>,
}

/// How a request has ended.
pub(crate) struct SpanEnd<'a> {
    pub(crate) at: Instant,
    /// Function and name of its revision; `None` when no revision was found.
    pub(crate) function: Option<(&'a FunctionKey, &'a str)>,
    pub(crate) cold: bool,
    pub(crate) status: Option<u16>,
    pub(crate) outcome: &'static str,
    pub(crate) reason: Option<&'a str>,
    pub(crate) client_fault: bool,
}

impl RequestSpan {
    pub(super) const fn new(open: OpenSpan) -> Self {
        Self(open)
    }

    /// Returns the id of the trace.
    pub(crate) const fn trace_id(&self) -> u128 {
        self.0.trace
    }

    /// Returns the span of the guest, which begins at `began`.
    pub(crate) fn guest(&self, revision: &Arc<Revision>, cold: bool, began: Instant) -> GuestSpan {
        GuestSpan {
            parent: SpanParent::new(self.0.child(began)),
            revision: Arc::clone(revision),
            cold,
        }
    }

    /// Ends the span.
    pub(crate) fn end(&self, request: &SpannedRequest<'_>, end: &SpanEnd<'_>) {
        let mut attributes = Vec::with_capacity(16);
        let method = attributes::method(&mut attributes, request.method);
        let scheme = if request.https { "https" } else { "http" };
        attributes.extend([
            KeyValue::new("url.scheme", scheme),
            KeyValue::new("url.path", request.path.to_owned()),
            KeyValue::new("network.protocol.version", request.protocol),
            KeyValue::new("selvage.outcome", end.outcome),
        ]);
        attributes::server(&mut attributes, request.host);
        if let Some(client) = request.client {
            attributes.push(KeyValue::new("client.address", client.to_string()));
        }
        if let Some(id) = request.request_id {
            attributes.push(KeyValue::new("selvage.request.id", id.to_owned()));
        }
        let name = match end.function {
            Some((function, revision)) => {
                attributes::function(&mut attributes, function, revision);
                attributes.push(KeyValue::new("faas.coldstart", end.cold));
                format!("{method} {function}").into()
            }
            None => method,
        };
        let status = attributes::server_end(&mut attributes, end);
        let described = Described {
            kind: SpanKind::Server,
            name,
            attributes,
            status,
        };
        self.0.end(end.at, described);
    }
}

/// Span of the guest that answers a request.
pub(crate) struct GuestSpan {
    parent: SpanParent,
    revision: Arc<Revision>,
    cold: bool,
}

impl GuestSpan {
    /// Returns the trace that the guest receives.
    pub(crate) fn context(&self) -> TraceContext {
        self.parent.open().context()
    }

    /// Returns the parent of the spans of outbound requests.
    pub(crate) fn parent(&self) -> SpanParent {
        self.parent.clone()
    }

    /// Ends the span. `cpu` is the CPU time that the guest has used.
    pub(crate) fn end(&self, failure: Option<FailureReason>, cpu: Duration) {
        let mut attributes = Vec::with_capacity(6);
        let revision = &self.revision;
        attributes::function(
            &mut attributes,
            revision.function(),
            revision.name().as_str(),
        );
        attributes.extend([
            KeyValue::new("faas.coldstart", self.cold),
            KeyValue::new("selvage.guest.cpu_ms", cpu.as_micros() as f64 / 1e3),
        ]);
        let status = attributes::guest_end(&mut attributes, failure);
        let described = Described {
            kind: SpanKind::Internal,
            name: "guest".into(),
            attributes,
            status,
        };
        self.parent.open().end(Instant::now(), described);
    }
}
