//! A real Kubernetes cluster on this machine: etcd, control plane, nodes with kubelet, containerd and kube-proxy, an
//! OCI registry, Prometheus and Helm. No Docker.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use e2e::cluster::{Cluster, Options};
//! let cluster = Cluster::start(&Options { nodes: 3, ..Options::default() }, &|part, after| {
//!     eprintln!("{part}: {:.1} s", after.as_secs_f64());
//! })
//! .await?;
//! println!("{}", cluster.kubeconfig().display());
//! # Ok(()) }
//! ```

mod cache;
mod certs;
mod cgroup;
mod control_plane;
mod dump;
mod existing;
mod fresh_root;
mod net;
mod node;
mod node_config;
mod packages;
mod pod_failure;
mod pod_watch;
mod process;
mod prometheus;
mod registry;
pub mod run;
pub mod shared;
mod tools;
pub mod wait;

pub use cgroup::Layout;
pub use control_plane::ControlPlane;
pub use existing::is_named;
pub use fresh_root::FreshRoot;
pub use net::Slot;
pub use node::{Node, probe};
pub use packages::{Purpose, install, versions};
pub use pod_watch::rolled_out;
pub use process::Process;
pub use prometheus::{Prometheus, Target, query};
pub use registry::{PASSWORD, Registry, USER};
pub use run::Run;
pub use tools::{HELLO_IMAGE, KUBERNETES, Tools, helm};

pub(crate) use cache::last_lines;

use anyhow::{Context, Result, bail};
use existing::Existing;
use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes; with 0, the control plane alone, on loopback and without root.
    pub nodes: u8,
    /// Whether to start an OCI registry.
    pub registry: bool,
    /// Whether to start a Prometheus, and how often it scrapes.
    pub prometheus: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 0,
            registry: true,
            prometheus: Some(Duration::from_secs(2)),
        }
    }
}

/// Told about each part that is up, and how long after the beginning.
pub type Report<'a> = dyn Fn(&str, Duration) + Send + Sync + 'a;

/// A cluster of this machine. Dropping it removes every trace of it.
pub struct Cluster {
    client: Client,
    tools: Tools,
    /// The control plane.
    pub control_plane: ControlPlane,
    nodes: Vec<Node>,
    /// The registry, where asked for.
    pub registry: Option<Registry>,
    /// Prometheus, where asked for.
    pub prometheus: Option<Prometheus>,
    existing: Option<Existing>,
    // last: its end removes what the others use
    run: Run,
}

impl Cluster {
    /// Starts a cluster and waits until all nodes are Ready.
    ///
    /// # Errors
    /// A program is missing or does not start; the error quotes its log. Nothing is left behind.
    pub async fn start(options: &Options, report: &Report<'_>) -> Result<Self> {
        // a second call finds it installed, which is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        let begin = Instant::now();
        let done = |part: &str| report(part, begin.elapsed());
        if options.nodes > 0 {
            packages::install(&[Purpose::ControlPlane, Purpose::Nodes])?;
        } else {
            packages::install(&[Purpose::ControlPlane])?;
        }
        let tools = Tools::obtain()?;
        done(&format!("programs of Kubernetes {KUBERNETES}"));
        let layout = if options.nodes > 0 {
            Some(probe().context("nodes cannot run on this machine")?)
        } else {
            None
        };
        let run = Run::begin(options.nodes > 0)?;
        if layout.is_some() {
            net::create(run.id(), run.slot(), options.nodes)?;
        }
        let pki = control_plane::Pki::create(&run)?;
        let control_plane = ControlPlane::start(&run, &tools, &pki, layout.is_some()).await?;
        done(&format!("control plane at {}", control_plane.server));
        let client = control_plane::client(&control_plane.kubeconfig).await?;
        let mut nodes = Vec::new();
        if let Some(layout) = layout {
            for number in 1..=options.nodes {
                nodes.push(Node::start(&run, &tools, &pki, layout, number)?);
            }
        }
        let registry = if options.registry {
            Some(Registry::start(&run).await?)
        } else {
            None
        };
        if let Some(registry) = &registry {
            done(&format!("OCI registry at {}", registry.address()));
        }
        let prometheus = match options.prometheus {
            Some(interval) => Some(Prometheus::start(&run, interval).await?),
            None => None,
        };
        if let Some(prometheus) = &prometheus {
            done(&format!("Prometheus at {}", prometheus.url()));
        }
        let mut cluster = Self {
            client,
            tools,
            control_plane,
            nodes,
            registry,
            prometheus,
            existing: None,
            run,
        };
        if let Some(layout) = layout {
            cluster.nodes_ready(Duration::from_secs(180)).await?;
            done(&format!("{} nodes Ready ({layout})", options.nodes));
        }
        Ok(cluster)
    }

