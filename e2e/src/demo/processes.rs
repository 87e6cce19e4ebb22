//! Runs the operator and three node-shims as processes of this machine, where nodes cannot run. They have the
//! identities that the chart gives their pods; everything else is the same as with nodes.

use super::platform::PAGE_PORT;
use crate::{
    cluster::{Cluster, Process, Target, wait},
    selvage::{NAMESPACE, RELEASE, dist, root},
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::{Api, api::PostParams};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const NODES: u8 = 3;
/// Audience of the tokens of the node API.
const AUDIENCE: &str = "selvage-node-api";
/// Argument for the lifetime of the tokens, longer than any demo.
const VALID: &str = "--duration=12h";

/// The programs of an installation without pods.
pub(super) struct Processes {
    dir: PathBuf,
    operators: Vec<Process>,
    shims: Vec<Process>,
    /// Number of operators started so far. A replacement has its own name and address, like a pod.
    started: u8,
}

impl Processes {
    /// Installs the chart for its identities and permissions, then starts two operators and three shims.
    pub(super) async fn start(cluster: &Cluster) -> Result<Self> {
        install(cluster)?;
        let dir = cluster.run().dir().join("processes");
        fs::create_dir_all(&dir)?;
        identity(cluster, &dir)?;
        let mut all = Self {
            dir,
            operators: Vec::new(),
            shims: Vec::new(),
            started: 0,
        };
        for _ in 0..2 {
            all.start_operator(cluster).await?;
        }
        all.authority(cluster).await?;
        for number in 1..=NODES {
            all.start_shim(cluster, number).await?;
        }
        all.scrape(cluster)?;
        Ok(all)
    }

    /// Returns the addresses for requests.
    pub(super) fn targets(cluster: &Cluster) -> Vec<SocketAddr> {
        (1..=NODES)
            .map(|number| SocketAddr::from((shim_address(cluster, number), 8080)))
            .collect()
    }

    /// Kills the operator that holds the lease under this name and starts another one, as a Deployment does.
    pub(super) async fn kill(&mut self, cluster: &Cluster, name: &str) -> Result<()> {
        let at = self
            .operators
            .iter()
            .position(|process| process.name() == name);
        self.operators
            .swap_remove(at.with_context(|| format!("no operator {name}"))?)
            .kill();
        self.start_operator(cluster).await?;
        self.scrape(cluster)
    }

    /// Returns the names of all processes.
    pub(super) fn names(&self) -> Vec<String> {
        self.operators
            .iter()
            .chain(&self.shims)
            .map(|process| process.name().to_owned())
            .collect()
    }

    /// Returns the address of the page of the newest operator.
    pub(super) fn page(&self, cluster: &Cluster) -> SocketAddr {
        let newest = operator_address(cluster, self.started.saturating_sub(1));
        SocketAddr::from((newest, PAGE_PORT))
    }

    /// Leaves all of them running after the end of the demo.
    pub(super) fn release(self) {
        self.operators
            .into_iter()
            .chain(self.shims)
            .for_each(Process::release);
    }

    async fn start_operator(&mut self, cluster: &Cluster) -> Result<()> {
        let name = format!("selvage-operator-{}", self.started);
        let address = operator_address(cluster, self.started);
        self.started += 1;
        pod(cluster, &name, "selvage-operator", "node1").await?;
        fs::write(
            self.dir.join(format!("{name}.token")),
            token(cluster, "selvage-operator", &name)?,
        )?;
        let file = |name: &str| self.dir.join(name).display().to_string();
        let mut flags: Vec<String> = vec![
            "run".into(),
            format!("--namespace={NAMESPACE}"),
            format!("--pod-name={name}"),
            format!("--pod-ip={address}"),
            format!("--node-api-addr={address}:9443"),
            format!("--admin-addr={address}:9180"),
            format!("--page-addr={address}:{PAGE_PORT}"),
            format!("--operator-token-file={}", file(&format!("{name}.token"))),
            "--scrape-interval=2s".into(),
        ];
        flags.extend(
            cluster
                .prometheus
                .as_ref()
                .map(|prometheus| format!("--prometheus-url={}", prometheus.url())),
        );
        flags.extend(insecure(cluster));
        let env = vec![("KUBECONFIG".into(), file("operator.kubeconfig"))];
        let process = Process::start_with(
            cluster.run().dir(),
            &name,
            &dist().join("operator"),
            flags,
            env,
        )?;
        self.operators.push(process);
        Ok(())
    }

    async fn start_shim(&mut self, cluster: &Cluster, number: u8) -> Result<()> {
        let node = format!("node{number}");
        let nodes: Api<Node> = Api::all(cluster.client());
        let labels = json!({ "kubernetes.io/hostname": node, "kubernetes.io/os": "linux" });
        let body =
            serde_json::from_value(json!({ "metadata": { "name": node, "labels": labels } }))?;
        nodes
            .create(&PostParams::default(), &body)
            .await
            .context("make a node")?;
        pod(cluster, &format!("shim-{node}"), "selvage-node-shim", &node).await?;
        let token = token(cluster, "selvage-node-shim", &format!("shim-{node}"))?;
        let file = |name: String| self.dir.join(name).display().to_string();
        fs::write(self.dir.join(format!("{node}.token")), token)?;
        let address = shim_address(cluster, number);
        let mut flags: Vec<String> = vec![
            "run".into(),
            format!("--node-name={node}"),
            "--node-api-server-name=selvage-node-api".into(),
            format!("--node-api-ca={}", file("ca.crt".into())),
            format!("--token-file={}", file(format!("{node}.token"))),
            format!("--state-dir={}", file(node.clone())),
            format!("--data-addr={address}:8080"),
            format!("--admin-addr={address}:9180"),
        ];
        // a replacement of an operator listens at the next address, so the list contains some in advance
        flags.extend(
            (0..4).map(|n| format!("--node-api=https://{}:9443", operator_address(cluster, n))),
        );
        flags.extend(insecure(cluster));
        fs::create_dir_all(self.dir.join(&node))?;
        let program = dist().join("node-shim");
        self.shims.push(Process::start(
            cluster.run().dir(),
            &format!("shim-{node}"),
            &program,
            flags,
        )?);
        Ok(())
    }

    /// Waits for the certificate that the first leader creates, and writes it to a file for the shims.
    async fn authority(&mut self, cluster: &Cluster) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(cluster.client(), NAMESPACE);
        let operators = &mut self.operators;
        let ca = wait::until(
            Duration::from_secs(60),
            Duration::from_millis(100),
            async || {
                for operator in &mut *operators {
                    operator.check()?;
                }
                let secret = secrets.get_opt("selvage-node-api").await?;
                Ok(secret.and_then(|secret| secret.data?.remove("ca.crt")))
            },
        )
        .await
        .context("wait for the certificate of the node API")?;
        fs::write(self.dir.join("ca.crt"), ca.0)?;
        Ok(())
    }

    fn scrape(&self, cluster: &Cluster) -> Result<()> {
        let Some(prometheus) = &cluster.prometheus else {
            return Ok(());
        };
        let target = |address: Ipv4Addr, labels| Target {
            address: format!("{address}:9180"),
            labels,
        };
        let shims: Vec<Target> = (1..=NODES)
            .map(|number| {
                let labels = BTreeMap::from([
                    ("namespace".into(), NAMESPACE.to_owned()),
                    ("pod".into(), format!("selvage-node-shim-{number}")),
                    ("node_name".into(), format!("node{number}")),
                ]);
                target(shim_address(cluster, number), labels)
            })
            .collect();
        prometheus.set_targets("node-shim", &shims)?;
        let operators: Vec<Target> = (0..self.started)
            .map(|n| target(operator_address(cluster, n), BTreeMap::new()))
            .collect();
        prometheus.set_targets("operator", &operators)
    }
}

