//! Decides whether an outbound request is sent. A denial is counted and logged, with the entry that would allow it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{Method, Request, StatusCode};
use node_shim_core::egress::{
    DenialReason, EgressOutcome, OutboundTarget, TargetError, TargetHost,
};
use node_shim_core::table::FunctionKey;
use node_shim_core::trace::TraceContext;
use wasmtime_wasi_http::{Error, WasiBody};

use super::EgressClient;
use super::call::{CallableFunctions, RequestOrigin};
use super::scope::{MAX_PER_REQUEST, RequestScope, ScopePlace};
use crate::guest_log::RequestLog;
use crate::keyed_limit::KeyedPermit;
use crate::revision::Revision;
use crate::traces::OutboundSpan;

/// Maximum number of outbound requests of one function that are in flight at the same time.
const MAX_PER_FUNCTION: u32 = 128;

/// What the outbound requests of one request need. Clones are cheap.
#[derive(Clone)]
pub(crate) struct OutboundContext {
    pub(crate) client: Arc<EgressClient>,
    pub(crate) functions: Arc<dyn CallableFunctions>,
    pub(crate) revision: Arc<Revision>,
    pub(crate) log: RequestLog,
    /// The request that the instance serves.
    pub(crate) origin: RequestOrigin,
}

/// Outbound requests of one request. They end when this is dropped.
pub(crate) struct OutboundRequests {
    context: OutboundContext,
    /// Created by the first outbound request, because most requests send none.
    scope: Option<Arc<RequestScope>>,
}

/// An outbound request that may be sent if its addresses are allowed.
pub(super) struct Admitted {
    end: UncountedEnd,
    exchange: Exchange,
}

/// What an outbound request holds while it is in flight.
pub(super) struct Exchange {
    pub(super) scope: Arc<RequestScope>,
    pub(super) target: OutboundTarget,
    pub(super) places: Places,
    /// Span of the request, if it is recorded.
    pub(super) traced: Option<TraceContext>,
}

/// The end of an outbound request, which is counted once: as cancelled when it is dropped without another outcome.
pub(super) struct UncountedEnd {
    context: OutboundContext,
    counted: bool,
    span: Option<OutboundSpan>,
}

/// Places of a request among those in flight, held until dropped.
pub(super) struct Places {
    _of_request: ScopePlace,
    _of_function: KeyedPermit<FunctionKey>,
}

impl OutboundRequests {
    pub(crate) fn new(context: OutboundContext) -> Self {
        Self {
            context,
            scope: None,
        }
    }

    pub(crate) fn revision(&self) -> &Arc<Revision> {
        &self.context.revision
    }

    /// Decides whether the request is sent.
    ///
    /// # Errors
    /// Returns the error code for the function when the request is denied.
    pub(super) fn admit(&mut self, request: &Request<WasiBody>) -> Result<Admitted, Error> {
        let context = &self.context;
        let target = OutboundTarget::new(request.uri()).map_err(|error| context.invalid(error))?;
        if request.method() == Method::CONNECT {
            context.deny(
                DenialReason::InvalidTarget,
                format!("outbound request to {target} denied: the method CONNECT is not supported"),
            );
            return Err(Error::HttpRequestMethodInvalid);
        }
        // before the entries, because no entry opens such a host
        if let TargetHost::Name(host) = &target.host
            && let Some(denied) = context.client.options.denied_hosts.find(host)
        {
            context.deny(
                DenialReason::DeniedHost,
                format!(
                    "outbound request to {target} denied: the administrator of the cluster denies {denied} to all functions \
                     (chart value nodeShim.egress.denyHosts)"
                ),
            );
            return Err(Error::HttpRequestDenied);
        }
        if !context.revision.spec.egress.permits(&target) {
            context.deny(
                DenialReason::NotAllowed,
                format!(
                    "outbound request to {target} denied: no entry of spec.egress.allow matches; to allow it, add \
                     egress.allow: [\"{}\"]",
                    target.entry()
                ),
            );
            return Err(Error::HttpRequestDenied);
        }
        let scope = self.scope.get_or_insert_default();
        let places = context.places(scope, &target)?;
        let parent = context.origin.span.as_ref();
        let span = parent.and_then(|parent| parent.outbound(request.method(), &target));
        Ok(Admitted {
            exchange: Exchange {
                scope: Arc::clone(scope),
                target,
                places,
                traced: span.as_ref().map(OutboundSpan::context),
            },
            end: UncountedEnd {
                context: context.clone(),
                counted: false,
                span,
            },
        })
    }
}

