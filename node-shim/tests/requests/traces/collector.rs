//! A collector of traces.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use node_shim::traces::{OtlpProtocol, TraceOptions, Tracer};
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
use prost::Message;
use tokio::runtime::Runtime;
use tonic::{Request, Response, Status};

use crate::support::node::PATIENCE;

/// A collector on a loopback address, and the runtime of exporters.
pub(crate) struct Collector {
    runtime: Runtime,
    protocol: OtlpProtocol,
    endpoint: String,
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

/// Receives spans over HTTP. Whatever is not a message of OTLP is answered with an error.
async fn receive(
    request: hyper::Request<Incoming>,
    field: Option<(&'static str, &'static str)>,
    sent: Sender<ExportTraceServiceRequest>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let has = |name: &str, value: &str| head.headers.get(name).is_some_and(|given| given == value);
    let expected = head.method == hyper::Method::POST
        && head.uri.path() == "/v1/traces"
        && has("content-type", "application/x-protobuf")
        && field.is_none_or(|(name, value)| has(name, value));
    let body = body.collect().await.map(|body| body.to_bytes());
    let message = ExportTraceServiceRequest::decode(body.unwrap_or_default());
    let mut answer = hyper::Response::new(Full::default());
    match message {
        Ok(message) if expected => {
            let received = ExportTraceServiceResponse::default().encode_to_vec();
            *answer.body_mut() = Full::from(received);
            // the test has ended when this fails
            let _ = sent.send(message);
        }
        _ => *answer.status_mut() = hyper::StatusCode::BAD_REQUEST,
    }
    Ok(answer)
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
            protocol: OtlpProtocol::Grpc,
            endpoint: format!("http://{address}"),
            received,
        }
    }

    /// Starts a collector that receives OTLP over HTTP at `/v1/traces`, from clients that send this header field.
    pub(crate) fn over_http(field: Option<(&'static str, &'static str)>) -> Self {
        let (sent, received) = channel();
        let runtime = runtime();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let sent = sent.clone();
                let service = service_fn(move |request| receive(request, field, sent.clone()));
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            runtime,
            protocol: OtlpProtocol::HttpProtobuf,
            endpoint: format!("http://{address}/v1/traces"),
            received,
        }
    }

    /// Returns whether nothing has arrived since the last call of `spans`.
    pub(crate) fn is_empty(&self) -> bool {
        self.received.try_recv().is_err()
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns what records this part of the requests for the collector.
    pub(crate) fn tracer(&self, sample_ratio: f64) -> Arc<Tracer> {
        tracer(&self.runtime, self.protocol, &self.endpoint, sample_ratio)
    }

    /// Waits for this number of spans, and returns what has arrived, in the order of the names.
    pub(crate) fn spans(&self, number: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        while spans.len() < number {
            let request = self.received.recv_timeout(PATIENCE).unwrap();
            for resource in request.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                assert_eq!(text(&attributes, "service.name"), "selvage-node-shim");
                assert_ne!(text(&attributes, "k8s.node.name"), "");
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

pub(super) fn tracer(
    runtime: &Runtime,
    protocol: OtlpProtocol,
    endpoint: &str,
    sample_ratio: f64,
) -> Arc<Tracer> {
    let _inside = runtime.enter();
    let options = TraceOptions {
        endpoint: Some(endpoint.to_owned()),
        protocol,
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
