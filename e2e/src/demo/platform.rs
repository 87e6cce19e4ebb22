//! Platform of the demo: pods on real nodes, or processes where nodes cannot run.

use super::{processes::Processes, screen::Screen};
use crate::{
    cluster::{Cluster, Node, Options, Purpose, Source, install, is_named, probe},
    selvage::{self, EDGE_PORT, NAMESPACE, RELEASE},
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use std::net::SocketAddr;

/// Port of the page, in the pods and of its Service.
pub(super) const PAGE_PORT: u16 = 9181;
/// Port of every node on which the page answers, on a local cluster.
const PAGE_NODE_PORT: u16 = 30081;
/// Namespace of the demo.
pub(super) const DEMO: &str = "demo";
/// Number of nodes, or of processes in their place.
pub(super) const NODES: u8 = 3;

const KINDS: [&str; 5] = [
    "edgefunctions.selvage.dev",
    "edgerevisions.selvage.dev",
    "rolloutpolicies.selvage.dev",
    "edgenodes.selvage.dev",
    "hostclaims.selvage.dev",
];

/// How Selvage runs in the demo: as pods or as processes.
pub(super) enum Platform {
    /// Pods on the nodes of a local cluster.
    Nodes,
    /// Pods on the nodes of the cluster that `KUBECONFIG` names.
    Existing,
    /// Processes beside a control plane.
    Processes(Option<Processes>),
}

impl Platform {
    /// Chooses nodes if this machine can run them and processes were not requested. Otherwise prints why not.
    ///
    /// # Errors
    /// Returns an error when a Debian package that nodes need cannot be installed. The demo then ends instead of
    /// continuing without nodes.
    pub(super) fn choose(screen: &Screen, processes: bool) -> Result<Self> {
        if is_named() && !processes {
            return Ok(Self::Existing);
        }
        if !processes && rustix::process::geteuid().is_root() {
            install(&[Purpose::ControlPlane, Purpose::Nodes])?;
        }
        let reason = if processes {
            "asked for".into()
        } else {
            probe().err().map_or(String::new(), |e| format!("{e:#}"))
        };
        if reason.is_empty() {
            return Ok(Self::Nodes);
        }
        screen.part(&format!(
            "no nodes ({reason}): operator and shims run as processes under the identities of the chart"
        ));
        Ok(Self::Processes(None))
    }

    /// Downloads and builds what is missing, and announces it, because the first run takes minutes.
    pub(super) fn prepare(&self, screen: &Screen) -> Result<()> {
        install(&[Purpose::ControlPlane])?;
        for (source, time) in [(Source::Kubernetes, "five"), (Source::Prometheus, "three")] {
            if !source.is_built()? {
                screen.part(&format!(
                    "{source} is built from source, once on this machine: about {time} minutes on two cores"
                ));
                source.build()?;
                screen.part("built and kept for the next run");
            }
        }
        Ok(())
    }

    /// Starts or connects to the cluster.
    pub(super) async fn start(&self, screen: &Screen) -> Result<Cluster> {
        let nodes = if matches!(self, Self::Nodes) {
            NODES
        } else {
            0
        };
        let options = Options {
            nodes,
            ..Options::default()
        };
        let report = |part: &str, _| screen.part(part);
        match self {
            Self::Existing => {
                let cluster = Cluster::existing(&options, &report).await?;
                // the demo uninstalls Selvage at its end, so an existing installation must not be used
                let found = cluster
                    .kubectl()
                    .args(["get", "customresourcedefinitions"])
                    .args(KINDS)
                    .output()?;
                ensure!(
                    found.stdout.is_empty(),
                    "Selvage is already installed in the cluster of KUBECONFIG"
                );
                Ok(cluster)
            }
            Self::Nodes | Self::Processes(_) => Cluster::start(&options, &report).await,
        }
    }

    /// Removes everything that the demo created from an existing cluster. Does nothing for a local cluster, which is
    /// removed as a whole.
    pub(super) fn uninstall(&self, cluster: &Cluster) -> Result<()> {
        if !matches!(self, Self::Existing) {
            return Ok(());
        }
        cluster
            .kubectl()
            .args(["delete", "namespace", DEMO, "--ignore-not-found"])
            .output()?;
        let release = [
            "uninstall",
            RELEASE,
            "--namespace",
            NAMESPACE,
            "--wait",
            "--ignore-not-found",
        ];
        cluster.helm()?.args(release).output()?;
        cluster
            .kubectl()
            .args(["delete", "namespace", NAMESPACE, "--ignore-not-found"])
            .output()?;
        cluster
            .kubectl()
            .args(["delete", "--ignore-not-found", "customresourcedefinitions"])
            .args(KINDS)
            .output()?;
        Ok(())
    }

    /// Describes the nodes, for the table of outcomes.
    pub(super) fn figures(&self, cluster: &Cluster) -> String {
        let count = self.targets(cluster).len();
        match self {
            Self::Nodes => format!("{count} nodes Ready"),
            Self::Existing => format!("{count} nodes of the cluster of KUBECONFIG"),
            Self::Processes(_) => format!("{count} processes in the place of nodes"),
        }
    }

    /// Installs Selvage by Helm. Returns one line per running part.
    pub(super) async fn install(&mut self, cluster: &Cluster) -> Result<Vec<String>> {
        match self {
            Self::Nodes | Self::Existing => {
                // no load balancer has to notice the end of a pod when the demo removes it
                let quick = ["nodeShim.drain.propagation=1s", "nodeShim.drain.timeout=5s"];
                let mut settings = vec!["page.enabled=true".to_owned()];
                if cluster.is_existing() {
                    settings.extend(quick.map(ToOwned::to_owned));
                } else {
                    settings.push("page.service.type=NodePort".to_owned());
                    settings.push(format!("page.service.nodePort={PAGE_NODE_PORT}"));
                }
                let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
                selvage::install(cluster, &settings)?;
                pods(cluster)
            }
            Self::Processes(processes) => {
                let started = Processes::start(cluster).await?;
                let names = started.names();
                *processes = Some(started);
                Ok(names)
            }
        }
    }

    /// Says how to open the page about functions and rollouts. On a local cluster and for processes, this is its URL.
    pub(super) fn page(&self, cluster: &Cluster) -> Result<String> {
        let address = match self {
            Self::Existing => {
                return Ok(format!(
                    "kubectl -n {NAMESPACE} port-forward service/selvage-page {PAGE_PORT}, then http://localhost:{PAGE_PORT}/"
                ));
            }
            Self::Nodes => {
                let node = cluster.node_addresses().into_iter().next();
                SocketAddr::from((node.context("the cluster has a node")?, PAGE_NODE_PORT))
            }
            Self::Processes(processes) => {
                let processes = processes.as_ref().context("nothing is installed")?;
                processes.page(cluster)
            }
        };
        Ok(format!("http://{address}/"))
    }

    /// Returns the addresses for requests, one per node.
    pub(super) fn targets(&self, cluster: &Cluster) -> Vec<SocketAddr> {
        match self {
            Self::Nodes | Self::Existing => cluster
                .node_addresses()
                .into_iter()
                .map(|node| SocketAddr::from((node, EDGE_PORT)))
                .collect(),
            Self::Processes(_) => Processes::targets(cluster),
        }
    }

    /// Kills an operator at once, without a graceful shutdown.
    pub(super) async fn kill(&mut self, cluster: &Cluster, name: &str) -> Result<()> {
        match self {
            Self::Nodes | Self::Existing => {
                let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
                let pod = pods.get(name).await.context("find the leader")?;
                // deleting a pod terminates it gracefully, however short the grace period: on a local node, kill its
                // process first
                if let Some(node) = cluster
                    .nodes()
                    .iter()
                    .find(|node| Some(node.name()) == on(&pod))
                {
                    sigkill(node, &pod)?;
                }
                let at_once = DeleteParams::default().grace_period(0);
                pods.delete(name, &at_once)
                    .await
                    .context("kill the leader")?;
                Ok(())
            }
            Self::Processes(processes) => {
                processes
                    .as_mut()
                    .context("nothing is installed")?
                    .kill(cluster, name)
                    .await
            }
        }
    }

    /// Leaves everything running after the end of the demo.
    pub(super) fn release(self) {
        if let Self::Processes(Some(processes)) = self {
            processes.release();
        }
    }
}

fn pods(cluster: &Cluster) -> Result<Vec<String>> {
    let output = cluster
        .kubectl()
        .args(["-n", NAMESPACE, "get", "pods", "--no-headers", "-o", "wide"])
        .output()
        .context("start kubectl")?;
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, ready, state, _, _, _, node, ..] = words.as_slice() else {
            return line.to_owned();
        };
        format!("{name}  {ready} {state} on {node}")
    };
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(line)
        .collect())
}

/// Returns the name of the node on which a pod runs.
fn on(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Sends SIGKILL to the programs of a pod.
fn sigkill(node: &Node, pod: &Pod) -> Result<()> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    for id in statuses
        .into_iter()
        .flatten()
        .filter_map(|status| status.container_id.as_deref())
    {
        let id = id.trim_start_matches("containerd://");
        let killed = node
            .command("ctr")?
            .args(["-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id])
            .output()?;
        ensure!(
            killed.status.success(),
            "kill: {}",
            String::from_utf8_lossy(&killed.stderr).trim()
        );
    }
    Ok(())
}
