//! What one instance sees of its host: environment, output, clocks, random numbers, handles. The other interfaces of
//! `wasi:cli/imports` are linked with nothing behind them: no directories, sockets, names, arguments or terminals.

use std::any::Any;
use std::sync::Arc;

use http::StatusCode;
use node_shim_core::headers::is_bodiless;
use node_shim_core::key_value::KeyValueError;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingRequest, HostIncomingResponse, HostOutgoingRequest,
    HostOutgoingResponse, HostResponseOutparam,
};
use wasmtime_wasi_http::{FieldMap, WasiHttpCtx, WasiHttpCtxView, WasiHttpView, p3};

use super::clocks::{CoarseMonotonic, CoarseWall};
use super::host_memory::BODY;
use super::limiter::{HostMemoryRefused, Limiter};
use super::outbound::OutboundHttp;
use crate::config_value::ConfigValue;
use crate::egress::OutboundContext;
use crate::guest_log::{InstanceLog, RequestLog};
use crate::instance_budget::InstanceShare;
use crate::key_value::{KeyValueSession, KeyValueStores, OpenBucket};
use crate::revision::Revision;

/// Maximum number of resources in a guest's table and of component handles.
pub(super) const MAX_HANDLES: usize = 4_000;
/// Maximum size in bytes of the names and values of one `fields` resource that a guest creates.
const FIELD_BYTES: usize = 64 << 10;
/// Maximum number of bytes that one call for random bytes returns.
const MAX_RANDOM: u64 = 1 << 20;

/// What a guest uses on behalf of one request.
pub(super) struct RequestResources {
    pub(super) log: RequestLog,
    /// `None` when the revision has no key-value stores.
    pub(super) key_value: Option<Arc<KeyValueStores>>,
    pub(super) outbound: OutboundContext,
}

/// State of a store. The part that belongs to the request is replaced when an instance answers another one.
pub(crate) struct GuestState {
    wasi: WasiCtx,
    log: Option<InstanceLog>,
    http: WasiHttpCtx,
    table: ResourceTable,
    outbound: OutboundHttp,
    key_value: KeyValueSession,
    pub(super) limiter: Limiter,
    /// Whether the method of the request is HEAD.
    answers_head: bool,
    /// Number of bodies that were counted as memory of the host. The first one is not counted, because every instance
    /// has one.
    bodies: u64,
}

impl GuestState {
    pub(super) fn new(
        revision: &Arc<Revision>,
        request: &RequestResources,
        share: Option<InstanceShare>,
    ) -> Self {
        let log = InstanceLog::new(request.log.clone());
        let wasi = WasiCtx::builder()
            .envs(&revision.spec.env)
            .stdout(log.stream("stdout"))
            .stderr(log.stream("stderr"))
            .max_random_size(MAX_RANDOM)
            .wall_clock(CoarseWall)
            .monotonic_clock(CoarseMonotonic)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .build();
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(FIELD_BYTES);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self {
            wasi,
            log: Some(log),
            http,
            table,
            outbound: OutboundHttp::new(Some(request.outbound.clone())),
            key_value: KeyValueSession::new(request.key_value.clone()),
            limiter: Limiter::new(revision.spec.limits.memory, share),
            answers_head: false,
            bodies: 1,
        }
    }

    /// Returns the state of an instance that runs no code and has no memory limit.
    pub(super) fn for_measurement() -> Self {
        Self {
            wasi: WasiCtx::builder().build(),
            log: None,
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
            outbound: OutboundHttp::new(None),
            key_value: KeyValueSession::default(),
            limiter: Limiter::new(u64::MAX, None),
            answers_head: false,
            bodies: 1,
        }
    }

    /// Begins another request of an instance whose last one has ended.
    pub(super) fn begin_request(&mut self, request: &RequestResources) {
        if let Some(log) = &self.log {
            log.begin_request(request.log.clone());
        }
        self.outbound.replace(Some(request.outbound.clone()));
        self.key_value = KeyValueSession::new(request.key_value.clone());
    }

    /// Ends the request: its outbound requests end, and the host keeps nothing for it.
    pub(super) fn end_request(&mut self) {
        if let Some(log) = &self.log {
            log.end_request();
        }
        self.outbound.replace(None);
        self.key_value = KeyValueSession::default();
        self.limiter.end_request();
        self.bodies = 1;
    }

    pub(super) fn set_answers_head(&mut self, answers_head: bool) {
        self.answers_head = answers_head;
    }

    /// Returns whether a response with this status has no body, although it may state the length of one.
    pub(super) fn is_bodiless(&self, status: StatusCode) -> bool {
        is_bodiless(self.answers_head, status)
    }

    /// Returns the share of an instance that is gone.
    pub(super) fn into_share(self) -> Option<InstanceShare> {
        self.limiter.into_share()
    }

    /// Returns whether the guest holds resources of its request, or of an outbound one. Other resources, such as streams of
    /// the log, may be kept from one request to the next.
    pub(super) fn holds_request(&mut self) -> bool {
        self.table.iter_mut().any(|entry| {
            let entry: &dyn Any = &*entry;
            entry.is::<HostIncomingRequest>()
                || entry.is::<HostIncomingBody>()
                || entry.is::<HostFutureTrailers>()
                || entry.is::<HostResponseOutparam>()
                || entry.is::<HostOutgoingResponse>()
                || entry.is::<HostOutgoingBody>()
                || entry.is::<HostOutgoingRequest>()
                || entry.is::<HostFutureIncomingResponse>()
                || entry.is::<HostIncomingResponse>()
                || entry.is::<p3::Request>()
                || entry.is::<p3::Response>()
                || entry.is::<FieldMap>()
        })
    }

    pub(crate) fn config(&self) -> &[(String, ConfigValue)] {
        let revision = self.outbound.revision();
        revision.map_or(&[], |revision| &revision.spec.config)
    }

    /// Counts memory in bytes that the host keeps for the guest until the request ends. A host call that keeps what the
    /// guest passes calls this first.
    ///
    /// # Errors
    /// Returns an error, which must end the guest, when the memory exceeds the limit or the share of the namespace.
    pub(crate) fn hold(&mut self, bytes: u64) -> Result<(), HostMemoryRefused> {
        self.limiter.hold(bytes)
    }

    /// Counts the queues of `bodies` bodies that exist at the same time, as [`hold`](Self::hold) does.
    pub(super) fn hold_bodies(&mut self, bodies: u64) -> Result<(), HostMemoryRefused> {
        let more = bodies.saturating_sub(self.bodies);
        self.hold(more.saturating_mul(BODY))?;
        self.bodies += more;
        Ok(())
    }

    /// Opens the key-value store with a label; `None` when the revision has no store with this label.
    ///
    /// # Errors
    /// Fails when the request has used up its operations.
    pub(crate) fn open_bucket(&mut self, label: &str) -> Result<Option<OpenBucket>, KeyValueError> {
        self.key_value.open(self.outbound.revision(), label)
    }

    /// Takes operations on key-value stores from those that the request has left.
    ///
    /// # Errors
    /// Fails when fewer are left.
    pub(crate) fn charge_operations(&mut self, operations: usize) -> Result<(), KeyValueError> {
        self.key_value.charge(operations)
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
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
