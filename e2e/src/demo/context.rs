//! Everything that the parts of the demo share, and the commands of a user: apply a manifest, check a permission.

use super::{
    evidence_metrics::EvidenceReader, follow::Follower, platform::Platform, screen::Screen,
};
use crate::{cluster::Cluster, load::Load, selvage::NAMESPACE};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Name of the demo's function. `HOST` is its host name.
pub(super) const FUNCTION: &str = "hello";
pub(super) const HOST: &str = "hello.example";
const MANIFEST: &str = include_str!("function.yaml");

/// Cluster, load generator and output of the demo.
pub(super) struct DemoContext<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) platform: &'a mut Platform,
    pub(super) screen: &'a Screen,
    pub(super) follower: Follower,
    pub(super) evidence: EvidenceReader,
    pub(super) load: Load,
}

/// Returns the manifest of the function with a version.
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

/// Runs `kubectl apply -f -` with a manifest.
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

/// Returns whether a service account of the release has a permission, according to the API server.
pub(super) fn may(cluster: &Cluster, account: &str, verb: &str, resource: &str) -> Result<bool> {
    let identity = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
    let output = output(
        cluster
            .kubectl()
            .args(["auth", "can-i", verb, resource, "-A", &identity]),
    )?;
    // "no" may be followed by the reason
    match output.split_whitespace().next() {
        Some("yes") => Ok(true),
        Some("no") => Ok(false),
        other => bail!("whether {account} may {verb} {resource} was answered {other:?}"),
    }
}

/// Returns the standard output of a command, also when it fails: `can-i` fails when the answer is no.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().context("start kubectl")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the name of the leading pod, read from the Lease.
pub(super) async fn leader(cluster: &Cluster) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(cluster.client(), NAMESPACE);
    let lease = leases
        .get("selvage-operator")
        .await
        .context("read the Lease")?;
    let holder = lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .context("no replica leads")?;
    let pod = holder.split('/').next().unwrap_or_default();
    ensure!(!pod.is_empty(), "no replica leads");
    Ok(pod.to_owned())
}
