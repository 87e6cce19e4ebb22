//! `node-shim serve FILE`: serves one component without a cluster, with the limits of a node.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use node_api::store_label;
use node_shim_core::egress::{AllowList, EgressEntry};
use node_shim_core::instance_reuse::ReusePolicy;
use node_shim_core::table::{
    FunctionEntry, FunctionKey, Limits, RevisionName, Route, TrafficSplit,
};
use zeroize::Zeroizing;

use crate::config_value::ConfigValue;
use crate::counters::CounterTable;
use crate::data_plane::{DataPlane, DataPlaneOptions, Listeners};
use crate::descriptors;
use crate::drain::Signals;
use crate::egress::{EgressOptions, ResolvedHost};
use crate::engine::{Engine, EngineOptions};
use crate::guest_log::GuestLog;
use crate::key_value::{InvalidRedisUrl, RedisTarget, StoreKind, StoreSpec};
use crate::local_code::LocalCompiler;
use crate::node_counters::NodeCounters;
use crate::report_args::ReportArgs;
use crate::revision::{Revision, RevisionSpec};
use crate::routing_table::{RevisionSlot, RoutingTable, ServedFunction};
use crate::tls::{Certificates, read_folder};
use crate::traces::Tracer;
use crate::user_cache;

/// Maximum time that the program waits at its end until the last spans have been sent.
const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Options of `serve`. The defaults of the limits are those of the API.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Component to serve, in binary form
    pub file: PathBuf,
    /// Address to listen on; port 0 selects a free port
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub addr: String,
    /// Address to listen on with TLS, if there is a certificate
    #[arg(long, default_value = "127.0.0.1:8443")]
    pub tls_addr: String,
    /// Directory with a certificate for the TLS port: tls.crt (chain) and tls.key, in PEM format; repeatable. The first is
    /// for clients that send no server name or an unknown one
    #[arg(long, value_name = "DIR")]
    pub tls_certificate: Vec<PathBuf>,
    /// Environment variable of the guest; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub env: Vec<(String, String)>,
    /// Entry of wasi:config/store; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub config: Vec<(String, String)>,
    /// Key-value store that the guest opens through wasi:keyvalue: a label for one in memory, or LABEL=redis://… for one
    /// in Redis; repeatable. '' is the store that the guest opens by the empty name
    #[arg(long, value_name = "LABEL[=URL]", value_parser = store)]
    pub key_value: Vec<StoreSpec>,
    /// Outbound requests that the guest may send, like `https://api.example`, `http://10.0.0.0/8:8080` or
    /// `function://local/serve` (itself, as `http://serve.local.selvage.internal`); repeatable
    #[arg(long, value_name = "ENTRY", value_parser = EgressEntry::parse)]
    pub egress: Vec<EgressEntry>,
    /// Host that outbound requests reach at another address, such as a server of this machine: `api.example=127.0.0.1:3000`.
    /// The address is exempt from the checks of addresses, and the request still needs an entry of --egress; repeatable
    #[arg(long, value_name = "HOST=IP:PORT")]
    pub resolve: Vec<ResolvedHost>,
    /// Memory of one instance, MiB
    #[arg(long, default_value_t = 64)]
    pub memory: u64,
    /// CPU time of one request, ms
    #[arg(long, default_value_t = 200)]
    pub cpu: u64,
    /// Wall-clock time of one request, ms
    #[arg(long, default_value_t = 30_000)]
    pub timeout: u64,
    /// Wall-clock time until the response head, ms
    #[arg(long, default_value_t = 10_000)]
    pub first_byte: u64,
    /// Wall-clock time between two chunks of a body, ms
    #[arg(long, default_value_t = 15_000)]
    pub idle: u64,
    /// Number of threads that serve requests. Default: the number of cores that affinity and CPU limit grant, at most 4
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// Maximum number of concurrent requests
    #[arg(long, default_value_t = 100)]
    pub concurrency: u32,
    /// Maximum number of requests that wait in the queue
    #[arg(long, default_value_t = 100)]
    pub queue_length: u32,
    /// Maximum time that a request waits in the queue, ms
    #[arg(long, default_value_t = 1_000)]
    pub queue_timeout: u64,
    /// Maximum size of a request body, KiB
    #[arg(long, default_value_t = 10 << 10)]
    pub request_body: u64,
    /// Number of requests that one instance answers, one after another. With 1, every request gets a fresh instance
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub reuse_requests: u32,
    /// Time that an idle instance is kept for another request, ms
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub reuse_idle: u64,
    /// Time after SIGINT or SIGTERM during which the readiness probe fails while requests are still accepted, ms
    #[arg(long, default_value_t = 0)]
    pub drain_propagation: u64,
    /// Time that requests have to finish after that, ms
    #[arg(long, default_value_t = 45_000)]
    pub drain_timeout: u64,
    /// What is reported about single requests
    #[command(flatten)]
    pub reports: ReportArgs,
}

