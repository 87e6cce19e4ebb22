//! Serves the functions of a manifest and replaces them when their files change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use node_api::v1::FunctionRecord;
use node_shim_core::local_hosts::LocalHosts;
use node_shim_core::table::{FunctionEntry, FunctionKey};

use super::DevArgs;
use super::build;
use super::component::Origin;
use super::console::Console;
use super::files::{BuildOutputs, Stamps, changed};
use super::manifest::Function;
use super::plan::{BuildCommand, Plan, Snapshot};
use super::render::ServedLimits;
use super::watch::Watcher;
use crate::code_cache::CompiledComponent;
use crate::counters::CounterTable;
use crate::data_plane::{DataPlane, DataPlaneOptions};
use crate::engine::{Engine, EngineOptions};
use crate::guest_log::GuestLog;
use crate::node_counters::NodeCounters;
use crate::revision::Revision;
use crate::routing_table::{RevisionSlot, RoutingTable, ServedFunction};
use crate::serve;
use crate::supervisor::parse_record;

/// Time that requests have to finish after the first signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A function as it is served.
struct Live {
    record: FunctionRecord,
    digest: String,
    code: Arc<CompiledComponent>,
    served: ServedFunction,
}

/// Functions that are served, and what they were made from.
pub(super) struct Session {
    args: DevArgs,
    console: Console,
    plane: DataPlane,
    watcher: Watcher,
    functions: BTreeMap<FunctionKey, Live>,
    /// Number of the last version that was published.
    version: u64,
    sources: Sources,
}

/// Files of a session and how they were built.
#[derive(Default)]
struct Sources {
    seen: Snapshot,
    outputs: BuildOutputs,
    built: Vec<BuildCommand>,
}

impl Session {
    /// Builds the functions and serves them.
    ///
    /// # Errors
    /// Returns a sentence about the first file, build or component that is wrong, or about the address.
    pub(super) async fn start(args: &DevArgs) -> anyhow::Result<Self> {
        let console = Console::new();
        let manifests = Snapshot::manifests(args);
        let plan = Plan::read(args)?;
        let listener = TcpListener::bind(&args.addr).with_context(|| {
            format!(
                "cannot listen on {} (--addr 127.0.0.1:0 selects a free port)",
                args.addr
            )
        })?;
        for remark in &plan.remarks {
            console.note(remark);
        }
        let mut sources = Sources {
            seen: Snapshot {
                manifests,
                ..Snapshot::read(args, &plan)
            },
            ..Sources::default()
        };
        sources.build(args, &plan, &console).await?;
        let plane = DataPlane::start(
            listener,
            Engine::new(&EngineOptions::default())?,
            DataPlaneOptions {
                max_per_peer: u32::MAX,
                loopback_stores: true,
                ..DataPlaneOptions::with_threads(args.threads)
            },
            CounterTable::new(),
            Arc::new(NodeCounters::default()),
            GuestLog::start_with_requests("local", Box::new(console.log()))?,
        )?;
        let mut session = Self {
            args: args.clone(),
            console,
            plane,
            watcher: Watcher::new().context("cannot watch files")?,
            functions: BTreeMap::new(),
            version: 0,
            sources,
        };
        session.publish(&plan).await?;
        session.plane.set_ready(true);
        session.watch_folders()?;
        session.announce(&plan);
        Ok(session)
    }

