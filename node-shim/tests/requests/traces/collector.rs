//! A collector of traces.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use node_shim::traces::{TraceOptions, Tracer};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};

use crate::support::node::PATIENCE;

/// A collector on a loopback address, and the runtime of exporters.
pub(crate) struct Collector {
    runtime: Runtime,
    address: SocketAddr,
    received: Receiver<ExportTraceServiceRequest>,
}

struct Service(Mutex<Sender<ExportTraceServiceRequest>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        // the test has ended when this fails
        let _ = self.0.lock().send(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) fn start() -> Self {
        let (sent, received) = channel();
        let runtime = runtime();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let service = TraceServiceServer::new(Service(Mutex::new(sent)));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            runtime,
            address,
            received,
        }
    }

    /// Returns what records this part of the requests for the collector.
    pub(crate) fn tracer(&self, sample_ratio: f64) -> Arc<Tracer> {
        tracer(&self.runtime, self.address, sample_ratio)
    }

    /// Waits for this number of spans, and returns what has arrived, in the order of the names.
    pub(crate) fn spans(&self, number: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        while spans.len() < number {
            let request = self.received.recv_timeout(PATIENCE).unwrap();
            for resource in request.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                assert_eq!(text(&attributes, "service.name"), "selvage-node-shim");
                assert_eq!(text(&attributes, "k8s.node.name"), "node-1");
                spans.extend(resource.scope_spans.into_iter().flat_map(|s| s.spans));
            }
        }
        spans.sort_by(|a, b| a.name.cmp(&b.name));
        spans
    }
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

pub(super) fn tracer(runtime: &Runtime, address: SocketAddr, sample_ratio: f64) -> Arc<Tracer> {
    let _inside = runtime.enter();
    let options = TraceOptions {
        endpoint: Some(format!("http://{address}")),
        sample_ratio,
        delay: Duration::from_millis(5),
        ..TraceOptions::default()
    };
    Tracer::start(&options, "node-1").unwrap().unwrap()
}

/// Returns an attribute as text; empty without it.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.clone()?.value) {
        None => String::new(),
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(other) => panic!("{key}: {other:?}"),
    }
}

/// Returns the header field that names this span as the parent.
pub(crate) fn traceparent(span: &Span) -> String {
    let (trace, id) = (hex::encode(&span.trace_id), hex::encode(&span.span_id));
    format!("00-{trace}-{id}-01")
}
