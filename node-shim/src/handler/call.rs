//! Calls between functions of this node. A call passes through the same steps as the request of a client, without a
//! connection: the caller's task runs the called guest, and dropping the response or its future ends it.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use wasmtime_wasi_http::WasiBody;

use super::admission::admit_call;
use super::{HttpResponse, InboundBody, Sender, refuse, serve};
use crate::body::ResponseBody;
use crate::data_plane::EventLoop;
use crate::egress::{CallRefusal, FunctionCall, LocalFunctions};

impl LocalFunctions for EventLoop {
    fn call(
        self: Arc<Self>,
        call: FunctionCall,
        request: Request<WasiBody>,
    ) -> BoxFuture<'static, Result<Response<ResponseBody>, CallRefusal>> {
        async move { respond(&self, &call, request).await }.boxed()
    }
}

/// Serves a call, if the function's present record admits the caller.
async fn respond(
    event_loop: &Arc<EventLoop>,
    call: &FunctionCall,
    request: Request<WasiBody>,
) -> Result<HttpResponse, CallRefusal> {
    let began = Instant::now();
    let plane = &event_loop.plane;
    let table = plane.table();
    let called = table.by_key(&call.function);
    if !called.is_some_and(|called| called.entry.may_be_called_by(&call.caller)) {
        return Err(if call.caller.namespace == call.function.namespace {
            CallRefusal::Absent
        } else {
            CallRefusal::NotGranted
        });
    }
    let (parts, body) = request.into_parts();
    let reports = plane.reports.as_ref();
    let mut open =
        reports.and_then(|reports| reports.open_call(call.traced.as_ref(), &parts, began));
    let admitted = admit_call(plane, &table, call, &parts, began, &mut open).await;
    // like a request of a client, the call does not keep the table while its guest runs
    drop(table);
    let mut answer = match admitted {
        Ok(admitted) => {
            let (sender, body) = (Sender::Function(call), InboundBody::Function(body));
            serve(event_loop, &sender, admitted, parts, body, None).await
        }
        Err(refused) => refuse(plane, refused, None, open),
    };
    answer.body_mut().delivered();
    Ok(answer)
}
