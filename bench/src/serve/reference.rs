//! A small host with the pool tuned as the node-shim's and nothing else: no gate, no routes, no limits, no counters,
//! no zeroed stacks. What a request costs here is what hyper, wasmtime and the kernel of this machine cost.

use crate::host::{self, State, said};
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

/// Serves a component; `say` hears the address.
///
/// # Errors
/// The component does not compile, or no address can be bound.
pub(crate) async fn run_reference(file: &Path, say: impl FnOnce(SocketAddr)) -> Result<()> {
    let engine = Engine::new(&config()).map_err(said)?;
    let component = Component::from_file(&engine, file).map_err(said)?;
    let pre = host::link(&host::linker(&engine)?, &component)?;
    let host = Arc::new(Host { engine, pre });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    say(listener.local_addr()?);
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
            .map_err(said)?;
        let (sender, answered) = oneshot::channel();
        let out = store
            .data_mut()
            .http()
            .new_response_outparam(sender)
            .map_err(said)?;
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let proxy = host.pre.instantiate_async(&mut store).await?;
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut store, request, out).await
        });
        answered
            .await
            .context("no answer")?
            .map_err(|code| anyhow::anyhow!("{code:?}"))
    }
}
