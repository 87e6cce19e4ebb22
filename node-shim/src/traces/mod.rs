//! Traces of requests, exported to an OpenTelemetry collector. Off unless there is an endpoint.
//!
//! Whether a request is recorded is decided once, at its beginning: by the sender if a trusted one has started the trace,
//! otherwise by chance. A recorded request has a span of the node, below it one of the guest, and below that one of each
//! outbound request or call. Serving threads put spans that have ended into a queue and never wait; the task of `export`
//! sends them.

mod attributes;
mod export;
mod outbound_span;
mod over_http;
mod request_span;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use node_shim_core::trace::TraceContext;
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanId, SpanKind, TraceId};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample, SpanData,
};
use tokio::sync::{mpsc, oneshot};

pub use export::ExportError;
pub(crate) use outbound_span::{OutboundSpan, SpanParent};
pub(crate) use request_span::{GuestSpan, RequestSpan, SpanEnd, SpannedRequest};

/// Options of traces.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceOptions {
    /// URL of the collector, like `http://collector.monitoring:4317` with gRPC and
    /// `http://collector.monitoring:4318/v1/traces` with HTTP. `None`: no traces.
    pub endpoint: Option<String>,
    /// Protocol of the collector. Default: gRPC.
    pub protocol: OtlpProtocol,
    /// Part of the requests that is recorded if no trusted sender has decided, from 0 to 1. Default: 0.
    pub sample_ratio: f64,
    /// Maximum number of spans that wait for the exporter. Default: 4,096.
    pub queue: usize,
    /// Maximum time for which a span waits for more, to be sent together. Default: 1 s.
    pub delay: Duration,
}

/// Protocol of OTLP, with the names of the variable `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OtlpProtocol {
    /// OTLP over gRPC, usually on port 4317.
    #[default]
    #[value(name = "grpc")]
    Grpc,
    /// OTLP over HTTP with messages in Protocol Buffers, usually on port 4318.
    #[value(name = "http/protobuf")]
    HttpProtobuf,
}

impl OtlpProtocol {
    /// Returns the URL for traces of a collector that receives all signals at this URL.
    pub(crate) fn traces_url(self, collector: &str) -> String {
        match self {
            Self::Grpc => collector.to_owned(),
            Self::HttpProtobuf => format!("{}/v1/traces", collector.trim_end_matches('/')),
        }
    }
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: OtlpProtocol::default(),
            sample_ratio: 0.0,
            queue: 4_096,
            delay: Duration::from_secs(1),
        }
    }
}

/// Decides which requests are recorded, and passes their spans to the exporter.
pub struct Tracer {
    ids: RandomIdGenerator,
    sampler: Sampler,
    scope: InstrumentationScope,
    queue: mpsc::Sender<Queued>,
    counters: Arc<SpanCounters>,
}

/// What waits for the exporter.
enum Queued {
    Span(Box<SpanData>),
    /// Everything before this is sent at once, and the sender is notified then.
    Flush(oneshot::Sender<()>),
}

/// Counters of spans.
#[derive(Debug, Default)]
struct SpanCounters {
    exported: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

/// Why a span was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The queue was full.
    Queue,
    /// The collector did not accept it.
    Export,
    /// The request had sent too many outbound requests.
    Limit,
}

impl DropReason {
    /// All reasons in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Queue, Self::Export, Self::Limit];

    /// Returns the value of the metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Export => "export",
            Self::Limit => "limit",
        }
    }
}

impl SpanCounters {
    fn dropped(&self, reason: DropReason, spans: u64) {
        if let Some(count) = self.dropped.get(reason as usize) {
            count.fetch_add(spans, Ordering::Relaxed);
        }
    }
}

impl Tracer {
    /// Starts the task of the exporter on the current runtime; `None` without an endpoint. `node` is the name of the node.
    ///
    /// # Errors
    /// Fails when the endpoint or an environment variable of OpenTelemetry cannot be used.
    ///
    /// # Panics
    /// Panics outside of a runtime.
    pub fn start(options: &TraceOptions, node: &str) -> Result<Option<Arc<Self>>, ExportError> {
        let Some(endpoint) = &options.endpoint else {
            return Ok(None);
        };
        let exporter = export::exporter(options.protocol, endpoint, node)?;
        let (queue, queued) = mpsc::channel(options.queue.max(1));
        let counters: Arc<SpanCounters> = Arc::default();
        let task = export::run(queued, exporter, options.delay, Arc::clone(&counters));
        tokio::spawn(task);
        let scope = InstrumentationScope::builder("selvage.node-shim");
        Ok(Some(Arc::new(Self {
            ids: RandomIdGenerator::default(),
            sampler: Sampler::TraceIdRatioBased(options.sample_ratio),
            scope: scope.with_version(env!("CARGO_PKG_VERSION")).build(),
            queue,
            counters,
        })))
    }

