//! An instance and its store. It answers one request after another if its revision allows that; everything that belongs to
//! a request is replaced in between.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Method, Request};
use http_body::Body;
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::instance_reuse::{DropCause, UsedInstance};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme as ProxyScheme;
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{Error, WasiHttpView};

use super::call::{GuestHead, RequestContext};
use super::classify;
use super::control::{GuestControl, GuestEnd};
use super::preempted::is_short;
use super::service::{self, Answer, ResponseProgress};
use super::wasi_context::{GuestState, MAX_HANDLES};
use crate::code_cache::CodeInUse;
use crate::counters::RevisionCounters;
use crate::engine::GuestPre;
use crate::instance_budget::InstanceShare;
use crate::node_counters::NodeCounters;
use crate::revision::Revision;

/// Maximum memory in bytes that one host call may allocate for the guest.
const HOSTCALL_BYTES: usize = 16 << 20;

/// What a new instance needs.
pub(crate) struct InstanceParts {
    pub(crate) code: CodeInUse,
    pub(crate) share: InstanceShare,
}

/// An instance between its creation and its end.
pub(crate) struct ReusableInstance {
    // dropped first, so that the end is counted before the slot is free
    end: InstanceEnd,
    // dropped before the code that it runs
    store: Store<GuestState>,
    /// `None` until the first request creates the instance, and for a guest of the world `wasi:http/service`.
    proxy: Option<Proxy>,
    /// `None` until the first request creates the instance, and for a guest of the world `wasi:http/proxy`.
    service: Option<Service>,
    /// Response of a guest of the world `wasi:http/service`.
    response: Option<ResponseProgress>,
    /// Whether such a guest has left something of its call, or accepts no other one.
    has_leftovers: bool,
    code: CodeInUse,
    revision: Arc<Revision>,
    /// Number of requests, the current one included.
    requests: u32,
    /// Memory after the first request, in bytes.
    first_memory: u64,
    /// Control of the latest request.
    control: Arc<GuestControl>,
    _count: InstanceCount,
}

/// Counts the end of an instance when dropped, if its revision reuses instances.
struct InstanceEnd {
    cause: Option<DropCause>,
    counters: Arc<NodeCounters>,
}

impl ReusableInstance {
    /// Creates the store of an instance for its first request.
    pub(super) fn new(context: &RequestContext, parts: InstanceParts) -> Self {
        Self::create(context, parts.code, Some(parts.share))
    }

