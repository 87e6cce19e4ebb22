//! Sends an admitted request: finds the addresses, gets a connection, and waits for the head of the response.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use node_shim_core::egress::{
    self as rules, AddressRefusal, DenialReason, EgressOutcome, OutboundTarget, TargetHost,
};
use node_shim_core::trace::TraceContext;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::admission::{Admitted, Exchange, OutboundContext, OutboundRequests};
use super::call::call;
use super::connect;
use super::download::{Lease, ResponseStream};
use super::failure::{Failure, body_error};
use super::network::ResolveError;
use super::pool::{Connected, ConnectionKey, Sender};
use super::upload::{RequestStream, Upload};

/// Maximum number of addresses of a name that are considered.
const MAX_ADDRESSES: usize = 16;
/// Maximum number of attempts to send a request that no server has seen yet.
const MAX_ATTEMPTS: usize = 3;

/// Why no response arrived.
pub(super) enum Ended {
    /// The request was denied, which is counted and logged.
    Denied(Error),
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Times that apply to one request.
#[derive(Clone, Copy)]
struct Timeouts {
    resolve: Duration,
    connect: Duration,
    first_byte: Duration,
    idle: Duration,
}

impl OutboundRequests {
    /// Sends a request, or returns the error code of a denied one. The future is dropped with the instance.
    pub(crate) fn send(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> impl Future<Output = Result<Response<WasiBody>, Error>> + Send + use<> {
        // decided at once, so that the order of the calls decides about the last place
        let admitted = self.admit(&request);
        async move { exchange(admitted?, request, options.unwrap_or_default()).await }
    }
}

async fn exchange(
    admitted: Admitted,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Error> {
    let (end, exchange) = admitted.split();
    let result = run(end.context(), exchange, request, options).await;
    match result {
        Ok(response) => {
            end.count_response(response.status());
            Ok(response)
        }
        Err(Ended::Failed(failure)) => {
            end.count_failure(failure.outcome);
            Err(failure.error)
        }
        Err(Ended::Denied(error)) => {
            end.counted_as_denied();
            Err(error)
        }
    }
}

async fn run(
    context: &OutboundContext,
    exchange: Exchange,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Ended> {
    if let TargetHost::Function(function) = &exchange.target.host {
        let function = function.clone();
        return call(context, function, exchange, request, options).await;
    }
    let Exchange {
        scope,
        target,
        places,
        traced,
    } = exchange;
    let timeouts = Timeouts::new(context, &options);
    let addresses = context.addresses(&target, timeouts.resolve).await?;
    let keys = connect::keys(&context.revision, &target, &addresses);
    let (parts, body) = request.into_parts();
    let (stream, upload) = RequestStream::new(body, scope, declared_length(&parts.headers));
    let request = Request::from_parts(parts, stream);
    let sending = Sending {
        context,
        target: &target,
        keys: &keys,
        timeouts,
        trace: traced.as_ref().unwrap_or(&context.origin.trace),
    };
    let (response, connected) = sending.head(request, &upload).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let failure = Failure::new(EgressOutcome::Broken, Error::HttpUpgradeFailed);
        return Err(failure.into());
    }
    let (mut parts, body) = response.into_parts();
    rules::rewrite_response(&mut parts.headers);
    let pool = Arc::clone(&context.client.pool);
    let lease = Lease::of_connection(connected, pool, upload, places);
    let body = body.map_err(|error| body_error(&error));
    let body = ResponseStream::new(body, lease, timeouts.idle).boxed_unsync();
    Ok(Response::from_parts(parts, body))
}

impl Timeouts {
    /// Returns the times of the node, or shorter ones that the function chose.
    fn new(context: &OutboundContext, options: &RequestOptions) -> Self {
        let node = &context.client.options;
        Self {
            resolve: shorter(node.resolve_timeout, options.connect_timeout),
            connect: shorter(node.connect_timeout, options.connect_timeout),
            first_byte: shorter(node.first_byte_timeout, options.first_byte_timeout),
            idle: context.idle(options),
        }
    }
}

fn shorter(most: Duration, chosen: Option<Duration>) -> Duration {
    chosen.unwrap_or(most).min(most)
}

/// Returns the declared length of a body in bytes.
pub(super) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Waits for a response. Returns `None` when it takes longer than `first_byte` after the last part of the request.
pub(super) async fn within<T>(
    first_byte: Duration,
    response: impl Future<Output = T>,
    upload: &Upload,
) -> Option<T> {
    let mut response = pin!(response);
    loop {
        let Some(end) = upload.progressed().checked_add(first_byte) else {
            return Some(response.await);
        };
        if let Ok(response) = timeout_at(end, response.as_mut()).await {
            return Some(response);
        }
        if upload.progressed() + first_byte <= Instant::now() {
            return None;
        }
    }
}

impl OutboundContext {
    /// Returns the maximum time between two parts of a response.
    pub(super) fn idle(&self, options: &RequestOptions) -> Duration {
        let most = self.revision.spec.limits.idle;
        shorter(most, options.between_bytes_timeout)
    }

    /// Returns the addresses of the target that may be connected to.
    async fn addresses(
        &self,
        target: &OutboundTarget,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, Ended> {
        let options = &self.client.options;
        let found = match &target.host {
            TargetHost::Address(address) => vec![*address],
            TargetHost::Name(name) => {
                let mut resolved = options.resolved.iter();
                if let Some(address) = resolved.find_map(|host| host.address_of(name)) {
                    return Ok(vec![address]);
                }
                timeout(limit, options.network.resolve(name))
                    .await
                    .unwrap_or(Err(ResolveError::Timeout))
                    .map_err(Failure::dns)?
            }
            // called on this node
            TargetHost::Function(_) => Vec::new(),
        };
        let allow = &self.revision.spec.egress;
        let floor = &options.floor;
        let mut allowed = Vec::new();
        let mut refused = None;
        for address in found.into_iter().take(MAX_ADDRESSES) {
            match allow.check_address(target, address, floor) {
                Ok(()) => allowed.push(SocketAddr::new(address, target.port)),
                Err(refusal) => refused = refused.or(Some((address, refusal))),
            }
        }
        match refused {
            Some((address, refusal)) if allowed.is_empty() => {
                self.deny(
                    DenialReason::Address,
                    address_message(target, address, refusal),
                );
                Err(Ended::Denied(Error::DestinationIpProhibited))
            }
            None if allowed.is_empty() => Err(Failure::dns(ResolveError::NotFound).into()),
            _ => Ok(allowed),
        }
    }

    /// Returns a place among the connections of the node. Idle connections give way.
    fn connection_place(&self, target: &OutboundTarget) -> Result<OwnedSemaphorePermit, Ended> {
        let acquire = || Arc::clone(&self.client.connections).try_acquire_owned();
        acquire()
            .or_else(|_| {
                self.client.pool.close_idle();
                acquire()
            })
            .map_err(|_| {
                let what = "all connections that this node opens for functions";
                Ended::Denied(self.at_limit(target, what))
            })
    }
}

/// Returns the line for the log of the function about an address that may not be reached.
fn address_message(target: &OutboundTarget, address: IpAddr, refusal: AddressRefusal) -> String {
    let denied =
        format!("outbound request to {target} denied: it leads to {address}, and {refusal}");
    if refusal != AddressRefusal::Private {
        return denied;
    }
    let entry = rules::EgressEntry::for_address(target.scheme, address, target.port);
    format!("{denied}; to allow it, add egress.allow: [\"{entry}\"]")
}

/// A request that is ready to be sent to one of several addresses.
struct Sending<'a> {
    context: &'a OutboundContext,
    target: &'a OutboundTarget,
    keys: &'a [ConnectionKey],
    timeouts: Timeouts,
    /// Trace that the request passes on.
    trace: &'a TraceContext,
}

type Attempt = Result<Response<Incoming>, TrySendError<Request<RequestStream>>>;

impl Sending<'_> {
    /// Returns the head of the response. A request that could not be sent, because a kept connection ended at that
    /// moment, is sent again on another one.
    async fn head(
        &self,
        mut request: Request<RequestStream>,
        upload: &Upload,
    ) -> Result<(Response<Incoming>, Connected), Ended> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut connected = self.connection(attempt).await?;
            self.address(&mut request, &connected.sender)?;
            upload.restart();
            let sent = self.attempt(&mut connected, request, upload).await;
            let mut error = match sent {
                None => {
                    let error = Error::HttpResponseTimeout;
                    return Err(Failure::new(EgressOutcome::Timeout, error).into());
                }
                Some(Ok(response)) => return Ok((response, connected)),
                Some(Err(error)) => error,
            };
            match error.take_message() {
                Some(unsent) if connected.reused && attempt < MAX_ATTEMPTS => request = unsent,
                _ => {
                    let failure = Failure::exchange(error.error());
                    let error = upload.wrong_size().unwrap_or(failure.error);
                    return Err(Failure::new(failure.outcome, error).into());
                }
            }
        }
    }

