//! HTTP requests of guests to other servers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use http::HeaderName;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use crate::revision::Revision;

/// Size of the pieces of an outgoing body, in bytes.
pub(super) const CHUNK: usize = 64 << 10;

/// Decides about the outbound requests of one instance.
pub(super) struct OutboundHttp {
    /// `None` while no guest runs.
    revision: Option<Arc<Revision>>,
}

impl OutboundHttp {
    pub(super) fn new(revision: Option<Arc<Revision>>) -> Self {
        Self { revision }
    }

    pub(super) fn revision(&self) -> Option<&Arc<Revision>> {
        self.revision.as_ref()
    }
}

static FORBIDDEN: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));

type Sent = (
    http::Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for OutboundHttp {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        FORBIDDEN.clone()
    }

    /// Denies and counts every outbound request, because outbound HTTP is not supported yet.
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        if let Some(revision) = &self.revision {
            let denied = &revision.counters.egress_denied;
            denied.fetch_add(1, Ordering::Relaxed);
        }
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}