    /// Returns the span of the request of a client, if it is recorded. `parent` is the trace that a trusted sender has
    /// started.
    pub(crate) fn request_span(
        self: &Arc<Self>,
        parent: Option<TraceContext>,
        began: Instant,
    ) -> Option<RequestSpan> {
        let clock = || SpanClock::read(began);
        match parent.as_ref().map(|parent| (parent, parent.ids())) {
            Some((parent, Some((trace, span)))) => parent.is_sampled().then(|| {
                let parent = ParentSpan {
                    span,
                    remote: true,
                    state: parent.state().cloned(),
                };
                RequestSpan::new(self.open(trace, Some(parent), clock(), began))
            }),
            _ => {
                let id = self.ids.new_trace_id();
                let kind = SpanKind::Server;
                let sampled = self.sampler.should_sample(None, id, "", &kind, &[], &[]);
                (sampled.decision == SamplingDecision::RecordAndSample).then(|| {
                    let trace = u128::from_be_bytes(id.to_bytes());
                    RequestSpan::new(self.open(trace, None, clock(), began))
                })
            }
        }
    }

    /// Returns the span of the call of a function whose caller recorded it as `parent`.
    pub(crate) fn call_span(
        self: &Arc<Self>,
        parent: &TraceContext,
        remote: bool,
        began: Instant,
    ) -> Option<RequestSpan> {
        let (trace, span) = parent.ids()?;
        let parent = ParentSpan {
            span,
            remote,
            state: parent.state().cloned(),
        };
        let clock = SpanClock::read(began);
        Some(RequestSpan::new(self.open(
            trace,
            Some(parent),
            clock,
            began,
        )))
    }

    fn open(
        self: &Arc<Self>,
        trace: u128,
        parent: Option<ParentSpan>,
        clock: SpanClock,
        began: Instant,
    ) -> OpenSpan {
        OpenSpan {
            tracer: Arc::clone(self),
            trace,
            span: u64::from_be_bytes(self.ids.new_span_id().to_bytes()).max(1),
            parent,
            clock,
            began,
        }
    }

    /// Passes a span that has ended to the exporter, unless its queue is full.
    fn send(&self, span: SpanData) {
        if self.queue.try_send(Queued::Span(Box::new(span))).is_err() {
            self.counters.dropped(DropReason::Queue, 1);
        }
    }

    /// Sends all spans that have ended, and waits for it for at most `limit`.
    pub async fn flush(&self, limit: Duration) {
        let flush = async {
            let (done, sent) = oneshot::channel();
            if self.queue.send(Queued::Flush(done)).await.is_ok() {
                let _ = sent.await;
            }
        };
        // what is left is lost when the process ends
        let _ = tokio::time::timeout(limit, flush).await;
    }

    /// Returns the number of spans that the collector has accepted.
    pub fn exported(&self) -> u64 {
        self.counters.exported.load(Ordering::Relaxed)
    }

    /// Returns the number of dropped spans by reason.
    pub fn dropped(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        let read =
            |(reason, count): (DropReason, &AtomicU64)| (reason, count.load(Ordering::Relaxed));
        DropReason::ALL
            .into_iter()
            .zip(&self.counters.dropped)
            .map(read)
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer")
            .field("sampler", &self.sampler)
            .finish_non_exhaustive()
    }
}

/// Readings of both clocks at the beginning of a request. The times of its spans follow from the monotonic one, so that no
/// change of the wall clock gives a span a wrong length.
#[derive(Clone, Copy, Debug)]
struct SpanClock {
    wall: SystemTime,
    at: Instant,
}

impl SpanClock {
    /// Reads the wall clock. `began` is a moment ago.
    fn read(began: Instant) -> Self {
        Self {
            wall: SystemTime::now(),
            at: began,
        }
    }

    fn time(self, at: Instant) -> SystemTime {
        self.wall + at.saturating_duration_since(self.at)
    }
}

/// Parent of a span.
#[derive(Clone, Debug)]
struct ParentSpan {
    span: u64,
    /// Whether another program records it.
    remote: bool,
    state: Option<HeaderValue>,
}