    /// Follows changes of files until the future is dropped, which also ends a build that is running.
    ///
    /// # Errors
    /// Fails when files can no longer be watched.
    pub(super) async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            if let Err(error) = self.update().await {
                let version = self.version;
                self.console.failure(format!("{error:#}"));
                self.console
                    .failure(format!("Version {version} continues to serve"));
            }
            if !self.watch_folders()? {
                self.watcher.changed().await;
            }
        }
    }

    /// Lets requests finish that have begun.
    pub(super) async fn drain(&self) {
        self.plane.drain(Duration::ZERO, DRAIN_TIMEOUT).await;
    }

    /// Builds and publishes what has changed.
    async fn update(&mut self) -> anyhow::Result<()> {
        // the files are compared first: an event may be about something else
        // before the texts, so that a change meanwhile is seen by the next update
        let stamps = Snapshot::manifests(&self.args);
        let plan = Plan::read(&self.args);
        let Ok(known) = &plan else {
            return self.sources.observe_manifests(stamps, plan);
        };
        let now = Snapshot {
            manifests: stamps,
            ..Snapshot::read(&self.args, known)
        };
        let seen = std::mem::replace(&mut self.sources.seen, now);
        let now = &self.sources.seen;
        let sources = self
            .sources
            .outputs
            .sources(changed(&seen.sources, &now.sources));
        let manifests = changed(&seen.manifests, &now.manifests);
        let components = changed(&seen.components, &now.components);
        let plan = plan?;
        let builds = !plan.builds.is_empty() && !sources.is_empty();
        if !builds && manifests.is_empty() && components.is_empty() {
            return Ok(());
        }
        let why: BTreeSet<PathBuf> = sources
            .into_iter()
            .chain(manifests)
            .chain(components)
            .collect();
        self.console.note(format!("Changed: {}", names(&why)));
        if builds || plan.builds != self.sources.built {
            self.sources.build(&self.args, &plan, &self.console).await?;
        }
        if !self.publish(&plan).await? {
            self.console
                .note(format!("Version {} has not changed", self.version));
        }
        Ok(())
    }

    /// Compiles what is new and replaces the routing table. Requests that have begun keep the old one. Returns whether
    /// anything was different.
    async fn publish(&mut self, plan: &Plan) -> anyhow::Result<bool> {
        let began = Instant::now();
        let mut next = BTreeMap::new();
        let mut order = Vec::new();
        for (function, origin) in &plan.functions {
            let live = self.load(function, origin).await?;
            order.push(live.served.clone());
            next.insert(function.key.clone(), live);
        }
        let records = |map: &BTreeMap<FunctionKey, Live>| {
            map.values()
                .map(|live| live.record.clone())
                .collect::<Vec<_>>()
        };
        if records(&next) == records(&self.functions) {
            return Ok(false);
        }
        self.version += 1;
        self.functions = next;
        let entries: Vec<Arc<FunctionEntry>> = order
            .iter()
            .map(|served| Arc::clone(&served.entry))
            .collect();
        let local = LocalHosts::of(entries.iter().map(AsRef::as_ref));
        let limits = self.functions.iter().filter_map(|(key, live)| {
            let revision = live.served.stable.ready()?;
            let id = (key.namespace.to_string(), key.name.to_string());
            Some((id, revision.spec.limits.clone()))
        });
        self.console.set_served(ServedLimits {
            functions: limits.collect(),
        });
        let table = RoutingTable::new(self.version, order).with_local_hosts(local);
        self.plane.publish(Arc::new(table));
        let keys: Vec<String> = self.functions.keys().map(ToString::to_string).collect();
        self.console.note(format!(
            "Serving version {} of {} (loaded in {} ms)",
            self.version,
            keys.join(", "),
            began.elapsed().as_millis()
        ));
        Ok(true)
    }

    /// Reads the component of a function and prepares it as a node does. What has not changed is taken over.
    async fn load(&self, function: &Function, origin: &Origin) -> anyhow::Result<Live> {
        let key = &function.key;
        let component = origin.read()?;
        let old = self.functions.get(key);
        let unchanged = old.and_then(|live| {
            let name = live.served.stable.ready()?.name().as_str();
            let record = function.record(name, &component.digest, component.size);
            (record.definitions == live.record.definitions).then_some((live, record))
        });
        if let Some((live, record)) = unchanged {
            let parsed = parse_record::parse(&record).with_context(|| key.to_string())?;
            return Ok(Live {
                served: ServedFunction {
                    entry: parsed.entry,
                    ..live.served.clone()
                },
                record,
                digest: live.digest.clone(),
                code: Arc::clone(&live.code),
            });
        }
        let name = format!("v{}", self.version + 1);
        let record = function.record(&name, &component.digest, component.size);
        let parsed = parse_record::parse(&record).with_context(|| key.to_string())?;
        let refused = || match origin.file() {
            Some(path) => format!("{key}: cannot serve {}", path.display()),
            None => format!("{key}: cannot serve spec.source.inline"),
        };
        let known = self
            .functions
            .values()
            .find(|live| live.digest == component.digest);
        let code = match known {
            Some(live) => Arc::clone(&live.code),
            None => serve::compile(self.plane.engine(), component.file)
                .await
                .with_context(refused)?
                .into(),
        };
        let definition = parsed.definitions.into_values().next();
        let definition = definition.context("the record has no revision")?;
        let counters = self.plane.counters();
        let revision = Revision::new(definition.spec.clone(), Arc::clone(&code), counters)
            .with_context(refused)?;
        Ok(Live {
            served: ServedFunction {
                entry: parsed.entry,
                stable: RevisionSlot::Ready(revision),
                candidate: RevisionSlot::Absent,
            },
            record,
            digest: component.digest,
            code,
        })
    }

    /// Returns whether files may have changed without an event.
    fn watch_folders(&mut self) -> anyhow::Result<bool> {
        let folders = self.sources.seen.folders.clone();
        self.watcher.watch(folders).context("cannot watch files")
    }

    /// Says where functions can be reached.
    fn announce(&self, plan: &Plan) {
        let address = self.plane.address();
        let first_host = |function: &Function| {
            let live = self.functions.get(&function.key);
            let routes = live.map(|live| live.served.entry.routes.as_slice());
            let host = routes
                .into_iter()
                .flatten()
                .flat_map(|route| &route.hosts)
                .next();
            host.cloned().unwrap_or_default()
        };
        for (index, (function, _)) in plan.functions.iter().enumerate() {
            let host = first_host(function);
            let name = &function.key.name;
            if index == 0 {
                self.console.note(format!(
                    "Serving on http://{address}; requests to localhost or an address are routed as requests to {host}"
                ));
            } else {
                let port = address.port();
                self.console.note(format!(
                    "http://{name}.localhost:{port} is routed as {host}"
                ));
            }
        }
        let folder = self.args.manifest.display();
        self.console
            .note(format!("Watching the folder of {folder}; Ctrl-C ends"));
    }
}

