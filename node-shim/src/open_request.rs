//! A request that has not ended yet, as far as it is reported on its own when it ends: by a line of the access log, by a span,
//! and by the record that `dev` shows. A node that reports none of these pays one branch for each request.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use node_shim_core::client_address::client_address;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::headers::Rewritten;
use node_shim_core::request_labels::{Outcome, Population, StartKind};
use node_shim_core::trace::TraceContext;

use crate::access_log::{AccessEntry, AccessLog, AccessLogOptions, protocol_name};
use crate::counters::RevisionCounters;
use crate::guest_log::{GuestLog, REQUEST_STREAM, RequestRecord};
use crate::revision::Revision;
use crate::traces::{GuestSpan, RequestSpan, SpanEnd, SpannedRequest, Tracer};

/// Outcome of a request that no revision served, in the access log and in spans.
const REJECTED: &str = "rejected";

/// What a node reports about single requests.
#[derive(Clone)]
pub(crate) struct RequestReports {
    /// The log of `dev`.
    records: Option<GuestLog>,
    access: Option<AccessLog>,
    tracer: Option<Arc<Tracer>>,
}

/// A client that sends a request.
#[derive(Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) peer: IpAddr,
    pub(crate) https: bool,
    /// Whether an address is that of a trusted proxy.
    pub(crate) trusts: &'a dyn Fn(IpAddr) -> bool,
}

/// A request that has not ended yet.
pub(crate) struct OpenRequest {
    reports: RequestReports,
    span: Option<RequestSpan>,
    method: Method,
    host: String,
    /// Path and query as the client sent them.
    target: String,
    version: Version,
    https: bool,
    /// Address of the client; `None` for the call of a function.
    client: Option<IpAddr>,
    began: Instant,
    /// Value of `x-request-id`, once it is known.
    request_id: Option<String>,
    /// Id of the trace, once it is known: 32 hexadecimal digits.
    trace_id: Option<String>,
    received: Arc<AtomicU64>,
    /// Size of the body that was sent, in bytes.
    sent: u64,
}

/// How a request to a revision has ended.
pub(crate) struct ServedRequest<'a> {
    pub(crate) counters: &'a RevisionCounters,
    pub(crate) at: Instant,
    pub(crate) status: Option<u16>,
    pub(crate) start: StartKind,
    pub(crate) population: Population,
    pub(crate) head: Option<Duration>,
    pub(crate) outcome: Outcome,
    pub(crate) reason: Option<FailureReason>,
}

impl RequestReports {
    /// Returns what is reported; `None` when that is nothing.
    pub(crate) fn new(
        log: &GuestLog,
        access: AccessLogOptions,
        tracer: Option<Arc<Tracer>>,
    ) -> Option<Self> {
        let reports = Self {
            records: log.has_requests().then(|| log.clone()),
            access: AccessLog::new(access, log),
            tracer,
        };
        let any = reports.records.is_some() || reports.access.is_some() || reports.tracer.is_some();
        any.then_some(reports)
    }

    /// Returns the request of a client, if it is reported.
    pub(crate) fn open(
        &self,
        sender: Sender<'_>,
        parts: &Parts,
        began: Instant,
    ) -> Option<Box<OpenRequest>> {
        let span = self.tracer.as_ref().and_then(|tracer| {
            let trusted = (sender.trusts)(sender.peer);
            let parent = trusted.then(|| TraceContext::received(&parts.headers));
            tracer.request_span(parent.flatten(), began)
        });
        if span.is_none() && self.records.is_none() && self.access.is_none() {
            return None;
        }
        let client = client_address(&parts.headers, sender.peer, sender.trusts);
        Some(Box::new(OpenRequest {
            client: Some(client),
            https: sender.https,
            ..OpenRequest::new(self.clone(), span, parts, began)
        }))
    }

    /// Returns the call of a function, if it is reported. `parent` is the span that its caller records, on another node if
    /// it is `remote`.
    pub(crate) fn open_call(
        &self,
        parent: Option<&TraceContext>,
        remote: bool,
        parts: &Parts,
        began: Instant,
    ) -> Option<Box<OpenRequest>> {
        let tracer = self.tracer.as_ref().zip(parent);
        let span = tracer.and_then(|(tracer, parent)| tracer.call_span(parent, remote, began));
        if span.is_none() && self.access.is_none() {
            return None;
        }
        let reports = Self {
            // `dev` shows the requests of clients only
            records: None,
            ..self.clone()
        };
        Some(Box::new(OpenRequest::new(reports, span, parts, began)))
    }
}

impl OpenRequest {
    fn new(
        reports: RequestReports,
        span: Option<RequestSpan>,
        parts: &Parts,
        began: Instant,
    ) -> Self {
        let authority = parts.uri.authority().map(http::uri::Authority::as_str);
        let host = || {
            parts
                .headers
                .get(HOST)
                .and_then(|value| value.to_str().ok())
        };
        let path = parts.uri.path_and_query();
        let trace_id = span.as_ref().map(RequestSpan::trace_id);
        Self {
            reports,
            span,
            request_id: None,
            trace_id: trace_id.map(|id| format!("{id:032x}")),
            method: parts.method.clone(),
            host: authority.or_else(host).unwrap_or_default().to_owned(),
            target: path.map_or("", |path| path.as_str()).to_owned(),
            version: parts.version,
            https: false,
            client: None,
            began,
            received: Arc::default(),
            sent: 0,
        }
    }