/// Why a value of `--key-value` is refused. The message shows no part of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum InvalidStore {
    #[error("not a label: {}", store_label::RULE)]
    Label,
    #[error(transparent)]
    Url(#[from] InvalidRedisUrl),
}

/// Reads a label, or a label and the URL of a Redis server.
fn store(text: &str) -> Result<StoreSpec, InvalidStore> {
    let (label, url) = match text.split_once('=') {
        None => (text, None),
        Some((label, url)) => (label, Some(url)),
    };
    if !store_label::is_label(label) {
        return Err(InvalidStore::Label);
    }
    let kind = match url {
        None => StoreKind::Memory,
        Some(url) => {
            let target = RedisTarget::new(Zeroizing::new(url.to_owned()), String::new())?;
            StoreKind::Redis {
                target: Arc::new(target),
                cache_ttl: Duration::ZERO,
            }
        }
    };
    Ok(StoreSpec {
        label: label.into(),
        kind,
    })
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl ServeArgs {
    fn limits(&self) -> Limits {
        Limits {
            memory: self.memory << 20,
            cpu: Duration::from_millis(self.cpu),
            timeout: Duration::from_millis(self.timeout),
            first_byte: Duration::from_millis(self.first_byte),
            idle: Duration::from_millis(self.idle),
            concurrency: self.concurrency,
            queue_length: self.queue_length,
            queue_timeout: Duration::from_millis(self.queue_timeout),
            request_body: self.request_body << 10,
        }
    }
}

/// Serves until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// Returns an error when the file is not a component that can be served or the address cannot be bound.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let plane = tokio::select! {
            started = start(args) => started?,
            // ends the compiler process too
            () = signals.next() => return Ok(()),
        };
        run_until_signal(&plane, args, signals).await
    })
}

/// Starts a data plane with the component.
async fn start(args: &ServeArgs) -> anyhow::Result<DataPlane> {
    let component = open(&args.file)?;
    let engine = Engine::new(&EngineOptions::of_developer())?;
    let refused = || format!("cannot serve {}", args.file.display());
    let functions = user_cache::open(&engine).unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "node-shim: {error:#}");
        None
    });
    let compiler = LocalCompiler::new(engine.clone(), functions);
    let function = FunctionKey::new("local", "serve");
    let loaded = compiler.compile(component, &function.namespace).await;
    let loaded = loaded.with_context(refused)?;
    let counters = CounterTable::new();
    let values = |list: &[(String, String)]| {
        let value =
            |(name, value): &(String, String)| (name.clone(), ConfigValue::Plain(value.clone()));
        list.iter().map(value).collect()
    };
    let spec = RevisionSpec {
        function,
        name: RevisionName::new("file").context("the name of the revision is empty")?,
        limits: args.limits(),
        env: values(&args.env),
        config: values(&args.config),
        key_value: args.key_value.clone(),
        egress: AllowList::new(args.egress.clone()),
        authorities: None,
        reuse: ReusePolicy {
            max_requests: args.reuse_requests,
            idle_timeout: Duration::from_millis(args.reuse_idle),
        },
    };
    let revision = Revision::new(spec, loaded, &counters).with_context(refused)?;
    let listeners = listen(args)?;
    let log = GuestLog::start("local", Box::new(std::io::stdout()))?;
    let options = DataPlaneOptions {
        max_per_peer: u32::MAX,
        // a desk has its servers on localhost
        loopback_stores: true,
        egress: EgressOptions {
            resolved: args.resolve.clone(),
            ..EgressOptions::default()
        },
        access_log: args.reports.access_log(),
        server_timing: args.reports.server_timing,
        tracer: Tracer::start(&args.reports.traces(), "local")?,
        ..DataPlaneOptions::with_threads(args.threads)
    };
    let plane = DataPlane::start(
        listeners,
        engine,
        options,
        counters,
        Arc::new(NodeCounters::default()),
        log,
    )?;
    plane.publish(Arc::new(RoutingTable::new(1, vec![catch_all(revision)])));
    plane.set_ready(true);
    plane.open()?;
    Ok(plane)
}

