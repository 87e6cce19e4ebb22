//! OTLP over HTTP: the exporter of OpenTelemetry with the HTTP client that pulls images, as strict as the one over gRPC.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_TIMEOUT, OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, Protocol,
    SpanExporter, WithExportConfig, WithHttpConfig,
};
use rustls::RootCertStore;

use crate::egress::client_config;

/// Maximum time for one message, unless the environment has another one.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns an exporter that posts to this URL.
pub(super) fn exporter(url: &str) -> Result<SpanExporter, ExporterBuildError> {
    let timeout = timeout();
    let client = CollectorClient::new(url, timeout)
        .map_err(|error| ExporterBuildError::InternalFailure(cause(&*error)))?;
    SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url)
        .with_timeout(timeout)
        .with_http_client(client)
        .build()
}

/// Returns the timeout of the standard environment variables, which are in milliseconds.
fn timeout() -> Duration {
    let read = |name| std::env::var(name).ok()?.parse().ok();
    let named = [
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT,
        OTEL_EXPORTER_OTLP_TIMEOUT,
    ];
    named
        .into_iter()
        .find_map(read)
        .map_or(TIMEOUT, Duration::from_millis)
}

/// Client of a collector. It neither follows redirects nor uses a proxy, so header fields with a token reach the collector only.
#[derive(Debug)]
struct CollectorClient(reqwest::Client);

impl CollectorClient {
    fn new(url: &str, timeout: Duration) -> Result<Self, HttpError> {
        // without TLS, no authorities are needed, and reading them takes milliseconds
        let none = url
            .starts_with("http://")
            .then(|| Arc::new(RootCertStore::empty()));
        let tls = client_config(none.as_ref(), &[b"h2", b"http/1.1"])?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(timeout)
            .tls_backend_preconfigured((*tls).clone())
            .build()?;
        Ok(Self(client))
    }
}

#[tonic::async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.0.send_bytes(request).await;
        if let Err(error) = &sent {
            // the exporter reports only that the network has failed
            tracing::debug!(error = cause(&**error), "the collector cannot be reached");
        }
        sent
    }
}

/// Returns the innermost cause of an error. The others contain the URL, which may carry a token.
fn cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
