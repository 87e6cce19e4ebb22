//! Minimal wasmtime host for `wasi:http`, the baseline of the comparisons.

use anyhow::Result;
use hyper::{Request, Response};
use wasmtime::{
    Config, Store,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView, p2};
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    p2::{add_only_http_to_linker_async, bindings::ProxyPre},
};

/// Host state of one instance.
pub(crate) struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: NoCalls,
    table: ResourceTable,
}

struct NoCalls;

type Sent = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for NoCalls {
    fn send_request(
        &mut self,
        _request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

/// Returns the settings common to all engines: no garbage collection and no asynchronous components.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config.gc_support(false).concurrency_support(false);
    config
}

/// Returns a store for one request.
pub(crate) fn store(engine: &wasmtime::Engine) -> Store<State> {
    let state = State {
        wasi: WasiCtx::builder().build(),
        http: WasiHttpCtx::new(),
        hooks: NoCalls,
        table: ResourceTable::new(),
    };
    Store::new(engine, state)
}

/// Returns a linker with all offered imports.
pub(crate) fn linker(engine: &wasmtime::Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    p2::add_to_linker_async(&mut linker).map_err(to_anyhow)?;
    add_only_http_to_linker_async(&mut linker).map_err(to_anyhow)?;
    Ok(linker)
}

/// Links a component, so that it is ready to be instantiated.
pub(crate) fn link(linker: &Linker<State>, component: &Component) -> Result<ProxyPre<State>> {
    linker
        .instantiate_pre(component)
        .and_then(ProxyPre::new)
        .map_err(to_anyhow)
}

/// Converts wasmtime's error type.
pub(crate) fn to_anyhow(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}