/// Opens a file that starts like a component. The compiler validates the rest.
pub(crate) fn open(path: &Path) -> anyhow::Result<File> {
    let name = path.display();
    let cannot_read = || format!("cannot read {name}");
    let mut file = File::open(path).with_context(cannot_read)?;
    let mut magic = Vec::new();
    Read::by_ref(&mut file)
        .take(8)
        .read_to_end(&mut magic)
        .with_context(cannot_read)?;
    ensure!(
        !magic.starts_with(b"\0asm\x01\0\0\0"),
        "{name} is a core module, not a component: build it for the target wasm32-wasip2, or make a component of it with `wasm-tools component new`"
    );
    ensure!(
        is_component(&magic),
        "{name} is not a WebAssembly component in binary form"
    );
    file.rewind().with_context(cannot_read)?;
    Ok(file)
}

async fn run_until_signal(
    plane: &DataPlane,
    args: &ServeArgs,
    mut signals: Signals,
) -> anyhow::Result<()> {
    let propagation = Duration::from_millis(args.drain_propagation);
    let timeout = Duration::from_millis(args.drain_timeout);
    writeln!(std::io::stderr(), "Serving on http://{}", plane.address())?;
    if let Some(address) = plane.tls_address() {
        writeln!(std::io::stderr(), "Serving on https://{address}")?;
    }
    signals.next().await;
    let drain = async {
        plane.drain(propagation, timeout).await;
        if let Some(tracer) = plane.tracer() {
            tracer.flush(TRACE_FLUSH_TIMEOUT).await;
        }
    };
    tokio::select! {
        () = drain => {}
        () = signals.next() => {}
    }
    Ok(())
}

/// Binds the ports. A certificate that cannot be used is an error here, unlike on a node.
fn listen(args: &ServeArgs) -> anyhow::Result<Listeners> {
    let bound = |address: &String| {
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
    };
    let https = if args.tls_certificate.is_empty() {
        None
    } else {
        for folder in &args.tls_certificate {
            read_folder(folder)
                .with_context(|| format!("cannot use the certificate in {}", folder.display()))?;
        }
        let certificates = Certificates::open(&args.tls_certificate)?;
        tokio::spawn(certificates.clone().watch());
        Some((bound(&args.tls_addr)?, certificates))
    };
    Ok(Listeners {
        http: bound(&args.addr)?,
        https,
    })
}

/// Returns a function that serves every host and path.
fn catch_all(revision: Arc<Revision>) -> ServedFunction {
    let entry = FunctionEntry {
        key: revision.function().clone(),
        created_ms: 0,
        routes: vec![Route {
            hosts: vec!["*".to_owned()],
            ..Route::default()
        }],
        suspended: false,
        callers: Vec::new(),
        split: TrafficSplit {
            stable: Some(revision.name().clone()),
            ..TrafficSplit::default()
        },
    };
    ServedFunction {
        entry: Arc::new(entry),
        stable: RevisionSlot::Ready(revision),
        candidate: RevisionSlot::Absent,
    }
}

/// Returns whether the bytes start with the magic number and the layer of a component.
pub(crate) fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, b'a', b's', b'm', 0x0d, 0, 1, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_components_are_served() {
        assert!(is_component(b"\0asm\x0d\0\x01\0rest"));
        for other in [&b"\0asm\x01\0\0\0"[..], b"(component)", b"\x7fELF", b""] {
            assert!(!is_component(other));
        }
    }

    #[test]
    fn a_store_is_in_memory_unless_it_has_a_url() {
        assert_eq!(store("cart").unwrap().kind, StoreKind::Memory);
        for label in ["", "in_memory", "https://kv.example/1"] {
            let in_memory = StoreSpec {
                label: label.into(),
                kind: StoreKind::Memory,
            };
            assert_eq!(store(label), Ok(in_memory));
        }
        for label in ["a b", "a#1", "\u{e9}=redis://localhost"] {
            assert_eq!(store(label), Err(InvalidStore::Label), "{label}");
        }
        let unnamed = store("=redis://localhost").unwrap();
        assert_eq!(&*unnamed.label, "");
        assert!(matches!(unnamed.kind, StoreKind::Redis { .. }));
        let cart = store("cart=redis://:p@localhost:6380/1?").err();
        assert!(cart.is_some_and(|error| !error.to_string().contains("localhost")));
        let cart = store("cart=redis://:p=@localhost:6380/1").unwrap();
        assert_eq!(&*cart.label, "cart");
        assert!(matches!(cart.kind, StoreKind::Redis { cache_ttl, .. } if cache_ttl.is_zero()));
    }

    #[test]
    fn names_and_values_are_separated_by_the_first_equals_sign() {
        assert_eq!(name_and_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(name_and_value("a").is_err());
    }
}
