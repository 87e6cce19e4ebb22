//! Baseline: wasmtime used as in its documentation, with one store, one instance and one call.

use crate::host::{self, State, to_anyhow};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;
use wasmtime::{
    Engine, InstanceAllocationStrategy,
    component::{Component, Linker},
};
use wasmtime_wasi_http::{
    WasiHttpView,
    p2::bindings::{ProxyPre, http::types::Scheme},
};

pub(super) struct Bare {
    engine: Engine,
    linker: Linker<State>,
    code: PathBuf,
    runtime: Runtime,
}

impl Bare {
    pub(super) fn new(wasm: &[u8], folder: &Path) -> Result<Self> {
        let mut config = host::config();
        config.allocation_strategy(InstanceAllocationStrategy::pooling());
        let engine = Engine::new(&config).map_err(to_anyhow)?;
        let code = folder.join("bare");
        std::fs::write(&code, engine.precompile_component(wasm).map_err(to_anyhow)?)?;
        let linker = host::linker(&engine)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            engine,
            linker,
            code,
            runtime,
        })
    }

    /// Measures the time from the file of native code to the complete body.
    pub(super) fn first(&self) -> Result<Duration> {
        let started = Instant::now();
        #[allow(unsafe_code, reason = "this program wrote the file")]
        // SAFETY: written by `new` into a folder of this process, for this very engine
        let component = unsafe { Component::deserialize_file(&self.engine, &self.code) };
        let pre = host::link(&self.linker, &component.map_err(to_anyhow)?)?;
        self.runtime.block_on(self.call(&pre))?;
        Ok(started.elapsed())
    }

    async fn call(&self, pre: &ProxyPre<State>) -> Result<()> {
        let mut store = host::store(&self.engine);
        let request = Request::get("http://localhost/").body(Empty::<Bytes>::new())?;
        let request = store
            .data_mut()
            .http()
            .new_incoming_request(Scheme::Http, request)
            .map_err(to_anyhow)?;
        let (sender, answered) = tokio::sync::oneshot::channel();
        let out = store
            .data_mut()
            .http()
            .new_response_outparam(sender)
            .map_err(to_anyhow)?;
        let guest = async {
            let proxy = pre.instantiate_async(&mut store).await?;
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut store, request, out).await
        };
        let client = async {
            let answer = answered
                .await
                .context("the guest ended without a response")?
                .map_err(|code| anyhow::anyhow!("{code:?}"))?;
            ensure!(answer.status() == 200, "{}", answer.status());
            let body = answer.into_body().collect().await;
            body.map_err(|error| anyhow::anyhow!("{error:?}"))
        };
        let (called, body) = tokio::join!(guest, client);
        called.map_err(to_anyhow)?;
        ensure!(!body?.to_bytes().is_empty(), "the response has no body");
        Ok(())
    }
}
