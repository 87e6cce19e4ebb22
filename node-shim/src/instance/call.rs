//! Call of the guest: calls the handler of a fresh or a used instance, reports how that ended, and keeps the instance if
//! it can answer another request.

use std::sync::Arc;

use http::uri::Scheme;
use http::{Request, Response};
use node_shim_core::failure_reason::FailureReason;
use node_shim_core::instance_reuse::FailedRun;
use tokio::sync::oneshot;
use tokio::time::Instant;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::control::{GuestControl, GuestEnd, Stopped};
use super::idle::IdleInstances;
use super::preempted::PreemptedGuests;
use super::retained::{ResponseHead, RetainedBody};
use super::reusable::{InstanceParts, ReusableInstance};
use super::wasi_context::RequestResources;
use crate::body::RequestBody;
use crate::concurrency_limit::Permit;
use crate::egress::OutboundContext;
use crate::guest_log::RequestLog;
use crate::key_value::KeyValueStores;
use crate::node_counters::NodeCounters;
use crate::revision::Revision;
use crate::traces::GuestSpan;

pub(crate) type GuestHead = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// When a guest has to end, and why it is stopped then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) reason: FailureReason,
}

/// Everything that the call of a guest needs. The permits are returned when the guest ends.
pub(crate) struct GuestCall {
    pub(crate) revision: Arc<Revision>,
    pub(crate) instance: InstanceSource,
    pub(crate) request: Request<RequestBody>,
    pub(crate) scheme: Scheme,
    pub(crate) control: Arc<GuestControl>,
    pub(crate) deadline: Deadline,
    pub(crate) log: RequestLog,
    pub(crate) head: oneshot::Sender<GuestHead>,
    pub(crate) permit: Permit,
    /// `None` when the revision has no key-value stores.
    pub(crate) key_value: Option<Arc<KeyValueStores>>,
    pub(crate) outbound: OutboundContext,
    pub(crate) preempted: Arc<PreemptedGuests>,
    pub(crate) idle: Arc<IdleInstances>,
    pub(crate) counters: Arc<NodeCounters>,
    /// `None` when the request is not recorded for traces.
    pub(crate) span: Option<GuestSpan>,
}

/// The instance that answers a request.
pub(crate) enum InstanceSource {
    /// One that is created for it.
    Fresh(InstanceParts),
    /// One that has answered others.
    Used(Box<ReusableInstance>),
}

/// What an instance needs to answer one request.
pub(super) struct RequestContext {
    pub(super) revision: Arc<Revision>,
    pub(super) control: Arc<GuestControl>,
    pub(super) resources: RequestResources,
    pub(super) counters: Arc<NodeCounters>,
    idle: Arc<IdleInstances>,
    https: bool,
}

/// An instance whose handler has returned, or failed.
struct Finished {
    instance: ReusableInstance,
    result: wasmtime::Result<()>,
}

/// Runs the handler and reports how it ended before the instance is dropped, because the reader of the body
/// needs the result when the body ends.
pub(super) async fn call(call: GuestCall) {
    let GuestCall {
        revision,
        instance,
        request,
        scheme,
        control,
        deadline: _,
        log,
        head,
        permit,
        key_value,
        outbound,
        preempted: _,
        idle,
        counters,
        span: _,
    } = call;
    if let Some(reason) = control.stop_reason() {
        // nothing needs a guest any longer that has waited for its first turn on another thread
        if !control.is_dismissed() {
            log.failure(reason, &Stopped(reason).into());
        }
        drop(instance);
        return control.end(GuestEnd::failed(reason));
    }
    let head = ResponseHead::new(head, control.clone());
    // Dropped after the instance, and before the head: a request that gets no response waits for that of its head.
    let _permit = permit;
    let context = RequestContext {
        revision,
        control,
        resources: RequestResources {
            log,
            key_value,
            outbound,
        },
        idle,
        counters,
        https: scheme == Scheme::HTTPS,
    };
    let fresh = matches!(instance, InstanceSource::Fresh(_));
    let Finished {
        mut instance,
        result,
    } = match instance {
        InstanceSource::Fresh(parts) => {
            let instance = ReusableInstance::new(&context, parts);
            context.run_fresh(instance, request, &head).await
        }
        InstanceSource::Used(used) => context.run_used(*used, request, &head).await,
    };
    let ending = instance.end(result.as_ref());
    context.log_failure(&result, ending.failure);
    context.revision.counters.memory_peak(instance.memory());
    if fresh && !context.revision.reuses_instances() {
        let used = context.control.meter.used();
        context.revision.code.record_guest(used, instance.memory());
    }
    context.control.end(ending);
    let returned = result.is_ok() && ending.failure.is_none() && !ending.unfinished;
    context.idle.keep(instance, returned && !head.is_error());
}

impl RequestContext {
    async fn run_fresh(
        &self,
        mut instance: ReusableInstance,
        request: Request<RequestBody>,
        head: &ResponseHead,
    ) -> Finished {
        let head = head.clone();
        let set_head = move |answer| head.set(answer);
        let result = instance.handle(request, self.scheme(), set_head).await;
        Finished { instance, result }
    }

    /// Runs the handler of a used instance. A request that fails there before anything is lost runs again on a fresh one,
    /// within the time that it has left.
    async fn run_used(
        &self,
        mut instance: ReusableInstance,
        request: Request<RequestBody>,
        head: &ResponseHead,
    ) -> Finished {
        let (parts, body) = request.into_parts();
        let (body, reader) = RetainedBody::new(body);
        instance.begin_request(self);
        let set_head = {
            let (head, body) = (head.clone(), body.clone());
            move |answer| head.set_or_retain(answer, &body)
        };
        let request = Request::from_parts(parts.clone(), reader);
        let result = instance.handle(request, self.scheme(), set_head).await;
        let rerun = self.reason_to_run_again(&mut instance, &result, &body);
        if self.revision.count_reuse(rerun.is_some()) {
            self.idle.forget(&self.revision);
        }
        if let Some(reason) = rerun
            && let Some(body) = body.take()
        {
            self.log_failure(&result, Some(reason));
            let before = instance.requests_before();
            self.resources.log.rerun(reason, before);
            self.counters.ran_again();
            head.forget_retained();
            let request = Request::from_parts(parts, body);
            let fresh = instance.into_fresh(self);
            return self.run_fresh(fresh, request, head).await;
        }
        head.send_retained();
        body.release();
        Finished { instance, result }
    }

    fn reason_to_run_again(
        &self,
        instance: &mut ReusableInstance,
        result: &wasmtime::Result<()>,
        body: &RetainedBody<RequestBody>,
    ) -> Option<FailureReason> {
        let reason = instance.end(result.as_ref()).failure?;
        let failed = FailedRun {
            reason,
            requests_before: instance.requests_before(),
            head_set: self.control.has_head(),
            body_read: body.is_read(),
        };
        (failed.runs_again() && !instance.has_failed()).then_some(reason)
    }

    /// Logs a failure, unless the request is not needed any longer.
    fn log_failure(&self, result: &wasmtime::Result<()>, reason: Option<FailureReason>) {
        if let (Err(error), Some(reason)) = (result, reason)
            && !self.control.is_dismissed()
        {
            self.resources.log.failure(reason, error);
        }
    }

    fn scheme(&self) -> Scheme {
        if self.https {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }
}
