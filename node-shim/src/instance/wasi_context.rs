//! What one instance sees of its host: environment, output, clocks, random numbers, handles.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::clocks::{CoarseMonotonic, CoarseWall};
use super::limiter::Limiter;
use super::outbound::OutboundHttp;
use crate::config_value::ConfigValue;
use crate::egress::{EgressClient, OutboundContext};
use crate::guest_log::RequestLog;
use crate::instance_budget::InstanceShare;
use crate::revision::Revision;

/// Maximum number of resources in a guest's table and of component handles.
pub(super) const MAX_HANDLES: usize = 4_000;
/// Maximum size in bytes of the names and values of one `fields` resource that a guest creates.
const FIELD_BYTES: usize = 64 << 10;
/// Maximum number of bytes that one call for random bytes returns.
const MAX_RANDOM: u64 = 1 << 20;

/// State of a store, which serves one request.
pub(crate) struct GuestState {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    outbound: OutboundHttp,
    pub(super) limiter: Limiter,
}

impl GuestState {
    pub(super) fn new(
        revision: &Arc<Revision>,
        log: &RequestLog,
        share: InstanceShare,
        egress: Arc<EgressClient>,
    ) -> Self {
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
            outbound: OutboundHttp::new(Some(OutboundContext {
                client: egress,
                revision: revision.clone(),
                log: log.clone(),
            })),
            limiter: Limiter::new(revision.spec.limits.memory, Some(share)),
        }
    }

    /// Returns the state of an instance that runs no code and has no memory limit.
    pub(super) fn for_measurement() -> Self {
        Self {
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            outbound: OutboundHttp::new(None),
            limiter: Limiter::new(u64::MAX, None),
        }
    }

    pub(crate) fn config(&self) -> &[(String, ConfigValue)] {
        let revision = self.outbound.revision();
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
            hooks: &mut self.outbound,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}
