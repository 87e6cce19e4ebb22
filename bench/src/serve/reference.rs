//! A minimal host whose pool is configured like that of the node-shim, without validation, routes, limits, counters and
//! zeroed stacks. The cost of a request here is the cost of hyper, wasmtime and the kernel on this machine.

use crate::host::{self, State, to_anyhow};
use anyhow::{Context, Result};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, path::Path, sync::Arc};
use tokio::sync::oneshot;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::Component,
};
use wasmtime_wasi_http::{
    Error, WasiHttpView,
    p2::bindings::{ProxyPre, http::types::Scheme},
};

struct Host {
    engine: Engine,
    pre: ProxyPre<State>,
}

/// Serves a component and passes its address to `announce`.
///
/// # Errors
/// Returns an error when the component does not compile or no address can be bound.
pub(crate) async fn run_reference(file: &Path, announce: impl FnOnce(SocketAddr)) -> Result<()> {
    let engine = Engine::new(&config()).map_err(to_anyhow)?;
    let component = Component::from_file(&engine, file).map_err(to_anyhow)?;
    let pre = host::link(&host::linker(&engine)?, &component)?;
    let host = Arc::new(Host { engine, pre });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    announce(listener.local_addr()?);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            let answer = service_fn(|request| host.answer(request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.max_unused_warm_slots(1_000);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes)
            .linear_memory_keep_resident(1 << 20)
            .table_keep_resident(64 << 10);
    }
    let mut config = host::config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

impl Host {
    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<bytes::Bytes, Error>>> {
        let mut store = host::store(&self.engine);
        let request = store
            .data_mut()
            .http()
            .new_incoming_request(Scheme::Http, request)
            .map_err(to_anyhow)?;
        let (sender, answered) = oneshot::channel();
        let out = store
            .data_mut()
            .http()
            .new_response_outparam(sender)
            .map_err(to_anyhow)?;
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let proxy = host.pre.instantiate_async(&mut store).await?;
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut store, request, out).await
        });
        answered
            .await
            .context("the guest ended without a response")?
            .map_err(|code| anyhow::anyhow!("{code:?}"))
    }
}
