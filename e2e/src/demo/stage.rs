//! Where the story plays: the cluster with everything in it, and the ways to speak to it that a user has.

use super::{follow::Follower, gauge::Gauge, ground::Ground, screen::Screen};
use crate::{cluster::Cluster, load::Load, selvage::NAMESPACE};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// The demo's function and host.
pub(super) const FUNCTION: &str = "hello";
pub(super) const HOST: &str = "hello.example";
const MANIFEST: &str = include_str!("function.yaml");

/// Everything that runs.
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) ground: &'a mut Ground,
    pub(super) screen: &'a Screen,
    pub(super) follower: Follower,
    pub(super) gauge: Gauge,
    pub(super) load: Load,
}

/// The manifest of a version.
pub(super) fn manifest(cluster: &Cluster, version: &str) -> Result<String> {
    let registry = cluster
        .registry
        .as_ref()
        .context("the demo has a registry")?
        .address();
    Ok(MANIFEST
        .replace("REGISTRY", registry)
        .replace("VERSION", version))
}

/// `kubectl apply -f -`
pub(super) fn apply(cluster: &Cluster, text: &str) -> Result<()> {
    let mut kubectl = cluster
        .kubectl()
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start kubectl")?;
    kubectl
        .stdin
        .take()
        .context("kubectl reads")?
        .write_all(text.as_bytes())?;
    let output = kubectl.wait_with_output()?;
    ensure!(
        output.status.success(),
        "kubectl apply: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Whether the API server lets a service account of the release do something.
pub(super) fn may(cluster: &Cluster, account: &str, verb: &str, resource: &str) -> Result<bool> {
    let identity = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let output = output(
        cluster
            .kubectl()
            .args(["auth", "can-i", verb, resource, "-A", &identity]),
    )?;
    // a no may be followed by its reason
    match output.split_whitespace().next() {
        Some("yes") => Ok(true),
        Some("no") => Ok(false),
        other => bail!("whether {account} may {verb} {resource} was answered {other:?}"),
    }
}

/// Standard output; `can-i` fails when the answer is no.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("start kubectl")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The pod that leads, by the Lease.
pub(super) async fn leader(cluster: &Cluster) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), NAMESPACE);
    let lease = leases
        .get("selvage-operator")
        .await
        .context("read the Lease")?;
    let holder = lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .context("nobody leads")?;
    let pod = holder.split('/').next().unwrap_or_default();
    ensure!(!pod.is_empty(), "nobody leads");
    Ok(pod.to_owned())
}
