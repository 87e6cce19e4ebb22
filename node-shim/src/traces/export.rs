//! Task that sends spans to the collector in batches. While the collector is away, it drops and counts them, and logs that
//! once a minute.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tonic::transport::ClientTlsConfig;

use super::{DropReason, OtlpProtocol, Queued, SpanCounters, over_http};
use crate::egress::system_roots;

/// Maximum number of spans in one message.
const MAX_BATCH: usize = 512;
/// Minimum time between two log lines about failures.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Name of the service, unless `OTEL_SERVICE_NAME` has another one.
const SERVICE: &str = "selvage-node-shim";

/// Why spans cannot be exported with these options.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be exported: {0}")]
pub struct ExportError(#[from] ExporterBuildError);

/// Returns the exporter. It connects when it sends for the first time. It reads the header fields and the
/// timeout from the standard environment variables.
pub(super) fn exporter(
    protocol: OtlpProtocol,
    endpoint: &str,
    node: &str,
) -> Result<opentelemetry_otlp::SpanExporter, ExportError> {
    let mut exporter = match protocol {
        OtlpProtocol::Grpc => grpc(endpoint)?,
        OtlpProtocol::HttpProtobuf => over_http::exporter(endpoint)?,
    };
    exporter.set_resource(&resource(node));
    Ok(exporter)
}

fn grpc(endpoint: &str) -> Result<opentelemetry_otlp::SpanExporter, ExporterBuildError> {
    let mut builder = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_protocol(Protocol::Grpc)
        .with_endpoint(endpoint);
    // reading the certificate authorities takes milliseconds
    if !endpoint.starts_with("http://") {
        let roots = system_roots().roots.iter().cloned();
        builder = builder.with_tls_config(ClientTlsConfig::new().trust_anchors(roots));
    }
    builder.build()
}

/// Returns the attributes of the process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` take precedence.
fn resource(node: &str) -> Resource {
    let own = [
        KeyValue::new("service.name", SERVICE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.to_owned()),
        KeyValue::new("k8s.node.name", node.to_owned()),
    ];
    let builder = Resource::builder_empty()
        .with_attributes(own)
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => builder.with_service_name(name),
        _ => builder,
    }
    .build()
}

/// Sends the spans of the queue until it ends.
pub(super) async fn run<E: SpanExporter>(
    mut queue: mpsc::Receiver<Queued>,
    exporter: E,
    delay: Duration,
    counters: Arc<SpanCounters>,
) {
    let mut failures = FailureLog::default();
    let mut batch = Batch::default();
    while batch.fill(&mut queue, delay).await {
        let spans = std::mem::take(&mut batch.spans);
        if !spans.is_empty() {
            let number = spans.len() as u64;
            match exporter.export(spans).await {
                Ok(()) => {
                    counters.exported.fetch_add(number, Ordering::Relaxed);
                }
                Err(error) => {
                    counters.dropped(DropReason::Export, number);
                    failures.log(&error, number);
                }
            }
        }
        if let Some(done) = batch.flushed.take() {
            // the caller may have stopped waiting
            let _ = done.send(());
        }
    }
}

/// Spans that are sent together.
#[derive(Default)]
struct Batch {
    spans: Vec<SpanData>,
    /// Who waits for the batch.
    flushed: Option<oneshot::Sender<()>>,
}

impl Batch {
    /// Waits for a first span, and then for further ones until the batch is full, `delay` has passed or the spans are
    /// needed at once. Returns false when the queue has ended and nothing is left.
    async fn fill(&mut self, queue: &mut mpsc::Receiver<Queued>, delay: Duration) -> bool {
        let Some(first) = queue.recv().await else {
            return false;
        };
        self.add(first);
        let end = Instant::now() + delay;
        while self.spans.len() < MAX_BATCH && self.flushed.is_none() {
            match timeout_at(end, queue.recv()).await {
                Ok(Some(next)) => self.add(next),
                Ok(None) | Err(_) => break,
            }
        }
        true
    }

    fn add(&mut self, queued: Queued) {
        match queued {
            Queued::Span(span) => self.spans.push(*span),
            Queued::Flush(done) => self.flushed = Some(done),
        }
    }
}

/// Logs failures to export, at most one a minute.
#[derive(Default)]
struct FailureLog {
    last: Option<Instant>,
    /// Number of spans that were dropped since.
    dropped: u64,
}

impl FailureLog {
    fn log(&mut self, error: &OTelSdkError, spans: u64) {
        self.dropped += spans;
        let now = Instant::now();
        if self.last.is_some_and(|last| now < last + LOG_INTERVAL) {
            return;
        }
        tracing::warn!(%error, dropped = self.dropped, "traces could not be exported; their spans are dropped");
        self.last = Some(now);
        self.dropped = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
    use opentelemetry_sdk::error::OTelSdkResult;

    use super::*;

    /// Collector that sends the sizes of batches to the test, and accepts them while they are small.
    #[derive(Debug)]
    struct Sizes(mpsc::Sender<usize>);

    impl SpanExporter for Sizes {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.send(batch.len()).unwrap();
            if batch.len() < MAX_BATCH {
                Ok(())
            } else {
                Err(OTelSdkError::InternalFailure("too large".into()))
            }
        }
    }

    fn span() -> Queued {
        Queued::Span(Box::new(SpanData {
            span_context: SpanContext::NONE,
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "x".into(),
            start_time: std::time::UNIX_EPOCH,
            end_time: std::time::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn spans_are_sent_in_batches_and_a_flush_does_not_wait() {
        let (sizes, sent) = mpsc::channel();
        let (queue, queued) = tokio::sync::mpsc::channel(2_000);
        let counters: Arc<SpanCounters> = Arc::default();
        let task = run(
            queued,
            Sizes(sizes),
            Duration::from_secs(3_600),
            counters.clone(),
        );
        let task = tokio::spawn(task);
        let began = Instant::now();
        for _ in 0..MAX_BATCH + 3 {
            queue.send(span()).await.unwrap();
        }
        let (done, flushed) = oneshot::channel();
        queue.send(Queued::Flush(done)).await.unwrap();
        flushed.await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(sent.try_iter().collect::<Vec<_>>(), [MAX_BATCH, 3]);
        assert_eq!(counters.exported.load(Ordering::Relaxed), 3);
        let [_, export, _] = &counters.dropped;
        assert_eq!(export.load(Ordering::Relaxed), MAX_BATCH as u64);
        // what is left is sent at the end
        queue.send(span()).await.unwrap();
        drop(queue);
        task.await.unwrap();
        assert_eq!(sent.try_iter().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn failures_are_logged_once_a_minute() {
        let lines = |failures: usize| {
            let error = OTelSdkError::InternalFailure("away".into());
            let line = crate::test_support::logged("warn", || {
                let mut log = FailureLog::default();
                for _ in 0..failures {
                    log.log(&error, 2);
                }
            });
            line["fields"]["dropped"].as_u64()
        };
        // `logged` fails when there is more than one line
        assert_eq!((lines(1), lines(5)), (Some(2), Some(2)));
    }
}