impl Sources {
    /// Runs the builds of the plan, and once more when files changed meanwhile that are not known to be output.
    async fn build(
        &mut self,
        args: &DevArgs,
        plan: &Plan,
        console: &Console,
    ) -> anyhow::Result<()> {
        if plan.builds.is_empty() {
            return Ok(());
        }
        self.built.clone_from(&plan.builds);
        loop {
            let built = run_all(&plan.builds, console).await;
            let now = Snapshot::read(args, plan);
            let changed = changed(&self.seen.sources, &now.sources);
            let changed = self.outputs.sources(changed);
            let text = names(&changed);
            let again = self.outputs.observe(changed);
            // a manifest that was edited meanwhile is read next
            let manifests = std::mem::take(&mut self.seen.manifests);
            self.seen = Snapshot { manifests, ..now };
            if !again {
                return built;
            }
            console.note(format!("Changed during the build: {text}"));
        }
    }

    /// Returns the error of manifests that are wrong when they have changed.
    fn observe_manifests(&mut self, now: Stamps, plan: anyhow::Result<Plan>) -> anyhow::Result<()> {
        if now == self.seen.manifests {
            return Ok(());
        }
        self.seen.manifests = now;
        plan.map(|_| ())
    }
}

async fn run_all(builds: &[BuildCommand], console: &Console) -> anyhow::Result<()> {
    for (command, folder) in builds {
        console.note(format!("Building: {command}"));
        build::run(command, folder).await?;
    }
    Ok(())
}

/// Names at most three files.
fn names(paths: &BTreeSet<PathBuf>) -> String {
    const MOST: usize = 3;
    let name = |path: &PathBuf| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let named: Vec<String> = paths.iter().filter_map(name).take(MOST).collect();
    let more = match paths.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
}
