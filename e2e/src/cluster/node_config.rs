//! Writes the configuration files of a node's programs.

use anyhow::{Context, Result};
use serde_json::json;
use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use super::{
    cache::run,
    packages::{cni_dir, program},
    tools::PAUSE_IMAGE,
};

/// Number of the Linux capability `CAP_SYS_RESOURCE`, which is needed to lower the OOM score of another process.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// Settings that differ between nodes.
pub(super) struct Settings<'a> {
    pub(super) name: &'a str,
    pub(super) address: Ipv4Addr,
    /// Pod range of this node.
    pub(super) pods: String,
    /// Pod range of all nodes.
    pub(super) all_pods: String,
    /// Address of the DNS server that kubelet writes into pods. The cluster does not have one.
    pub(super) dns: Ipv4Addr,
    /// Path of the node's control group.
    pub(super) group: &'a str,
    pub(super) pki: &'a Path,
}

impl Settings<'_> {
    /// Writes `containerd.toml`, `kubelet.yaml`, `kube-proxy.yaml` and the network of pods into the node's folder.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let version = run(Command::new(program("containerd")?).arg("--version"))
            .context("ask containerd for its version")?;
        let restrict = !has_capability(&fs::read_to_string("/proc/self/status")?, CAP_SYS_RESOURCE);
        let text = containerd(major(&version), restrict, snapshotter(dir)?, cni_dir()?);
        fs::write(dir.join("containerd.toml"), text)?;
        fs::write(dir.join("kubelet.yaml"), self.kubelet().to_string())?;
        fs::write(dir.join("kube-proxy.yaml"), self.kube_proxy().to_string())?;
        fs::create_dir_all(dir.join("cni"))?;
        fs::write(dir.join("cni/10-bridge.conflist"), self.cni().to_string())?;
        Ok(())
    }

    fn cni(&self) -> serde_json::Value {
        json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [
            { "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
              "ipam": { "type": "host-local", "ranges": [[{ "subnet": self.pods }]],
                        // assigned addresses are forgotten when the node dies, like its pods
                        "dataDir": "/run/cni-ipam", "routes": [{ "dst": "0.0.0.0/0" }] } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ]})
    }

    fn kubelet(&self) -> serde_json::Value {
        let pki = |name: String| self.pki.join(name).display().to_string();
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": self.address, "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": { "enabled": false }, "webhook": { "enabled": true },
                "x509": { "clientCAFile": pki("ca.crt".into()) },
            },
            "authorization": { "mode": "Webhook" },
            "tlsCertFile": pki(format!("{}-serving.crt", self.name)),
            "tlsPrivateKeyFile": pki(format!("{}-serving.key", self.name)),
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs", "cgroupRoot": self.group, "cgroupsPerQOS": true,
            "enforceNodeAllocatable": [], "failSwapOn": false, "failCgroupV1": false,
            "resolvConf": "", "clusterDomain": "cluster.local",
            // no DNS server listens there, but without an address every pod gets a warning
            "clusterDNS": [self.dns],
            // imported images cannot be pulled again
            "imageGCHighThresholdPercent": 100, "imageMinimumGCAge": "24h",
            "evictionHard": {
                "memory.available": "50Mi", "nodefs.available": "1%",
                "nodefs.inodesFree": "1%", "imagefs.available": "1%",
            },
            "nodeStatusUpdateFrequency": "4s", "fileCheckFrequency": "5s", "syncFrequency": "10s",
            "shutdownGracePeriod": "0s",
        })
    }

    fn kube_proxy(&self) -> serde_json::Value {
        json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": "nftables", "clusterCIDR": self.all_pods, "hostnameOverride": self.name,
            "clientConnection": { "kubeconfig": self.pki.join("kube-proxy.kubeconfig") },
            // the limits of connection tracking apply to the whole machine, so do not change them
            "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
            "nodePortAddresses": ["primary"],
            "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
        })
    }
}

/// Returns the configuration of containerd. `restrict` keeps it from lowering OOM scores, because every sandbox fails
/// where the machine forbids that.
fn containerd(major: u32, restrict: bool, snapshotter: &str, cni: &str) -> String {
    let pause = PAUSE_IMAGE;
    if major >= 2 {
        return format!(
            r#"version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = {restrict}
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{cni}"]
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
        );
    }
    format!(
        r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = {restrict}
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{snapshotter}"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni}"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
    )
}

/// Chooses the snapshotter. Overlays cannot be stacked, so where the folder itself is on an overlay, such as the root
/// of a container, layers are copied instead.
pub(super) fn snapshotter(dir: &Path) -> Result<&'static str> {
    const OVERLAY: i64 = 0x794c_7630;
    let kind = rustix::fs::statfs(dir)
        .context("ask for the file system")?
        .f_type;
    Ok(if kind == OVERLAY {
        "native"
    } else {
        "overlayfs"
    })
}

/// Returns the major version from `containerd github.com/... v2.1.4 <commit>` or `... 1.6.20~ds1 ...`.
fn major(version: &str) -> u32 {
    version
        .split_whitespace()
        .filter_map(|word| word.trim_start_matches('v').split_once('.'))
        .find_map(|(major, _)| major.parse().ok())
        .unwrap_or(1)
}

fn has_capability(status: &str, capability: u64) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & capability != 0)
}

#[cfg(test)]
mod tests {
    use super::{super::packages::is_checked_plugin, *};

    #[test]
    fn every_plugin_of_the_pod_network_is_checked() {
        let settings = Settings {
            name: "node1",
            address: Ipv4Addr::LOCALHOST,
            pods: "10.1.1.0/24".into(),
            all_pods: "10.1.0.0/16".into(),
            dns: Ipv4Addr::LOCALHOST,
            group: "g",
            pki: Path::new("/pki"),
        };
        let list = settings.cni();
        let plugins = list["plugins"].as_array().unwrap();
        let types = plugins
            .iter()
            .flat_map(|plugin| [&plugin["type"], &plugin["ipam"]["type"]]);
        let named: Vec<&str> = types.filter_map(serde_json::Value::as_str).collect();
        assert_eq!(named, ["bridge", "host-local", "portmap"]);
        assert!(named.into_iter().chain(["loopback"]).all(is_checked_plugin));
    }

    #[test]
    fn containerd_looks_for_plugins_where_they_were_found() {
        let dir = r#"bin_dir = "/opt/cni/bin""#;
        assert!(containerd(1, false, "overlayfs", "/opt/cni/bin").contains(dir));
        let dirs = r#"bin_dirs = ["/opt/cni/bin"]"#;
        assert!(containerd(2, false, "overlayfs", "/opt/cni/bin").contains(dirs));
    }

    #[test]
    fn versions_of_containerd() {
        assert_eq!(
            major("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3"),
            1
        );
        assert_eq!(
            major("containerd github.com/containerd/containerd/v2 v2.4.2 abcdef0"),
            2
        );
    }

    #[test]
    fn capabilities_are_read_from_the_effective_mask() {
        assert!(!has_capability(
            "CapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\n",
            CAP_SYS_RESOURCE
        ));
        assert!(has_capability(
            "CapEff:\t000001ffffffffff\n",
            CAP_SYS_RESOURCE
        ));
    }
}
