//! Host state of one instance.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use http::HeaderName;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx,
    WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::clocks::{CoarseMonotonic, CoarseWall};
use super::limiter::Limiter;
use crate::config_value::ConfigValue;
use crate::guest_log::RequestLog;
use crate::revision::Revision;

/// Maximum number of resources in a guest's table and of component handles.
pub(super) const MAX_HANDLES: usize = 4_000;
/// Maximum size in bytes of the names and values of one `fields` resource that a guest creates.
const FIELD_BYTES: usize = 64 << 10;
const CHUNK: usize = 64 << 10;
/// Maximum number of bytes that one call for random bytes returns.
const MAX_RANDOM: u64 = 1 << 20;

/// State of a store, which serves one request.
pub(crate) struct GuestState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    hooks: Hooks,
    pub(super) limiter: Limiter,
}

#[derive(Default)]
struct Hooks {
    /// `None` while no guest runs.
    revision: Option<Arc<Revision>>,
}

impl GuestState {
    pub(super) fn new(revision: &Arc<Revision>, log: &RequestLog) -> Self {
        let wasi = WasiCtx::builder()
            .envs(&revision.spec.env)
            .stdout(log.stream("stdout"))
            .stderr(log.stream("stderr"))
            .max_random_size(MAX_RANDOM)
            .wall_clock(CoarseWall)
            .monotonic_clock(CoarseMonotonic)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELD_BYTES);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self {
            wasi,
            http,
            table,
            hooks: Hooks {
                revision: Some(revision.clone()),
            },
            limiter: Limiter::new(revision.spec.limits.memory),
        }
    }

    /// Returns the state of an instance that runs no code and has no memory limit.
    pub(super) fn for_measurement() -> Self {
        Self {
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            hooks: Hooks::default(),
            limiter: Limiter::new(u64::MAX),
        }
    }

    pub(crate) fn config(&self) -> &[(String, ConfigValue)] {
        let revision = self.hooks.revision.as_ref();
        revision.map_or(&[], |revision| &revision.spec.config)
    }

    pub(super) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

static FORBIDDEN: LazyLock<ForbiddenHeaderFilter> =
    LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));

type Sent = (
    http::Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for Hooks {
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