    /// Uses the cluster that `KUBECONFIG` names; starts only a registry and a Prometheus, on this machine.
    ///
    /// # Errors
    /// The cluster does not answer, or one of the two does not start.
    pub async fn existing(options: &Options, report: &Report<'_>) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let begin = Instant::now();
        let done = |part: &str| report(part, begin.elapsed());
        packages::install(&[Purpose::ControlPlane])?;
        let tools = Tools::obtain()?;
        let mut run = Run::begin(false)?;
        let existing = Existing::find(&run, &tools).await?;
        run.set_host(existing.host);
        done(&format!(
            "the cluster of KUBECONFIG at {}, {} nodes",
            existing.server,
            existing.nodes.len()
        ));
        let registry = if options.registry {
            Some(Registry::start(&run).await?)
        } else {
            None
        };
        let mut prometheus = match options.prometheus {
            Some(interval) => Some(Prometheus::start(&run, interval).await?),
            None => None,
        };
        if let Some(prometheus) = &mut prometheus {
            prometheus.set_proxy(existing.proxy_address.clone());
        }
        done(&format!("registry and Prometheus at {}", existing.host));
        let control_plane =
            ControlPlane::absent(&run, existing.kubeconfig.clone(), existing.server.clone());
        Ok(Self {
            client: control_plane::client(&existing.kubeconfig).await?,
            tools,
            control_plane,
            nodes: Vec::new(),
            registry,
            prometheus,
            existing: Some(existing),
            run,
        })
    }

    /// Whether somebody else runs the cluster.
    #[must_use]
    pub fn is_existing(&self) -> bool {
        self.existing.is_some()
    }

    /// The addresses of all nodes, whoever runs them.
    #[must_use]
    pub fn node_addresses(&self) -> Vec<std::net::Ipv4Addr> {
        match &self.existing {
            Some(existing) => existing.nodes.clone(),
            None => self.nodes.iter().map(Node::address).collect(),
        }
    }

    /// Waits until every node is Ready in Kubernetes.
    ///
    /// # Errors
    /// A node ended, or one is not Ready after `limit`.
    pub async fn nodes_ready(&mut self, limit: Duration) -> Result<()> {
        let api: Api<KubeNode> = Api::all(self.client.clone());
        let wanted: Vec<String> = self
            .nodes
            .iter()
            .map(|node| node.name().to_owned())
            .collect();
        let nodes = &mut self.nodes;
        let mut missing = String::new();
        wait::until(limit, Duration::from_millis(200), async || {
            for node in &mut *nodes {
                node.check()?;
            }
            let Ok(found) = api.list(&ListParams::default()).await else {
                return Ok(None);
            };
            missing = wanted
                .iter()
                .filter_map(|name| node::not_ready(name, &found.items))
                .collect::<Vec<_>>()
                .join("; ");
            Ok(missing.is_empty().then_some(()))
        })
        .await
        .with_context(|| format!("wait for the nodes: {missing}"))
    }

    /// A client with all rights that lives as long as the runtime the cluster was started on.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A new client with all rights, for a test with a runtime of its own.
    ///
    /// # Errors
    /// The kubeconfig cannot be read.
    pub async fn connect(&self) -> Result<Client> {
        control_plane::client(self.kubeconfig()).await
    }