    fn create(context: &RequestContext, code: CodeInUse, share: Option<InstanceShare>) -> Self {
        let RequestContext {
            revision,
            control,
            resources,
            counters,
            ..
        } = context;
        let state = GuestState::new(revision, resources, share);
        let mut store = Store::new(code.loaded.pre.instance_pre().engine(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_max_component_handles(MAX_HANDLES);
        let mut instance = Self {
            store,
            proxy: None,
            service: None,
            response: None,
            has_leftovers: false,
            code,
            revision: revision.clone(),
            requests: 1,
            first_memory: 0,
            control: control.clone(),
            end: InstanceEnd {
                // it is dropped without another cause when its guest had to be stopped
                cause: revision
                    .spec
                    .reuse
                    .is_enabled()
                    .then_some(DropCause::Failed),
                counters: counters.clone(),
            },
            _count: InstanceCount::new(&revision.counters),
        };
        instance.set_limits(context);
        instance
    }

    /// Begins another request. Its limits apply to it alone.
    pub(super) fn begin_request(&mut self, context: &RequestContext) {
        self.requests += 1;
        self.control = context.control.clone();
        let state = self.store.data_mut();
        state.begin_request(&context.resources);
        self.set_limits(context);
    }

    fn set_limits(&mut self, context: &RequestContext) {
        let store = &mut self.store;
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_epoch_deadline(1);
        let control = context.control.clone();
        store.epoch_deadline_callback(move |_| {
            let used = control.check()?;
            Ok(if is_short(used) {
                // epochs do not begin with the guest
                UpdateDeadline::Continue(1)
            } else {
                UpdateDeadline::YieldCustom(1, Box::pin(control.clone().give_way()))
            })
        });
    }

    /// Calls the handler of the guest.
    pub(super) async fn handle<B>(
        &mut self,
        request: Request<B>,
        scheme: Scheme,
        set_head: impl FnOnce(GuestHead) + Send + Sync + 'static,
    ) -> wasmtime::Result<()>
    where
        B: Body<Data = Bytes, Error = Error> + Send + 'static,
    {
        let store = &mut self.store;
        let pre = match &self.code.loaded.pre {
            GuestPre::Proxy(pre) => pre,
            GuestPre::Service(pre) => {
                let progress = self.response.insert(ResponseProgress::default()).clone();
                let control = self.control.clone();
                let answer = Answer {
                    set_head,
                    control,
                    progress,
                };
                let (service, has_leftovers) = (&mut self.service, &mut self.has_leftovers);
                // on the heap, so that its size does not make the future of the other world larger
                return Box::pin(async move {
                    let service = match service {
                        Some(service) => service,
                        service => service.insert(pre.instantiate_async(&mut *store).await?),
                    };
                    let served = service::serve(store, service, request, scheme, answer);
                    *has_leftovers = !served.await?;
                    Ok(())
                })
                .await;
            }
        };
        let state = store.data_mut();
        state.set_answers_head(request.method() == Method::HEAD);
        let mut http = state.http();
        let scheme = if scheme == Scheme::HTTPS {
            ProxyScheme::Https
        } else {
            ProxyScheme::Http
        };
        let request = http.new_incoming_request(scheme, request)?;
        let out = http.new_response_outparam_from_callback(set_head)?;
        let proxy = match &mut self.proxy {
            Some(proxy) => proxy,
            proxy => {
                let created = pre.instantiate_async(&mut *store).await?;
                proxy.insert(created)
            }
        };
        proxy
            .wasi_http_incoming_handler()
            .call_handle(store, request, out)
            .await
    }

    /// Returns how the request ended as far as the guest is concerned.
    pub(super) fn end(&mut self, result: Result<&(), &wasmtime::Error>) -> GuestEnd {
        let control = &self.control;
        let state = self.store.data_mut();
        let refusal = state.limiter.refusal();
        let open_body = state
            .table()
            .iter_mut()
            .any(|entry| (entry as &dyn std::any::Any).is::<HostOutgoingBody>())
            || self
                .response
                .as_ref()
                .is_some_and(ResponseProgress::is_open);
        let failure = match result {
            Ok(()) if control.has_head() => None,
            Ok(()) => Some(FailureReason::NoResponse),
            Err(error) if classify::is_clean_exit(error) && control.has_head() && !open_body => {
                None
            }
            Err(error) => Some(classify::failure(error, refusal)),
        };
        GuestEnd {
            failure,
            unfinished: open_body || !control.has_head(),
        }
    }

    /// Returns the memory in use in bytes, with what the host keeps for the request.
    pub(super) fn memory(&self) -> u64 {
        self.store.data().limiter.used()
    }

    /// Returns the number of requests before the current one.
    pub(super) fn requests_before(&self) -> u32 {
        self.requests - 1
    }

    /// Ends the request. Returns why the instance cannot answer another one; `None` when it can.
    pub(super) fn end_request(&mut self, succeeded: bool) -> Option<DropCause> {
        let state = self.store.data_mut();
        let holds_request = state.holds_request() || self.has_leftovers;
        state.end_request();
        let memory = state.limiter.used();
        if self.requests == 1 {
            self.first_memory = memory;
        }
        let used = UsedInstance {
            requests: self.requests,
            succeeded: succeeded && !self.has_failed(),
            first_memory: self.first_memory,
            memory,
            holds_request,
        };
        self.revision.spec.reuse.drop_cause(used)
    }

    /// Returns whether the latest request has failed or lost its client. It may do so after the guest has ended.
    pub(super) fn has_failed(&self) -> bool {
        self.control.stop_reason().is_some() || self.control.client_fault().is_some()
    }

    /// Ends the instance for this cause.
    pub(super) fn drop_for(mut self, cause: DropCause) {
        self.end.cause = Some(cause);
    }

    pub(super) fn revision(&self) -> &Arc<Revision> {
        &self.revision
    }

    /// Replaces the instance by one that has answered no request.
    pub(super) fn into_fresh(self, context: &RequestContext) -> Self {
        let Self { store, code, .. } = self;
        let share = store.into_data().into_share();
        Self::create(context, code, share)
    }
}

impl Drop for InstanceEnd {
    fn drop(&mut self) {
        if let Some(cause) = self.cause {
            self.counters.instance_dropped(cause);
        }
    }
}

/// Counts an instance as live until dropped.
struct InstanceCount(Arc<RevisionCounters>);

impl InstanceCount {
    fn new(counters: &Arc<RevisionCounters>) -> Self {
        counters.instances.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }
}

impl Drop for InstanceCount {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Ordering::Relaxed);
    }
}