/// A span that has not ended.
struct OpenSpan {
    tracer: Arc<Tracer>,
    trace: u128,
    span: u64,
    parent: Option<ParentSpan>,
    clock: SpanClock,
    began: Instant,
}

impl OpenSpan {
    /// Returns a span below this one that begins at `began`.
    fn child(&self, began: Instant) -> Self {
        let parent = ParentSpan {
            span: self.span,
            remote: false,
            state: self.state().cloned(),
        };
        self.tracer
            .open(self.trace, Some(parent), self.clock, began)
    }

    /// Returns what a request passes on whose next span is below this one.
    fn context(&self) -> TraceContext {
        TraceContext::recorded(self.trace, self.span, self.state().cloned())
    }

    fn state(&self) -> Option<&HeaderValue> {
        self.parent.as_ref()?.state.as_ref()
    }

    fn trace_id(&self) -> TraceId {
        TraceId::from(self.trace)
    }

    fn span_id(&self) -> SpanId {
        SpanId::from(self.span)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use node_shim_core::egress::OutboundTarget;

    use super::*;

    /// Returns a tracer, and the queue that its exporter would read.
    fn tracer(sample_ratio: f64, queue: usize) -> (Arc<Tracer>, mpsc::Receiver<Queued>) {
        let (queue, queued) = mpsc::channel(queue);
        let tracer = Tracer {
            ids: RandomIdGenerator::default(),
            sampler: Sampler::TraceIdRatioBased(sample_ratio),
            scope: InstrumentationScope::default(),
            queue,
            counters: Arc::default(),
        };
        (Arc::new(tracer), queued)
    }

    fn dropped(tracer: &Tracer) -> Vec<u64> {
        tracer.dropped().map(|(_, count)| count).collect()
    }

    fn root(tracer: &Arc<Tracer>) -> OpenSpan {
        let now = Instant::now();
        tracer.open(1, None, SpanClock::read(now), now)
    }

    fn end(span: &OpenSpan) {
        let described = attributes::Described {
            kind: SpanKind::Internal,
            name: "x".into(),
            attributes: Vec::new(),
            status: opentelemetry::trace::Status::Unset,
        };
        span.end(Instant::now(), described);
    }

    #[test]
    fn spans_above_the_queue_are_dropped_and_counted() {
        let (tracer, mut queued) = tracer(1.0, 2);
        let span = root(&tracer);
        for _ in 0..5 {
            end(&span);
        }
        assert_eq!(dropped(&tracer), [3, 0, 0]);
        assert!(matches!(queued.try_recv(), Ok(Queued::Span(_))));
        end(&span);
        assert_eq!(dropped(&tracer), [3, 0, 0]);
    }

    #[test]
    fn a_request_has_a_bounded_number_of_outbound_spans() {
        let (tracer, _queued) = tracer(1.0, 1);
        let parent = SpanParent::new(root(&tracer));
        let uri = "http://api.example/v1?x=1".parse().unwrap();
        let target = OutboundTarget::new(&uri).unwrap();
        let started = (0..200).filter(|_| parent.outbound(&Method::GET, &target).is_some());
        assert_eq!(started.count(), 128);
        assert_eq!(dropped(&tracer), [0, 0, 72]);
    }

    #[test]
    fn a_ratio_decides_without_a_parent() {
        let count = |ratio| {
            let (tracer, _queued) = tracer(ratio, 1);
            let sampled = |_: &u32| tracer.request_span(None, Instant::now()).is_some();
            (0..2_000).filter(sampled).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 2_000));
        // 13 standard deviations
        assert!((700..=1_300).contains(&count(0.5)));
    }

    #[test]
    fn the_path_is_added_to_the_url_of_a_collector_of_all_signals() {
        let (grpc, http) = (OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf);
        assert_eq!(grpc.traces_url("http://c:4317"), "http://c:4317");
        assert_eq!(http.traces_url("http://c:4318"), "http://c:4318/v1/traces");
        assert_eq!(
            http.traces_url("https://c/otlp/"),
            "https://c/otlp/v1/traces"
        );
    }

    #[test]
    fn the_times_of_spans_follow_the_monotonic_clock() {
        let began = Instant::now();
        let clock = SpanClock::read(began);
        let second = Duration::from_secs(1);
        let (first, last) = (clock.time(began), clock.time(began + second));
        assert_eq!(last.duration_since(first).unwrap(), second);
    }
}
