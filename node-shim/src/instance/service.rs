//! Call of a guest of the world `wasi:http/service`, whose handler returns its response and may write the body afterwards.
//!
//! The future of a call is polled, measured and stopped like that of any guest: all tasks of the guest run inside of
//! `run_concurrent`, on the same event loop as the request, and a guest that computes gives way at each epoch.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::{self, FutureExt, Shared};
use http::Request;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{Error, FieldMap, WasiBody, WasiHttpView, p3};

use super::call::GuestHead;
use super::control::GuestControl;
use super::wasi_context::GuestState;

/// How far the response of a guest has come. Shared by the guest and the reader of the body.
#[derive(Clone, Default)]
pub(super) struct ResponseProgress {
    state: Arc<ProgressState>,
}

#[derive(Default)]
struct ProgressState {
    /// Whether the reader of the body still expects something of the guest.
    open: AtomicBool,
    /// Whether the guest ended while the body was open.
    abandoned: AtomicBool,
}

/// Records that the guest has ended, when dropped. The store and with it the streams of the body are dropped later.
struct EndOfGuest(ResponseProgress);

/// A response body of a guest. When the guest ends early, it does not end as if it were complete.
struct ServiceBody {
    inner: WasiBody,
    control: Arc<GuestControl>,
    progress: ResponseProgress,
    /// Tells the guest whether the response was read to its end. `None` after that.
    delivered: Option<oneshot::Sender<bool>>,
}

/// Becomes ready when the body of the response needs the guest no longer. The value is whether it was read to its end.
type Delivery = Shared<oneshot::Receiver<bool>>;

/// Calls the handler. Returns when all tasks of the guest have ended and its body was read or dropped. The value is whether
/// the guest has left nothing of the call that could concern the next one.
pub(super) async fn serve<B>(
    store: &mut Store<GuestState>,
    service: &Service,
    request: Request<B>,
    scheme: Scheme,
    answer: Answer<impl FnOnce(GuestHead) + Send>,
) -> wasmtime::Result<bool>
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let request = guest_request(store, request, scheme);
    let handler = *service.wasi_http_handler().func_handle().func();
    let _end = EndOfGuest(answer.progress.clone());
    let served = store.run_concurrent(async |guest| {
        let delivery = answer.respond(guest, service, request).await?;
        let tasks = future::poll_fn(|cx| guest.poll_no_interesting_tasks(cx));
        match delivery {
            Some(delivery) => {
                // either result ends the response
                let _ = future::join(tasks, delivery).await;
            }
            None => tasks.await,
        }
        // a guest that has raised its backpressure would make the next call wait
        let accepts_calls =
            |cx: &mut Context<'_>| guest.poll_ready_for_concurrent_call(handler, cx).is_ready();
        let accepts_calls = future::poll_fn(|cx| Poll::Ready(accepts_calls(cx))).await;
        Ok::<_, wasmtime::Error>(accepts_calls)
    });
    let accepts_calls = served.await??;
    // The table holds pending host calls, streams, futures and waitable sets. While it is not empty, work may be left in the
    // event loop. wasmtime has no other function that finds that, although it has this one for its own tests.
    Ok(accepts_calls && store.concurrent_state_table_size() == 0)
}

/// Where the response of a guest goes.
pub(super) struct Answer<F> {
    pub(super) set_head: F,
    pub(super) control: Arc<GuestControl>,
    pub(super) progress: ResponseProgress,
}

impl<F: FnOnce(GuestHead) + Send> Answer<F> {
    /// Calls the handler, and passes its response on. Returns `None` when the guest returned an error code.
    async fn respond(
        self,
        guest: &Accessor<GuestState>,
        service: &Service,
        request: p3::Request,
    ) -> wasmtime::Result<Option<Delivery>> {
        let response = match service.handle(guest, request).await? {
            Ok(response) => response,
            Err(code) => {
                let code = ErrorCode::InternalError(Some(format!("{code:?}")));
                (self.set_head)(Err(code));
                return Ok(None);
            }
        };
        let (delivered, delivery) = oneshot::channel();
        let delivery = delivery.shared();
        let sent = {
            let delivery = delivery.clone();
            async move {
                match delivery.await {
                    Ok(true) => Ok(()),
                    _ => Err(Error::ConnectionTerminated),
                }
            }
        };
        let response = guest.with(|store| response.into_http(store, sent))?;
        self.progress.state.open.store(true, Ordering::Release);
        let body = |inner| ServiceBody {
            inner,
            control: self.control,
            progress: self.progress,
            delivered: Some(delivered),
        };
        (self.set_head)(Ok(response.map(|inner| body(inner).boxed_unsync())));
        Ok(Some(delivery))
    }
}

/// Returns the request as the guest sees it.
fn guest_request<B>(
    store: &mut Store<GuestState>,
    request: Request<B>,
    scheme: Scheme,
) -> p3::Request
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let uri = parts.uri.into_parts();
    let host = || Authority::try_from(parts.headers.get(HOST)?.as_bytes()).ok();
    let authority = uri.authority.or_else(host);
    let headers = FieldMap::new_immutable(store.data_mut().http().hooks, parts.headers);
    let target = uri.path_and_query;
    // what the guest reports about the body is of no use: its response decides
    let (request, _) = p3::Request::new(
        parts.method,
        Some(scheme),
        authority,
        target,
        headers,
        None,
        body,
    );
    request
}

impl ResponseProgress {
    /// Returns whether the reader of the body still expects something of the guest.
    pub(super) fn is_open(&self) -> bool {
        self.state.open.load(Ordering::Acquire)
    }
}

impl Drop for EndOfGuest {
    fn drop(&mut self) {
        let progress = &self.0;
        progress
            .state
            .abandoned
            .store(progress.is_open(), Ordering::Release);
    }
}

impl ServiceBody {
    fn end(&mut self, complete: bool) {
        self.progress.state.open.store(false, Ordering::Release);
        if let Some(delivered) = self.delivered.take() {
            // the receiver is gone when the guest has ended
            let _ = delivered.send(complete);
        }
    }
}

impl Body for ServiceBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
            Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
            last => last,
        };
        if this.progress.state.abandoned.load(Ordering::Acquire) {
            // the streams ended with their store; the reader knows the reason from the end of the guest
            return Poll::Ready(match this.control.guest_end() {
                Some(_) => None,
                None => Some(Err(Error::HttpResponseIncomplete)),
            });
        }
        this.end(frame.as_ref().is_none_or(Result::is_ok));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        !self.progress.is_open()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for ServiceBody {
    fn drop(&mut self) {
        self.end(false);
    }
}