impl Drop for OutboundRequests {
    fn drop(&mut self) {
        if let Some(scope) = &self.scope {
            scope.end();
        }
    }
}

impl Admitted {
    pub(super) fn split(self) -> (UncountedEnd, Exchange) {
        (self.end, self.exchange)
    }
}

impl UncountedEnd {
    pub(super) const fn context(&self) -> &OutboundContext {
        &self.context
    }

    /// Counts a response whose head has this status.
    pub(super) fn count_response(mut self, status: StatusCode) {
        self.counted = true;
        self.context.count(EgressOutcome::Response);
        self.end_span(Some(status), None);
    }

    pub(super) fn count_failure(mut self, outcome: EgressOutcome) {
        self.counted = true;
        self.context.count(outcome);
        self.end_span(None, Some(outcome.label()));
    }

    /// The denial was counted when it was decided.
    pub(super) fn counted_as_denied(mut self) {
        self.counted = true;
        self.end_span(None, Some("denied"));
    }

    fn end_span(&mut self, status: Option<StatusCode>, failure: Option<&'static str>) {
        if let Some(span) = self.span.take() {
            let status = status.map(|status| status.as_u16());
            span.end(status, failure, &self.context.revision);
        }
    }
}

impl Drop for UncountedEnd {
    fn drop(&mut self) {
        if !self.counted {
            let outcome = EgressOutcome::Cancelled;
            self.context.count(outcome);
            self.end_span(None, Some(outcome.label()));
        }
    }
}

impl OutboundContext {
    fn invalid(&self, error: TargetError) -> Error {
        self.deny(
            DenialReason::InvalidTarget,
            format!("outbound request denied: {error}"),
        );
        match error {
            TargetError::TooLong => Error::HttpRequestUriTooLong,
            _ => Error::HttpRequestUriInvalid,
        }
    }

    fn places(&self, scope: &Arc<RequestScope>, target: &OutboundTarget) -> Result<Places, Error> {
        let Some(of_request) = scope.enter() else {
            return Err(self.at_limit(
                target,
                &format!("{MAX_PER_REQUEST} outbound requests of this request"),
            ));
        };
        let function = self.revision.function().clone();
        let Some(of_function) = self
            .client
            .in_flight
            .try_acquire(function, MAX_PER_FUNCTION)
        else {
            return Err(self.at_limit(
                target,
                &format!("{MAX_PER_FUNCTION} outbound requests of this function"),
            ));
        };
        Ok(Places {
            _of_request: of_request,
            _of_function: of_function,
        })
    }

    /// Denies a request because `what` is in flight, which is the maximum.
    pub(super) fn at_limit(&self, target: &OutboundTarget, what: &str) -> Error {
        self.deny(
            DenialReason::Limit,
            format!(
                "outbound request to {target} denied: {what} are in flight, which is the maximum"
            ),
        );
        Error::ConnectionLimitReached
    }

    /// Counts and logs a denied request. Of one function, at most one denial a second is logged.
    pub(super) fn deny(&self, reason: DenialReason, message: String) {
        let counters = &self.revision.counters;
        if let Some(count) = counters.egress_denied.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.log.denial(&message, Instant::now());
    }

    /// Counts the end of a request that was not denied.
    fn count(&self, outcome: EgressOutcome) {
        let counters = &self.revision.counters;
        if let Some(count) = counters.egress_requests.get(outcome.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
