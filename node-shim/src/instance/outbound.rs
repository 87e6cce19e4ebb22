//! HTTP requests of guests to other servers.

use std::sync::{Arc, LazyLock};

use http::HeaderName;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use crate::egress::{OutboundContext, OutboundRequests};
use crate::revision::Revision;

/// Size of the pieces of an outgoing body, in bytes.
pub(super) const CHUNK: usize = 64 << 10;

/// Outbound requests of the request that an instance answers.
pub(super) struct OutboundHttp {
    /// `None` while no guest runs.
    requests: Option<OutboundRequests>,
}

impl OutboundHttp {
    pub(super) fn new(context: Option<OutboundContext>) -> Self {
        Self {
            requests: context.map(OutboundRequests::new),
        }
    }

    /// Ends the requests of one request of the guest. Without a context, all further ones are denied.
    pub(super) fn replace(&mut self, context: Option<OutboundContext>) {
        self.requests = context.map(OutboundRequests::new);
    }

    pub(super) fn revision(&self) -> Option<&Arc<Revision>> {
        self.requests.as_ref().map(OutboundRequests::revision)
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

    /// The node writes the field after it has checked the target.
    fn set_host_header(&mut self) -> bool {
        false
    }

    /// Sends a request. wasmtime runs the future in a task that ends with the instance.
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let Some(requests) = &mut self.requests else {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        let response = requests.send(request, options);
        Box::new(async move {
            let io: Box<dyn Future<Output = Result<(), Error>> + Send> =
                Box::new(std::future::ready(Ok(())));
            Ok((response.await?, io))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}
