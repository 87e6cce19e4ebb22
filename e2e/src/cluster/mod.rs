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
mod gitops;
mod go;
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
pub mod schemas;
mod scrape_config;
pub mod shared;
mod shell;
mod tools;
pub mod wait;

pub use cgroup::Layout;
pub use control_plane::ControlPlane;
pub use existing::is_named;
pub use fresh_root::FreshRoot;
pub use gitops::{
    ARGO_CD, argo_cd, customizations, flux_image_definitions, kustomize_controller,
    source_controller,
};
pub use net::Slot;
pub use node::{Node, probe};
pub use packages::{Purpose, install, versions};
pub use pod_watch::rolled_out;
pub use process::Process;
pub use prometheus::{Prometheus, Target, query};
pub use registry::{PASSWORD, Registry, USER};
pub use run::Run;
pub use tools::{
    HELLO_IMAGE, KUBERNETES, PROMETHEUS, Source, Tools, ghz, grpcurl, h2spec, helm, krew,
    kubeconform, promtool,
};

pub(crate) use cache::{last_lines, run as output_of};

use anyhow::{Context, Result, bail};
use existing::Existing;
use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use scrape_config::Access;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Options of [`Cluster::start`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of nodes. With 0, only the control plane is started, on loopback and without root.
    pub nodes: u8,
    /// Whether to start an OCI registry.
    pub registry: bool,
    /// Scrape interval of Prometheus; `None` starts no Prometheus.
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

/// Callback that is called for each part that has started, with the time since the beginning.
pub type Report<'a> = dyn Fn(&str, Duration) + Send + Sync + 'a;

/// A local cluster. Dropping it removes everything that it created on this machine.
pub struct Cluster {
    client: Client,
    tools: Tools,
    /// Processes of the control plane.
    pub control_plane: ControlPlane,
    nodes: Vec<Node>,
    /// OCI registry, if requested.
    pub registry: Option<Registry>,
    /// Prometheus, if requested.
    pub prometheus: Option<Prometheus>,
    existing: Option<Existing>,
    // declared last, because dropping it removes what the others use
    run: Run,
}

impl Cluster {
    /// Starts a cluster and waits until all nodes are Ready.
    ///
    /// # Errors
    /// Returns an error when a program is missing or does not start; the error quotes its log. Nothing is left
    /// behind.
    pub async fn start(options: &Options, report: &Report<'_>) -> Result<Self> {
        // the error means that another call has already installed it, which is sufficient
        let _ = rustls::crypto::ring::default_provider().install_default();
        let begin = Instant::now();
        let done = |part: &str| report(part, begin.elapsed());
        if options.nodes > 0 {
            packages::install(&[Purpose::ControlPlane, Purpose::Nodes])?;
        } else {
            packages::install(&[Purpose::ControlPlane])?;
        }
        let tools = Tools::obtain()?;
        if options.prometheus.is_some() {
            Source::Prometheus.build()?;
        }
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
            Some(interval) => {
                prometheus::grant(&client).await?;
                let access = Access::Kubeconfig(pki.prometheus()?);
                Some(Prometheus::start(&run, interval, &access).await?)
            }
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

    /// Uses the cluster that `KUBECONFIG` names and starts only a registry and a Prometheus on this machine.
    ///
    /// # Errors
    /// Returns an error when the cluster does not answer, or the registry or Prometheus does not start.
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
        let prometheus = match options.prometheus {
            Some(interval) => {
                let access = Access::Proxy(existing.proxy_address.clone());
                Some(Prometheus::start(&run, interval, &access).await?)
            }
            None => None,
        };
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

    /// Returns whether the cluster existed before, so that it is not removed at the end.
    #[must_use]
    pub fn is_existing(&self) -> bool {
        self.existing.is_some()
    }

    /// Returns the addresses of all nodes, also in an existing cluster.
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
    /// Returns an error when a node ends or is not Ready after `limit`.
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

    /// Returns a client with all permissions. It works as long as the runtime on which the cluster was started.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Creates a client with all permissions, for a test that has its own runtime.
    ///
    /// # Errors
    /// Returns an error when the kubeconfig cannot be read.
    pub async fn connect(&self) -> Result<Client> {
        control_plane::client(self.kubeconfig()).await
    }

    /// Creates a namespace with a unique name that starts with `prefix`.
    ///
    /// # Errors
    /// Returns an error when the API server refuses.
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

    /// Returns the path of the kubeconfig with all permissions.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.control_plane.kubeconfig
    }

    /// Returns the URL of the API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.control_plane.server
    }

    /// Returns the path of the certificate authority that signed the certificate of the API server.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.run.dir().join("pki/ca.crt")
    }

    /// Returns the programs that the cluster runs.
    #[must_use]
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// Returns the run, with which further processes can be started that end with the cluster.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Returns the address at which the host, nodes and pods reach programs on the host.
    #[must_use]
    pub fn host(&self) -> std::net::Ipv4Addr {
        self.run.host()
    }

    /// Returns the nodes in the order of their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the node at an index, starting at 0, so that a test can kill and restart it.
    ///
    /// # Errors
    /// Returns an error when there is no such node.
    pub fn node(&mut self, index: usize) -> Result<&mut Node> {
        let count = self.nodes.len();
        self.nodes
            .get_mut(index)
            .with_context(|| format!("there are {count} nodes"))
    }

    /// Returns a `kubectl` command with all permissions.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.tools.program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.env("KUBECACHEDIR", self.discovery_cache());
        command
    }

    /// Returns a `helm` command with all permissions. The first use downloads Helm.
    ///
    /// # Errors
    /// Returns an error when Helm cannot be downloaded.
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

    // the default cache is shared by all clusters that ever had this address
    fn discovery_cache(&self) -> PathBuf {
        self.run.dir().join("discovery")
    }

    /// Runs a command that waits for pods of a namespace. Ends it early when one of the pods cannot become ready.
    ///
    /// # Errors
    /// Returns an error when the command cannot be started or a pod cannot become ready; the error then has the
    /// complete reason that Kubernetes gives.
    pub fn output_unless_hopeless(
        &self,
        namespace: &str,
        command: Command,
    ) -> Result<std::process::Output> {
        pod_watch::output_unless_hopeless(self.kubeconfig(), namespace, command)
    }

    /// Loads an image archive into every node.
    ///
    /// # Errors
    /// Returns an error when a node refuses the image.
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

    /// Leaves everything running. Returns the folder of the run, for [`run::end`].
    ///
    /// # Errors
    /// Returns an error when the folder of the run cannot be written.
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

    /// Checks that all programs of the cluster are running.
    ///
    /// # Errors
    /// Returns an error when a program has ended; the error quotes the end of its log.
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