    /// Makes a namespace with a name that begins with `prefix` and is used nowhere else.
    ///
    /// # Errors
    /// The API server refused.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let api: Api<Namespace> = Api::all(self.connect().await?);
        let mut namespace = Namespace::default();
        namespace.metadata.generate_name = Some(format!("{prefix}-"));
        let made = api
            .create(&PostParams::default(), &namespace)
            .await
            .context("make a namespace")?;
        made.metadata.name.context("a namespace has a name")
    }

    /// The file that makes other programs talk to this cluster, with all rights.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.control_plane.kubeconfig
    }

    /// The URL of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.control_plane.server
    }

    /// The certificate of the authority that signed the API server's.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.run.dir().join("pki/ca.crt")
    }

    /// The programs it runs.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The claim on this machine's resources, to start further processes that end with the cluster.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The address at which host, nodes and pods reach what runs on the host.
    #[must_use]
    pub fn host(&self) -> std::net::Ipv4Addr {
        self.run.host()
    }

    /// Its nodes, in the order of their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its place, from 0, to be killed and restarted.
    ///
    /// # Errors
    /// There are not so many.
    pub fn node(&mut self, index: usize) -> Result<&mut Node> {
        let count = self.nodes.len();
        self.nodes
            .get_mut(index)
            .with_context(|| format!("there are {count} nodes"))
    }

    /// `kubectl` with all rights.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.tools.program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.env("KUBECACHEDIR", self.discovery_cache());
        command
    }

    /// Helm, fetched when this is the first use, with all rights.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn helm(&self) -> Result<Command> {
        let mut command = Command::new(helm()?);
        command.env("KUBECONFIG", self.kubeconfig());
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(variable, self.run.dir().join("helm").join(folder));
        }
        command.env("KUBECACHEDIR", self.discovery_cache());
        Ok(command)
    }

    // by default the cache is shared by all clusters that ever had this address
    fn discovery_cache(&self) -> PathBuf {
        self.run.dir().join("discovery")
    }

    /// Runs a command that waits for pods of a namespace, and ends it when one of them cannot become ready.
    ///
    /// # Errors
    /// The command cannot be started; or the reason that Kubernetes gives for such a pod, whole.
    pub fn output_unless_hopeless(
        &self,
        namespace: &str,
        command: Command,
    ) -> Result<std::process::Output> {
        pod_watch::output_unless_hopeless(self.kubeconfig(), namespace, command)
    }

    /// Puts an image archive on every node.
    ///
    /// # Errors
    /// A node refused it.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        if let Some(existing) = &self.existing {
            return existing.import_image(archive);
        }
        std::thread::scope(|scope| {
            let imports: Vec<_> = self
                .nodes
                .iter()
                .map(|node| scope.spawn(|| node.import_image(archive)))
                .collect();
            for import in imports {
                match import.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("importing {} ended abruptly", archive.display()),
                }
            }
            Ok(())
        })
    }

    /// Leaves everything running. Returns the folder with which [`run::end`] ends it.
    ///
    /// # Errors
    /// The run's folder cannot be written.
    pub fn keep(self) -> Result<PathBuf> {
        let ControlPlane {
            etcd,
            api_server,
            controller_manager,
            scheduler,
            ..
        } = self.control_plane;
        let mut processes = vec![etcd, api_server, controller_manager];
        processes.extend(scheduler);
        processes.extend(self.registry.map(Registry::into_process));
        processes.extend(self.prometheus.map(Prometheus::into_process));
        processes.extend(self.nodes.into_iter().map(Node::into_process));
        processes.extend(self.existing.map(|existing| existing.proxy));
        let dir = self.run.keep()?;
        processes.into_iter().for_each(Process::release);
        Ok(dir)
    }

    pub(crate) fn run_dir(&self) -> Option<&Path> {
        Some(self.run.dir())
    }

    /// Says so when one of its programs ended by itself.
    ///
    /// # Errors
    /// One did: the error quotes the end of its log.
    pub fn check(&mut self) -> Result<()> {
        for process in self.control_plane.processes() {
            process.check()?;
        }
        for node in &mut self.nodes {
            node.process().check()?;
        }
        Ok(())
    }
}
