//! Serves the functions of a manifest and replaces them when their files change.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use node_api::FunctionKey;
use node_api::v1 as wire;

use super::DevArgs;
use super::build;
use super::component::Origin;
use super::console::Console;
use super::files::{BuildOutputs, Stamps, changed};
use super::manifest::Function;
use super::plan::{BuildCommand, Plan, Snapshot};
use super::port;
use super::served::{Board, Loaded, Loading, Next};
use super::watch::Watcher;
use crate::counters::CounterTable;
use crate::data_plane::{DataPlane, DataPlaneOptions};
use crate::egress::EgressOptions;
use crate::engine::{Engine, EngineOptions};
use crate::function_cache::FunctionCounts;
use crate::guest_log::GuestLog;
use crate::local_code::LocalCompiler;
use crate::node_counters::NodeCounters;
use crate::revision::Revision;
use crate::supervisor::parse_record;
use crate::user_cache;

/// Time that requests have to finish after the first signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Functions that are served, and what they were made from.
pub(super) struct Session {
    args: DevArgs,
    console: Console,
    board: Arc<Board>,
    watcher: Watcher,
    compiler: LocalCompiler,
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
        let cannot_listen = || {
            let address = &args.addr;
            format!("cannot listen on {address} (--addr 127.0.0.1:0 selects a free port)")
        };
        let listener = port::bind(&args.addr).with_context(cannot_listen)?;
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
        let engine = Engine::new(&EngineOptions::of_developer())?;
        let functions = user_cache::open(&engine).unwrap_or_else(|error| {
            console.note(format!("{error:#}"));
            None
        });
        let plane = DataPlane::start(
            listener,
            engine.clone(),
            DataPlaneOptions {
                max_per_peer: u32::MAX,
                loopback_stores: true,
                egress: EgressOptions {
                    resolved: args.resolve.clone(),
                    ..EgressOptions::default()
                },
                ..DataPlaneOptions::with_threads(args.threads)
            },
            CounterTable::new(),
            Arc::new(NodeCounters::default()),
            GuestLog::start_with_requests("local", Box::new(console.log()))?,
        )?;
        let keys: Vec<FunctionKey> = plan.keys().cloned().collect();
        let mut session = Self {
            args: args.clone(),
            board: Arc::new(Board::new(plane, console.clone(), args.rollout)),
            console,
            watcher: Watcher::new().context("cannot watch files")?,
            compiler: LocalCompiler::new(engine, functions),
            sources,
        };
        session.publish(plan).await?;
        let plane = session.board.plane();
        plane.set_ready(true);
        plane.open().with_context(cannot_listen)?;
        session.watch_folders()?;
        session.announce(&keys);
        Ok(session)
    }

    /// Follows changes of files, and plays rollouts, until the future is dropped, which also ends a build that is running.
    ///
    /// # Errors
    /// Fails when files can no longer be watched.
    pub(super) async fn follow(&mut self) -> anyhow::Result<()> {
        let board = Arc::clone(&self.board);
        tokio::select! {
            followed = self.follow_files() => followed,
            () = board.play() => Ok(()),
        }
    }

    async fn follow_files(&mut self) -> anyhow::Result<()> {
        loop {
            if let Err(error) = self.update().await {
                self.console.failure(format!("{error:#}"));
                let kept = if self.args.rollout {
                    "What was served before".to_owned()
                } else {
                    format!("Version {}", self.board.version())
                };
                self.console.failure(format!("{kept} continues to serve"));
            }
            if !self.watch_folders()? {
                self.watcher.changed().await;
            }
        }
    }

    /// Lets requests finish that have begun.
    pub(super) async fn drain(&self) {
        self.board
            .plane()
            .drain(Duration::ZERO, DRAIN_TIMEOUT)
            .await;
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
        if !self.publish(plan).await? {
            let version = self.board.version();
            self.console
                .note(format!("Version {version} has not changed"));
        }
        Ok(())
    }

    /// Compiles what is new and serves it. Returns whether anything was different.
    async fn publish(&mut self, plan: Plan) -> anyhow::Result<bool> {
        let began = Instant::now();
        let before = self.compiler.function_counts();
        let mut next: Vec<Next> = Vec::new();
        for (function, origin) in plan.functions {
            let loaded = self.load(&function, &origin).await?;
            next.push(Next { function, loaded });
        }
        let counts = self.compiler.function_counts();
        let loading = Loading {
            took: began.elapsed(),
            functions: FunctionCounts {
                reused: counts.reused - before.reused,
                compiled: counts.compiled - before.compiled,
            },
        };
        self.board.replace(next, loading)
    }

    /// Reads the component of a function and prepares it as a node does. What has not changed is taken over.
    async fn load(&self, function: &Function, origin: &Origin) -> anyhow::Result<Loaded> {
        let key = &function.key;
        let component = origin.read()?;
        if let Some(same) = self.board.same(function, &component.digest, component.size) {
            return Ok(same);
        }
        let name = format!("v{}", self.board.version() + 1);
        let definition = function.definition(&name, &component.digest, component.size);
        let record = function.record(vec![definition.clone()], wire::TrafficSplit::default());
        let parsed = parse_record::parse(&record).with_context(|| key.to_string())?;
        let refused = || match origin.file() {
            Some(path) => format!("{key}: cannot serve {}", path.display()),
            None => format!("{key}: cannot serve spec.source.inline"),
        };
        let plane = self.board.plane();
        let code = match self.board.code(&component.digest) {
            Some(code) => code,
            None => {
                let compiled = self.compiler.compile(component.file, &key.namespace);
                compiled.await.with_context(refused)?
            }
        };
        let parsed = parsed.definitions.into_values().next();
        let parsed = parsed.context("the record has no revision")?;
        let revision = Revision::new(parsed.spec.clone(), Arc::clone(&code), plane.counters())
            .with_context(refused)?;
        Ok(Loaded {
            definition,
            code,
            revision,
        })
    }

    /// Returns whether files may have changed without an event.
    fn watch_folders(&mut self) -> anyhow::Result<bool> {
        let folders = self.sources.seen.folders.clone();
        self.watcher.watch(folders).context("cannot watch files")
    }

    /// Says where functions can be reached.
    fn announce(&self, keys: &[FunctionKey]) {
        let address = self.board.plane().address();
        for (index, key) in keys.iter().enumerate() {
            let host = self.board.first_host(key);
            let name = &key.name;
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