    /// Returns the id of the trace that the node has started or continues, if it records the request.
    pub(crate) fn trace_id(&self) -> Option<u128> {
        self.span.as_ref().map(RequestSpan::trace_id)
    }

    /// Returns the counter of the bytes of the body.
    pub(crate) fn received(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.received)
    }

    /// Counts bytes of the body that are sent now.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// Records that the body was discarded.
    pub(crate) fn sent_nothing(&mut self) {
        self.sent = 0;
    }

    /// Records that the guest starts. If the request is recorded, it returns the span of the guest, which becomes the
    /// parent of everything that the guest records and sends.
    pub(crate) fn start_guest(
        &mut self,
        rewritten: &mut Rewritten,
        headers: &mut HeaderMap,
        revision: &Arc<Revision>,
        start: StartKind,
    ) -> Option<GuestSpan> {
        self.https = rewritten.https;
        let span = self.span.as_ref();
        let guest = span.map(|span| span.guest(revision, start == StartKind::Cold, Instant::now()));
        if let Some(guest) = &guest {
            rewritten.trace = guest.context();
            rewritten.trace.replace(headers);
        }
        self.request_id = Some(rewritten.request_id.clone());
        self.trace_id = Some(rewritten.trace.trace_id().to_owned());
        guest
    }

    /// Keeps the request out of access log and traces, because a load balancer sends it all the time.
    pub(crate) fn exclude_probe(&mut self) {
        self.reports.access = None;
        self.span = None;
    }

    /// Reports a request that no function served.
    pub(crate) fn refused(self, status: u16, error: Option<&str>) {
        let end = Ended {
            at: Instant::now(),
            counters: None,
            status: Some(status),
            head: None,
            start: None,
            population: None,
            outcome: if error.is_some() {
                REJECTED
            } else {
                Outcome::Ok.label()
            },
            // as every rejection that is not a fault of the node
            client_fault: status < 500,
            reason: error,
        };
        self.report(&end);
    }

    /// Reports a request to a revision.
    pub(crate) fn served(self, end: &ServedRequest<'_>) {
        let end = Ended {
            at: end.at,
            counters: Some(end.counters),
            status: end.status,
            head: end.head,
            start: Some(end.start),
            population: Some(end.population),
            outcome: end.outcome.label(),
            client_fault: end.outcome == Outcome::ClientFault,
            reason: end.reason.map(FailureReason::label),
        };
        self.report(&end);
    }

    fn report(self, end: &Ended<'_>) {
        if let Some(log) = &self.reports.records {
            log.write_record(&self.record(end));
        }
        if let Some(access) = &self.reports.access {
            access.write(&self.access_entry(end));
        }
        if let Some(span) = &self.span {
            self.end_span(span, end);
        }
    }

    fn record(&self, end: &Ended<'_>) -> RequestRecord {
        let function = end.counters.map(|counters| &counters.function);
        let micros = end.at.duration_since(self.began).as_micros();
        RequestRecord {
            stream: REQUEST_STREAM.to_owned(),
            function: function.map(|key| (key.namespace.to_string(), key.name.to_string())),
            method: self.method.to_string(),
            host: self.host.clone(),
            path: self.target.clone(),
            status: end.status,
            micros: u64::try_from(micros).unwrap_or(u64::MAX),
            cold: end.start == Some(StartKind::Cold),
            error: end.reason.map(ToOwned::to_owned),
        }
    }

    fn access_entry<'a>(&'a self, end: &Ended<'a>) -> AccessEntry<'a> {
        let function = end.counters.map(|counters| {
            let key = &counters.function;
            (&key.namespace, &*key.name, counters.revision.as_str())
        });
        AccessEntry {
            function,
            host: &self.host,
            method: self.method.as_str(),
            path: self.path(),
            protocol: protocol_name(self.version),
            status: end.status,
            outcome: end.outcome,
            reason: end.reason,
            duration: end.at.duration_since(self.began),
            head: end.head,
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent,
            client: self.client,
            request_id: self.request_id.as_deref(),
            trace_id: self.trace_id.as_deref(),
            population: end.population.map(Population::label),
            start: end.start.map(StartKind::label),
        }
    }

    fn end_span(&self, span: &RequestSpan, end: &Ended<'_>) {
        let request = SpannedRequest {
            method: &self.method,
            host: &self.host,
            path: self.path(),
            protocol: protocol_name(self.version),
            https: self.https,
            client: self.client,
            request_id: self.request_id.as_deref(),
        };
        let revision = end.counters;
        let end = SpanEnd {
            at: end.at,
            function: revision.map(|counters| (&counters.function, counters.revision.as_str())),
            cold: end.start == Some(StartKind::Cold),
            status: end.status,
            outcome: end.outcome,
            reason: end.reason,
            client_fault: end.client_fault,
        };
        span.end(&request, &end);
    }

    /// Returns the path without the query.
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// How a request has ended.
struct Ended<'a> {
    at: Instant,
    /// Counters of the revision; `None` when none was found.
    counters: Option<&'a RevisionCounters>,
    status: Option<u16>,
    head: Option<Duration>,
    start: Option<StartKind>,
    population: Option<Population>,
    outcome: &'static str,
    client_fault: bool,
    reason: Option<&'a str>,
}
