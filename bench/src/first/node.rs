//! The measured side: the node's own code from the native cache to the socket.

use crate::data_plane;
use anyhow::{Context, Result, bail, ensure};
use node_shim::{
    counters::CounterTable,
    data_plane::{DataPlane, DataPlaneOptions},
    disk::{DiskHealth, StateDir},
    engine::{Compiler, Engine, EngineOptions},
    guest_log::GuestLog,
    native_cache::{Lookup, NativeCache},
    node_counters::NodeCounters,
    revision::Revision,
    routing_table::{RevisionSlot, RoutingTable, ServedFunction},
};
use node_shim_core::table::{FunctionEntry, FunctionKey, RevisionName, Route, TrafficSplit};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    num::NonZeroUsize,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Name of the component in the cache, in place of its digest.
const HEX: &str = "00";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

pub(super) struct Node {
    engine: Engine,
    cache: NativeCache,
    counters: Arc<CounterTable>,
    plane: DataPlane,
    client: TcpStream,
    version: u64,
}

impl Node {
    pub(super) fn new(wasm: &[u8], folder: &Path) -> Result<Self> {
        let dir = StateDir::new(folder);
        dir.create()?;
        let compiler = Compiler::new()?;
        let engine = Engine::new(&EngineOptions::default())?;
        let hash = format!("{:016x}", engine.compatibility());
        let cache = NativeCache::open(&dir, &hash, Arc::new(DiskHealth::default()))?;
        let code = compiler
            .precompile(wasm)
            .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let mut draft = cache.draft()?;
        draft.write_all(&code)?;
        cache.store(draft, HEX)?;
        let counters = CounterTable::new();
        let plane = DataPlane::start(
            TcpListener::bind("127.0.0.1:0")?,
            engine.clone(),
            DataPlaneOptions::with_threads(Some(NonZeroUsize::MIN)),
            counters.clone(),
            Arc::new(NodeCounters::default()),
            GuestLog::start("bench", Box::new(std::io::sink()))?,
        )?;
        plane.open()?;
        let client = TcpStream::connect(plane.address())?;
        client.set_nodelay(true)?;
        let mut node = Self {
            engine,
            cache,
            counters,
            plane,
            client,
            version: 0,
        };
        // the first request makes the node accept the connection
        ensure!(
            node.ask()? == 404,
            "a node without functions must respond with 404"
        );
        Ok(node)
    }

    /// Measures the time from the native cache to the complete response.
    pub(super) fn first(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let Lookup::Hit(code) = self.cache.get(HEX) else {
            bail!("the native code is missing in the cache");
        };
        let path = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
        let loaded = self.engine.load(&path)?;
        let spec = data_plane::spec("bench", "only")?;
        let revision = Revision::new(spec, loaded, &self.counters)?;
        self.publish(vec![only(revision)]);
        let status = self.ask()?;
        let took = started.elapsed();
        ensure!(status == 200, "the node responded with {status}");
        // the code is dropped outside of the measured time, as on the other side
        self.publish(Vec::new());
        ensure!(
            self.ask()? == 404,
            "a removed function must respond with 404"
        );
        Ok(took)
    }

    fn publish(&mut self, functions: Vec<ServedFunction>) {
        self.version += 1;
        let table = RoutingTable::new(self.version, functions);
        self.plane.publish(Arc::new(table));
    }

    /// Sends one request on the open connection and returns the status. Responses are short and have a length.
    fn ask(&mut self) -> Result<u16> {
        self.client.write_all(REQUEST)?;
        let mut head = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = self.client.read(&mut chunk)?;
            ensure!(read > 0, "the node closed the connection");
            head.extend_from_slice(chunk.get(..read).unwrap_or_default());
            let text = String::from_utf8_lossy(&head);
            let Some((lines, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = lines
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                .context("the response has no content-length")?;
            if body.len() >= length {
                let status = lines
                    .split(' ')
                    .nth(1)
                    .context("the response has no status")?;
                return Ok(status.parse()?);
            }
        }
    }
}

/// Returns a function that serves every host and path.
fn only(revision: Arc<Revision>) -> ServedFunction {
    let entry = FunctionEntry {
        key: FunctionKey::new("bench", "f"),
        created_ms: 0,
        routes: vec![Route {
            hosts: vec!["*".into()],
            ..Route::default()
        }],
        suspended: false,
        callers: Vec::new(),
        split: TrafficSplit {
            stable: RevisionName::new("only"),
            ..TrafficSplit::default()
        },
    };
    ServedFunction {
        entry: Arc::new(entry),
        stable: RevisionSlot::Ready(revision),
        candidate: RevisionSlot::Absent,
    }
}
