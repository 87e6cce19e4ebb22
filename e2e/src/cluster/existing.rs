//! Support for an existing cluster that `KUBECONFIG` names, for example of kind, k3s or a cloud provider. Registry
//! and Prometheus still run on this machine, at the address from which it reaches the cluster.

use super::{cache::run as run_command, process::Process, run::Run, tools::Tools};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{
    env,
    ffi::OsStr,
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// An existing cluster.
#[derive(Debug)]
pub(super) struct Existing {
    context: String,
    /// Path of a copy of the kubeconfig, merged into one file.
    pub(super) kubeconfig: PathBuf,
    pub(super) server: String,
    /// Address of this machine that the cluster's pods may reach.
    pub(super) host: Ipv4Addr,
    /// The `kubectl proxy` through which Prometheus scrapes pods, because this machine may have no route to them.
    pub(super) proxy: Process,
    pub(super) proxy_address: String,
    /// IP addresses of the nodes.
    pub(super) nodes: Vec<Ipv4Addr>,
}

/// Returns whether `KUBECONFIG` is set.
#[must_use]
pub fn is_named() -> bool {
    env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty())
}

impl Existing {
    pub(super) async fn find(run: &Run, tools: &Tools) -> Result<Self> {
        let file = Kubeconfig::from_env()
            .context("read what KUBECONFIG names")?
            .context("KUBECONFIG names no file")?;
        let context = file.current_context.clone().unwrap_or_default();
        let kubeconfig = run.dir().join("kubeconfig");
        fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&kubeconfig)
            .and_then(|mut copy| {
                copy.write_all(serde_yaml::to_string(&file).unwrap_or_default().as_bytes())
            })
            .context("copy the kubeconfig")?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .context("use what KUBECONFIG names")?;
        let server = config.cluster_url.clone();
        let host = server.host().unwrap_or_default().to_owned();
        let host = local_address(&host, server.port_u16().unwrap_or(443))?;
        let nodes = node_addresses(Client::try_from(config)?).await?;
        let listen = run.slot().host();
        let port = run.slot().port(8001)?;
        let flags = [
            format!("--kubeconfig={}", kubeconfig.display()),
            "proxy".into(),
            format!("--address={listen}"),
            format!("--port={port}"),
            format!("--accept-hosts=^{listen}$"),
        ];
        let proxy = Process::start(run.dir(), "kubectl-proxy", &tools.program("kubectl"), flags)?;
        Ok(Self {
            context,
            kubeconfig,
            server: server.to_string(),
            host,
            proxy,
            proxy_address: format!("{listen}:{port}"),
            nodes,
        })
    }

    /// Loads an image archive into all nodes with the tool that created the cluster.
    pub(super) fn import_image(&self, archive: &Path) -> Result<()> {
        let own = env::var_os("SELVAGE_IMAGE_LOADER");
        let mut command = loader(&self.context, archive, own.as_deref())?;
        run_command(&mut command).with_context(|| format!("load {}", archive.display()))?;
        Ok(())
    }
}

/// Returns the local address from which this machine reaches the API server; if the API server runs on this machine,
/// the address of its default route.
fn local_address(host: &str, port: u16) -> Result<Ipv4Addr> {
    let servers = (host.trim_matches(['[', ']']), port).to_socket_addrs();
    let server = servers
        .context("resolve the API server")?
        .find(std::net::SocketAddr::is_ipv4);
    // connecting a UDP socket sends no packet, it only consults the routing table
    for target in server.into_iter().chain(["192.0.2.1:9".parse()?]) {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        if socket.connect(target).is_ok()
            && let IpAddr::V4(address) = socket.local_addr()?.ip()
            && !address.is_loopback()
        {
            return Ok(address);
        }
    }
    bail!("this machine has no IPv4 address that pods could reach")
}

async fn node_addresses(client: Client) -> Result<Vec<Ipv4Addr>> {
    let nodes: Api<Node> = Api::all(client);
    let found = nodes
        .list(&ListParams::default())
        .await
        .context("list the nodes")?;
    let internal = |node: Node| {
        let addresses = node.status?.addresses?;
        addresses
            .into_iter()
            .filter(|a| a.type_ == "InternalIP")
            .find_map(|a| a.address.parse().ok())
    };
    Ok(found.items.into_iter().filter_map(internal).collect())
}

/// Returns the command that loads an image into the cluster, derived from the name of the kubeconfig context, which
/// the tools set.
fn loader(context: &str, archive: &Path, own: Option<&OsStr>) -> Result<Command> {
    let (program, before, after): (_, &[&str], Vec<&str>) = if let Some(own) = own {
        (own, &[], Vec::new())
    } else if let Some(name) = context.strip_prefix("kind-") {
        (
            OsStr::new("kind"),
            &["load", "image-archive"],
            vec!["--name", name],
        )
    } else if let Some(name) = context.strip_prefix("k3d-") {
        (
            OsStr::new("k3d"),
            &["image", "import"],
            vec!["--cluster", name],
        )
    } else if context == "minikube" {
        (OsStr::new("minikube"), &["image", "load"], Vec::new())
    } else {
        bail!(
            "the nodes of {context} need images: set SELVAGE_IMAGE_LOADER to a program that loads the archive it is given"
        );
    };
    let mut command = Command::new(program);
    command.args(before).arg(archive).args(after);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(context: &str, own: Option<&str>) -> String {
        let command = loader(context, Path::new("x.tar"), own.map(OsStr::new)).unwrap();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn images_are_loaded_by_the_tool_that_made_the_cluster() {
        assert_eq!(
            line("kind-dev", None),
            "kind load image-archive x.tar --name dev"
        );
        assert_eq!(
            line("k3d-dev", None),
            "k3d image import x.tar --cluster dev"
        );
        assert_eq!(line("anything", Some("/bin/load")), "/bin/load x.tar");
        assert!(loader("anything", Path::new("x.tar"), None).is_err());
    }

    #[test]
    fn loopback_is_not_an_address_for_pods() {
        if let Ok(address) = local_address("127.0.0.1", 6443) {
            assert!(!address.is_loopback());
        }
    }
}
