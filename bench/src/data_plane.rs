//! A data plane in this process, and requests to it.

use crate::serve::complete;
use anyhow::{Context, Result, ensure};
use node_shim::{
    counters::CounterTable,
    data_plane::{DataPlane, DataPlaneOptions},
    engine::{Engine, EngineOptions},
    guest_log::GuestLog,
    node_counters::NodeCounters,
    revision::{Revision, RevisionSpec},
    routing_table::{RevisionSlot, RoutingTable, ServedFunction},
};
use node_shim_core::egress::AllowList;
use node_shim_core::instance_reuse::ReusePolicy;
use node_shim_core::table::{
    FunctionEntry, FunctionKey, Limits, RevisionName, Route, TrafficSplit,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
};

/// A data plane without limits on clients and on concurrent requests.
pub(crate) struct LocalDataPlane {
    pub(crate) counters: Arc<CounterTable>,
    engine: Engine,
    plane: DataPlane,
}

impl LocalDataPlane {
    pub(crate) fn start() -> Result<Self> {
        let engine = Engine::new(&EngineOptions::default())?;
        let counters = CounterTable::new();
        let plane = DataPlane::start(
            TcpListener::bind("127.0.0.1:0")?,
            engine.clone(),
            DataPlaneOptions {
                max_per_peer: u32::MAX,
                // the other cores are for the clients
                ..DataPlaneOptions::with_threads(Some(NonZeroUsize::MIN))
            },
            counters.clone(),
            Arc::new(NodeCounters::default()),
            GuestLog::start("bench", Box::new(std::io::sink()))?,
        )?;
        plane.open()?;
        Ok(Self {
            counters,
            engine,
            plane,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.plane.address()
    }

    /// Compiles a component as a revision of the function `f` in `namespace`.
    pub(crate) fn revision(
        &self,
        namespace: &str,
        name: &str,
        guest: &Path,
    ) -> Result<Arc<Revision>> {
        let wasm = std::fs::read(guest).with_context(|| guest.display().to_string())?;
        let code = self.engine.compile_in_process(&wasm)?;
        Ok(Revision::new(spec(namespace, name)?, code, &self.counters)?)
    }

    /// Maps native code as the only revision of the function `f` in `namespace`.
    pub(crate) fn load(&self, namespace: &str, code: &Path) -> Result<Arc<Revision>> {
        let code = self.engine.load(code)?;
        Ok(Revision::new(
            spec(namespace, "only")?,
            code,
            &self.counters,
        )?)
    }

    pub(crate) fn publish(&self, functions: Vec<ServedFunction>) {
        self.plane
            .publish(Arc::new(RoutingTable::new(1, functions)));
    }
}

/// Returns a revision of the function `f` in `namespace` that may do nothing but respond.
pub(crate) fn spec(namespace: &str, name: &str) -> Result<RevisionSpec> {
    Ok(RevisionSpec {
        function: FunctionKey::new(namespace, "f"),
        name: RevisionName::new(name).context("an invalid name of a revision")?,
        limits: Limits {
            concurrency: 1_000,
            ..Limits::default()
        },
        env: Vec::new(),
        config: Vec::new(),
        key_value: Vec::new(),
        egress: AllowList::default(),
        authorities: None,
        reuse: ReusePolicy::default(),
    })
}

/// Returns a function that serves the host `NAMESPACE.example`. `candidate` comes with its weight in 1/10,000.
pub(crate) fn function(
    stable: &Arc<Revision>,
    candidate: Option<(&Arc<Revision>, u32)>,
) -> ServedFunction {
    let key = stable.function().clone();
    let entry = FunctionEntry {
        routes: vec![Route {
            hosts: vec![format!("{}.example", key.namespace)],
            ..Route::default()
        }],
        key,
        created_ms: 0,
        suspended: false,
        callers: Vec::new(),
        split: TrafficSplit {
            stable: Some(stable.name().clone()),
            candidate: candidate.map(|(revision, _)| revision.name().clone()),
            weight: candidate.map_or(0, |(_, weight)| weight),
            ..TrafficSplit::default()
        },
    };
    ServedFunction {
        entry: Arc::new(entry),
        stable: RevisionSlot::Ready(stable.clone()),
        candidate: candidate.map_or(RevisionSlot::Absent, |(revision, _)| {
            RevisionSlot::Ready(revision.clone())
        }),
    }
}

/// Sends one request, reads the response and returns its status. Connects again when the node announces that it closes the
/// connection.
pub(crate) fn ask(client: &mut TcpStream, host: &str) -> Result<u16> {
    client.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes())?;
    let (mut response, mut chunk) = (Vec::new(), [0; 4096]);
    while !complete(&response) {
        let read = client.read(&mut chunk)?;
        ensure!(read > 0, "the node closed the connection");
        response.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&response);
    let status = text.split(' ').nth(1).context("no status")?.parse()?;
    if text.contains("connection: close\r\n") {
        *client = TcpStream::connect(client.peer_addr()?)?;
        client.set_nodelay(true)?;
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_without_functions_answers_404() {
        let plane = LocalDataPlane::start().unwrap();
        let mut client = TcpStream::connect(plane.address()).unwrap();
        client
            .set_read_timeout(Some(std::time::Duration::from_secs(60)))
            .unwrap();
        assert_eq!(ask(&mut client, "a.example").unwrap(), 404);
    }
}