/// Returns a loopback address next to that of the control plane, so that each process can use the same ports.
fn address(cluster: &Cluster, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = cluster.host().octets();
    Ipv4Addr::new(a, b, c, last)
}

fn operator_address(cluster: &Cluster, number: u8) -> Ipv4Addr {
    address(cluster, 100 + number)
}

fn shim_address(cluster: &Cluster, number: u8) -> Ipv4Addr {
    address(cluster, 10 + number)
}

fn insecure(cluster: &Cluster) -> Option<String> {
    cluster
        .registry
        .as_ref()
        .map(|registry| format!("--insecure-registry={}", registry.address()))
}

/// Installs the chart without waiting, because there are no nodes for its pods.
fn install(cluster: &Cluster) -> Result<()> {
    let output = cluster
        .helm()?
        .args([
            "upgrade",
            "--install",
            RELEASE,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
        ])
        .arg(root().join("charts/selvage"))
        .output()
        .context("start helm")?;
    ensure!(
        output.status.success(),
        "helm upgrade: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Writes a kubeconfig with the identity of the operator.
fn identity(cluster: &Cluster, dir: &Path) -> Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "selvage",
        "clusters": [{ "name": "selvage", "cluster": {
            "server": cluster.server(), "certificate-authority": cluster.ca_file(),
        }}],
        "users": [{ "name": "operator", "user": { "token": token_for_api(cluster)? } }],
        "contexts": [{ "name": "selvage", "context": { "cluster": "selvage", "user": "operator" } }],
    });
    fs::write(
        dir.join("operator.kubeconfig"),
        serde_yaml::to_string(&config)?,
    )?;
    Ok(())
}

fn token_for_api(cluster: &Cluster) -> Result<String> {
    create_token(cluster.kubectl().args([
        "-n",
        NAMESPACE,
        "create",
        "token",
        "selvage-operator",
        VALID,
    ]))
}

/// Requests a token of the node API, bound to the pod that a process represents.
fn token(cluster: &Cluster, account: &str, pod: &str) -> Result<String> {
    let (audience, bound) = (
        format!("--audience={AUDIENCE}"),
        format!("--bound-object-name={pod}"),
    );
    let mut kubectl = cluster.kubectl();
    kubectl.args([
        "-n", NAMESPACE, "create", "token", account, VALID, &audience, &bound,
    ]);
    create_token(kubectl.arg("--bound-object-kind=Pod"))
}

/// Returns the pod that a process represents. Without a kubelet it does not change.
async fn pod(cluster: &Cluster, name: &str, account: &str, node: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let body = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": node, "serviceAccountName": account,
            "containers": [{ "name": "process", "image": "selvage.local/process" }],
            // the node never becomes Ready
            "tolerations": [{ "operator": "Exists" }],
        },
    }))?;
    pods.create(&PostParams::default(), &body)
        .await
        .with_context(|| format!("make the pod {name}"))?;
    Ok(())
}

fn create_token(command: &mut Command) -> Result<String> {
    let output = command.output().context("start kubectl")?;
    ensure!(
        output.status.success(),
        "create token: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
