//! Attributes of spans, by the semantic conventions of OpenTelemetry for HTTP.

use std::borrow::Cow;
use std::time::Instant;

use http::Method;
use http::uri::Authority;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::request_labels::Outcome;
use node_shim_core::table::FunctionKey;
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry_sdk::trace::SpanData;

use super::OpenSpan;
use super::request_span::SpanEnd;

/// Methods whose names may be values of `http.request.method`.
const KNOWN: [Method; 9] = [
    Method::CONNECT,
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
    Method::TRACE,
];

/// Attributes and end of a span.
pub(super) struct Described {
    pub(super) kind: SpanKind,
    pub(super) name: Cow<'static, str>,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) status: Status,
}

impl OpenSpan {
    /// Ends the span.
    pub(super) fn end(&self, ended: Instant, described: Described) {
        let state = self.state().and_then(|state| state.to_str().ok());
        let state: TraceState = state.and_then(|text| text.parse().ok()).unwrap_or_default();
        let context = SpanContext::new(
            self.trace_id(),
            self.span_id(),
            TraceFlags::SAMPLED,
            false,
            state,
        );
        let parent = self.parent.as_ref();
        let span = SpanData {
            span_context: context,
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| parent.span.into()),
            parent_span_is_remote: parent.is_some_and(|parent| parent.remote),
            span_kind: described.kind,
            name: described.name,
            start_time: self.clock.time(self.began),
            end_time: self.clock.time(ended),
            attributes: described.attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: described.status,
            instrumentation_scope: self.tracer.scope.clone(),
        };
        self.tracer.send(span);
    }
}

/// Returns the name of a method in the name of a span, and adds its attributes.
pub(super) fn method(attributes: &mut Vec<KeyValue>, method: &Method) -> Cow<'static, str> {
    let name = method.as_str().to_owned();
    if KNOWN.contains(method) {
        attributes.push(KeyValue::new("http.request.method", name.clone()));
        return name.into();
    }
    attributes.push(KeyValue::new("http.request.method", "_OTHER"));
    attributes.push(KeyValue::new("http.request.method_original", name));
    "HTTP".into()
}

/// Adds the host and the port of an authority.
pub(super) fn server(attributes: &mut Vec<KeyValue>, authority: &str) {
    let Ok(authority) = authority.parse::<Authority>() else {
        return;
    };
    attributes.push(KeyValue::new("server.address", authority.host().to_owned()));
    if let Some(port) = authority.port_u16() {
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
}

/// Adds the function and its revision.
pub(super) fn function(attributes: &mut Vec<KeyValue>, function: &FunctionKey, revision: &str) {
    attributes.extend([
        KeyValue::new("selvage.function.namespace", function.namespace.clone()),
        KeyValue::new("selvage.function.name", function.name.clone()),
        KeyValue::new("selvage.function.revision", revision.to_owned()),
    ]);
}

/// Adds the status of a response and why the request failed, and returns the status of the span. What the client caused is
/// no error of a server, as the conventions say.
pub(super) fn server_end(attributes: &mut Vec<KeyValue>, end: &SpanEnd<'_>) -> Status {
    response(attributes, end.status);
    let failed = end.status.filter(|status| *status >= 500);
    let error = match (end.reason, failed) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(status)) => status.to_string(),
        (None, None) => return Status::Unset,
    };
    attributes.push(KeyValue::new("error.type", error));
    if end.client_fault {
        Status::Unset
    } else {
        Status::error(end.reason.unwrap_or_default().to_owned())
    }
}

/// Returns the status of the span of a guest.
pub(super) fn guest_end(attributes: &mut Vec<KeyValue>, failure: Option<FailureReason>) -> Status {
    let Some(reason) = failure else {
        return Status::Unset;
    };
    attributes.push(KeyValue::new("error.type", reason.label()));
    if reason.outcome() == Outcome::ClientFault {
        Status::Unset
    } else {
        Status::error(reason.label())
    }
}

/// Adds the end of an outbound request: the status of the response, or why there is none.
pub(super) fn client_end(
    attributes: &mut Vec<KeyValue>,
    status: Option<u16>,
    failure: Option<&'static str>,
) -> Status {
    response(attributes, status);
    let client_error = status.filter(|status| *status >= 400);
    if let Some(reason) = failure {
        attributes.push(KeyValue::new("error.type", reason));
        Status::error(reason)
    } else if let Some(status) = client_error {
        attributes.push(KeyValue::new("error.type", status.to_string()));
        Status::error("")
    } else {
        Status::Unset
    }
}

fn response(attributes: &mut Vec<KeyValue>, status: Option<u16>) {
    if let Some(status) = status {
        let name = "http.response.status_code";
        attributes.push(KeyValue::new(name, i64::from(status)));
    }
}
