//! Call of the guest: creates the store and the instance and calls the handler.

use std::sync::Arc;

use http::Request;
use http::uri::Scheme as UriScheme;
use node_shim_core::failure_reason::FailureReason;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, HyperOutgoingBody};

use super::classify;
use super::control::{GuestControl, GuestEnd};
use super::preempted::PreemptedGuests;
use super::wasi_context::{GuestState, MAX_HANDLES};
use crate::body::RequestBody;
use crate::code_cache::CodeInUse;
use crate::concurrency_limit::Permit;
use crate::egress::OutboundContext;
use crate::engine::{Engine, LinkedComponent};
use crate::guest_log::RequestLog;
use crate::instance_budget::InstanceShare;
use crate::key_value::KeyValueStores;
use crate::revision::Revision;

/// Maximum memory in bytes that one host call may allocate for the guest.
const HOSTCALL_BYTES: usize = 16 << 20;

pub(crate) type GuestHead = Result<http::Response<HyperOutgoingBody>, ErrorCode>;

/// When a guest has to end, and why it is stopped then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) reason: FailureReason,
}

/// Everything that the call of a guest needs. The permits are returned when the guest ends.
pub(crate) struct GuestCall {
    pub(crate) engine: Engine,
    pub(crate) revision: Arc<Revision>,
    pub(crate) code: CodeInUse,
    pub(crate) request: Request<RequestBody>,
    pub(crate) scheme: UriScheme,
    pub(crate) control: Arc<GuestControl>,
    pub(crate) deadline: Deadline,
    pub(crate) log: RequestLog,
    pub(crate) head: oneshot::Sender<GuestHead>,
    pub(crate) permit: Permit,
    pub(crate) share: InstanceShare,
    /// `None` when the revision has no key-value stores.
    pub(crate) key_value: Option<Arc<KeyValueStores>>,
    pub(crate) outbound: OutboundContext,
    pub(crate) preempted: Arc<PreemptedGuests>,
}

/// Runs the handler and reports how it ended before the store is dropped, because the reader of the body
/// needs the result when the body ends.
pub(super) async fn call(call: GuestCall) {
    let GuestCall {
        engine,
        revision,
        code,
        request,
        scheme,
        control,
        deadline: _,
        log,
        head,
        permit: _permit,
        share,
        key_value,
        outbound,
        preempted,
    } = call;
    // dropped before the permits
    let state = GuestState::new(&revision, &log, share, key_value, outbound);
    let mut store = Store::new(engine.wasmtime(), state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(MAX_HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback({
        let (control, revision) = (control.clone(), revision.clone());
        move |_| {
            control.check()?;
            let turn = preempted.turn(revision.function(), control.clone());
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(turn)))
        }
    });
    let result = handle(&mut store, &code.loaded, request, scheme, &control, head).await;
    let ending = classify(&mut store, &control, result.as_ref());
    if let (Err(error), Some(reason)) = (&result, ending.failure)
        && !control.is_dismissed()
    {
        log.failure(reason, error);
    }
    revision.counters.memory_peak(store.data().limiter.used());
    control.end(ending);
}

async fn handle(
    store: &mut Store<GuestState>,
    code: &LinkedComponent,
    request: Request<RequestBody>,
    scheme: UriScheme,
    control: &Arc<GuestControl>,
    head: oneshot::Sender<GuestHead>,
) -> wasmtime::Result<()> {
    let scheme = if scheme == UriScheme::HTTPS {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let request = store
        .data_mut()
        .http()
        .new_incoming_request(scheme, request)?;
    let head_control = control.clone();
    let out = store
        .data_mut()
        .http()
        .new_response_outparam_from_callback(move |answer| {
            head_control.set_head();
            // the receiver is gone when the client has disconnected
            let _ = head.send(answer);
        })?;
    let proxy = code.pre.instantiate_async(&mut *store).await?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(store, request, out)
        .await
}

fn classify(
    store: &mut Store<GuestState>,
    control: &GuestControl,
    result: Result<&(), &wasmtime::Error>,
) -> GuestEnd {
    let refusal = store.data().limiter.refusal();
    let open_body = store
        .data_mut()
        .table()
        .iter_mut()
        .any(|entry| (entry as &dyn std::any::Any).is::<HostOutgoingBody>());
    let failure = match result {
        Ok(()) if control.has_head() => None,
        Ok(()) => Some(FailureReason::NoResponse),
        Err(error) if classify::is_clean_exit(error) && control.has_head() && !open_body => None,
        Err(error) => Some(classify::failure(error, refusal)),
    };
    GuestEnd {
        failure,
        unfinished: open_body || !control.has_head(),
    }
}