    /// Returns a kept connection, or a new one. The last attempt uses a new one.
    async fn connection(&self, attempt: usize) -> Result<Connected, Ended> {
        let client = &self.context.client;
        let kept = self.keys.iter().filter(|_| attempt < MAX_ATTEMPTS);
        for key in kept {
            if let Some(mut connected) = client.pool.take(key)
                && connected.is_ready(self.timeouts.connect).await
            {
                return Ok(connected);
            }
        }
        let place = self.context.connection_place(self.target)?;
        let authorities = self.context.revision.spec.authorities.as_deref();
        let connected = client.connect(self.keys, authorities, self.timeouts.connect, place);
        Ok(connected.await?)
    }

    /// Sends the request and waits for the head of the response. Returns `None` when that takes too long after the last
    /// part of the request.
    async fn attempt(
        &self,
        connected: &mut Connected,
        request: Request<RequestStream>,
        upload: &Upload,
    ) -> Option<Attempt> {
        let limit = self.timeouts.first_byte;
        match &mut connected.sender {
            Sender::Http1(sender) => within(limit, sender.try_send_request(request), upload).await,
            Sender::Http2(sender) => within(limit, sender.try_send_request(request), upload).await,
        }
    }

    /// Sets what differs between the protocols (the form of the target, and the fields of the connection), and what the
    /// request passes on from the one that the function serves.
    fn address(
        &self,
        request: &mut Request<RequestStream>,
        sender: &Sender,
    ) -> Result<(), Failure> {
        let http2 = matches!(sender, Sender::Http2(_));
        let uri = if http2 {
            self.target.absolute().ok()
        } else {
            Uri::builder()
                .path_and_query(self.target.path.clone())
                .build()
                .ok()
        };
        let invalid = || Failure::new(EgressOutcome::Broken, Error::HttpRequestUriInvalid);
        *request.uri_mut() = uri.ok_or_else(invalid)?;
        let (headers, origin) = (request.headers_mut(), &self.context.origin);
        rules::rewrite_request(headers, &self.target.authority(), http2);
        self.trace.propagate(headers);
        let host = self.target.host.to_string();
        let key = &self.context.client.hop_key;
        if let Some(signed) = key.signed(origin.hops.next(), &host) {
            signed.write(headers);
        }
        Ok(())
    }
}
