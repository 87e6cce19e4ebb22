//! A node of the local cluster: kubelet, kube-proxy and containerd in their own namespaces.

use super::{
    cache::run as run_command,
    cgroup::{self, Layout},
    control_plane::Pki,
    net::{Slot, node_namespace},
    node_config,
    packages::{program, search_path},
    process::Process,
    run::Run,
    tools::Tools,
};
use crate::cluster::certs::Holder;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Node as KubeNode;
use std::{
    ffi::OsStr,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const INIT: &str = include_str!("node-init.sh");

/// A node of the cluster. Killing its process has the effect of a power failure.
#[derive(Debug)]
pub struct Node {
    number: u8,
    name: String,
    dir: PathBuf,
    run_id: String,
    slot: Slot,
    layout: Layout,
    snapshotter: &'static str,
    process: Process,
}

impl Node {
    /// Starts node `number` (from 1). It registers itself at the API server some seconds later.
    pub(super) fn start(
        run: &Run,
        tools: &Tools,
        pki: &Pki,
        layout: Layout,
        number: u8,
    ) -> Result<Self> {
        let name = format!("node{number}");
        let dir = run.dir().join(&name);
        fs::create_dir_all(&dir)?;
        let slot = run.slot();
        let group = layout.create(run.id(), number)?;
        certificates(pki, slot, &name, number)?;
        fs::copy(
            pki.dir.join(format!("{name}.kubeconfig")),
            dir.join("kubelet.kubeconfig"),
        )?;
        let settings = node_config::Settings {
            name: &name,
            address: slot.node(number),
            pods: slot.pods(number),
            all_pods: slot.all_pods(),
            dns: slot.dns(),
            group: &group,
            pki: &pki.dir,
        };
        settings.write(&dir)?;
        let snapshotter = node_config::snapshotter(&dir)?;
        let namespace = node_namespace(run.id(), number);
        let mut line: Vec<String> = vec![
            format!("--net=/run/netns/{namespace}"),
            program("unshare")?.display().to_string(),
        ];
        // `ip netns exec` cannot be used: it mounts a new /sys, without the control groups
        for flag in [
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ] {
            line.push(flag.into());
        }
        line.extend(["--propagation", "private", "sh", "-c", INIT, "node-init.sh"].map(Into::into));
        let env = vec![
            ("NODE".into(), name.clone()),
            ("SNAPSHOTTER".into(), snapshotter.into()),
            ("NODE_DIR".into(), dir.display().to_string()),
            ("NODE_IP".into(), slot.node(number).to_string()),
            (
                "PROGRAMS".into(),
                format!("{}:{}", tools.dir().display(), search_path()),
            ),
            (
                "PAUSE_IMAGE".into(),
                tools.pause_image().display().to_string(),
            ),
        ];
        let process = Process::start_with(run.dir(), &name, &program("nsenter")?, line, env)?;
        let run_id = run.id().to_owned();
        Ok(Self {
            number,
            name,
            dir,
            run_id,
            slot,
            layout,
            snapshotter,
            process,
        })
    }

    /// Returns the name of the node in Kubernetes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address of the node, which the host can reach.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.slot.node(self.number)
    }

    /// Returns the paths of the logs of its programs.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        let mut logs: Vec<PathBuf> = ["containerd.log", "kubelet.log", "kube-proxy.log"]
            .map(|name| self.dir.join(name))
            .into();
        logs.push(self.process.log());
        logs
    }

    /// Kills all processes of the node at once, including pods.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the node again after [`Self::kill`]. Only its disk survives.
    ///
    /// # Errors
    /// Returns an error when earlier processes of the node do not end, or the node cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        cgroup::clear(&self.run_id, self.number)?;
        self.layout.create(&self.run_id, self.number)?;
        self.process.restart()
    }

    /// Returns a command that runs in all namespaces of the node, as root.
    ///
    /// # Errors
    /// Returns an error when the node does not run.
    pub fn command(&self, name: impl AsRef<OsStr>) -> Result<Command> {
        let init = self.init()?.to_string();
        let mut command = Command::new(program("nsenter")?);
        command
            .args([
                "-t", &init, "--mount", "--uts", "--ipc", "--net", "--pid", "--",
            ])
            .arg(name)
            .env("PATH", search_path());
        Ok(command)
    }

    /// Returns the id of the node's first process on the host: the only child of the process that created its
    /// namespaces.
    fn init(&self) -> Result<u32> {
        let parent = self
            .process
            .pid()
            .with_context(|| format!("{} does not run", self.name))?;
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
            .with_context(|| format!("find the first process of {}", self.name))?;
        children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .with_context(|| format!("{} has no first process", self.name))
    }

    /// Loads an image archive into the node's containerd, so that pods can use it without a registry.
    ///
    /// # Errors
    /// Returns an error when the node does not run or the archive is not an image.
    pub fn import_image(&self, archive: &Path) -> Result<()> {
        // by standard input, because the node may not see the file
        let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
        let output = self
            .command("ctr")?
            .args([
                "-n",
                "k8s.io",
                "images",
                "import",
                "--snapshotter",
                self.snapshotter,
                "-",
            ])
            .stdin(file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .context("start ctr")?;
        output.status.success().then_some(()).with_context(|| {
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            format!("import {} into {}: {stderr}", archive.display(), self.name)
        })
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub(super) fn into_process(self) -> Process {
        self.process
    }

    /// Checks that the node is running.
    ///
    /// # Errors
    /// Returns an error when the node has ended.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}

fn certificates(pki: &Pki, slot: Slot, name: &str, number: u8) -> Result<()> {
    let user = format!("system:node:{name}");
    pki.ca.kubeconfig(
        &Holder {
            file: name,
            name: &user,
            group: Some("system:nodes"),
        },
        &pki.server,
    )?;
    let file = format!("{name}-serving");
    let holder = Holder {
        file: &file,
        name,
        group: None,
    };
    pki.ca
        .server(&holder, &[name], &[IpAddr::V4(slot.node(number))])
}

/// Returns the reason why a node is not Ready, with the complete message of kubelet, or `None` when it is Ready.
pub(super) fn not_ready(name: &str, nodes: &[KubeNode]) -> Option<String> {
    let node = nodes
        .iter()
        .find(|node| node.metadata.name.as_deref() == Some(name));
    let Some(node) = node else {
        return Some(format!("{name} has not registered itself"));
    };
    let conditions = node.status.iter().filter_map(|s| s.conditions.as_ref());
    let ready = conditions.flatten().find(|c| c.type_ == "Ready");
    match ready {
        Some(ready) if ready.status == "True" => None,
        ready => {
            let message = ready.and_then(|ready| ready.message.as_deref());
            Some(format!(
                "{name} is not Ready: {}",
                message.unwrap_or("no status yet")
            ))
        }
    }
}

/// Checks whether nodes can run on this machine and returns the layout of its control groups.
///
/// # Errors
/// Returns an error with one sentence that names what is missing.
pub fn probe() -> Result<Layout> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("nodes need root");
    }
    super::net::probe()?;
    run_command(Command::new(program("unshare")?).args([
        "--mount",
        "--uts",
        "--ipc",
        "--pid",
        "--fork",
        "--mount-proc",
        "true",
    ]))
    .context("namespaces of mounts and processes cannot be made")?;
    cgroup::probe().context("control groups cannot be made")
}
