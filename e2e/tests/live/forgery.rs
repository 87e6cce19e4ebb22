//! A pod of another namespace that pretends to be a node-shim.

use crate::{
    evidence::{begin, prometheus, promoted, until_value},
    scenarios, secrets,
    world::World,
};
use anyhow::{Context, Result, ensure};
use e2e::selvage::NAMESPACE;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::net::IpAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

scenarios![alone: [a_forged_pod_changes_no_verdict]];

/// Failures that the forged pod adds with each scrape. A tenth of them would roll the candidate back.
const FAILURES: u64 = 1000;

/// FE-6: Prometheus scrapes a pod of another namespace that has the labels of a node-shim and exposes the metrics of a
/// real one, in which every request of the candidate fails. The candidate is promoted.
async fn a_forged_pod_changes_no_verdict(world: &mut World) -> Result<()> {
    let world = &*world;
    let ns = world.namespace("t-forged").await?;
    let load = begin(world, &ns, "forged.example", "30s").await?;
    let shims = secrets::shims(world).await?;
    let truth = metrics(world, &shims.first().context("no shim")?.name_any()).await?;

    let listener = TcpListener::bind((world.cluster.host(), 0)).await?;
    let address = listener.local_addr()?;
    // ends with this scenario
    let mut server = JoinSet::new();
    server.spawn(serve(listener, truth));
    forge(world, &ns, address.ip(), address.port()).await?;
    prometheus(world)?
        .reconfigure(|config| {
            let mut job = config["scrape_configs"][0].clone();
            job["job_name"] = "neighbours".into();
            job["kubernetes_sd_configs"][0]["namespaces"] = json!({ "names": [ns] });
            if let Some(jobs) = config["scrape_configs"].as_array_mut() {
                jobs.push(job);
            }
        })
        .await?;
    let pod = format!("namespace=\"{ns}\",pod=\"selvage-node-shim-forged\"");
    let failures = format!(
        "sum(selvage_requests_total{{{pod},function_namespace=\"{ns}\",outcome=\"trap\"}})"
    );
    let enough = (5 * FAILURES) as f64;
    until_value(world, &failures, |value| value >= enough).await?;

    let seen = promoted(world, &ns, load).await?;
    ensure!(seen.failed == 0, "{seen:?}");
    prometheus(world)?.reconfigure(|_| ()).await
}

/// Returns the metrics page of a pod of Selvage.
pub(crate) async fn metrics(world: &World, pod: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9180/proxy/metrics");
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(world.cluster.client().request_text(request).await?)
}

/// Creates a pod that no node runs, with the labels of a node-shim and the address of a server of this process.
async fn forge(world: &World, ns: &str, ip: IpAddr, port: u16) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.cluster.client(), ns);
    let name = "selvage-node-shim-forged";
    let pod = json!({
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": "selvage",
                "app.kubernetes.io/component": "node-shim",
            },
            "annotations": { "prometheus.io/scrape": "true", "prometheus.io/port": port.to_string() },
        },
        "spec": {
            "schedulerName": "none",
            "containers": [{
                "name": "node-shim", "image": "selvage.local/node-shim:dev",
                "ports": [{ "name": "admin", "containerPort": port }],
            }],
        },
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await?;
    let ip = ip.to_string();
    let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }] } });
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// Answers every request with a forged page.
async fn serve(listener: TcpListener, truth: String) {
    let mut scrapes = 0;
    while let Ok((mut stream, _)) = listener.accept().await {
        scrapes += 1;
        let page = forged(&truth, scrapes * FAILURES);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            page.len()
        );
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(page.as_bytes()).await;
    }
}

/// Returns the page with every good request as a failed one, `more` failures, and labels of a node-shim in each series.
fn forged(truth: &str, more: u64) -> String {
    let line = |line: &str| -> String {
        let (series, value) = line.rsplit_once(' ').unwrap_or((line, ""));
        let Some((name, labels)) = series.split_once('{') else {
            return line.to_owned();
        };
        let own = format!("namespace=\"{NAMESPACE}\",pod=\"selvage-node-shim-forged\"");
        let labels = labels.replace("outcome=\"ok\"", "outcome=\"trap\"");
        let value = match value.parse::<u64>() {
            Ok(value) if name == "selvage_requests_total" => (value + more).to_string(),
            _ => value.to_owned(),
        };
        format!("{name}{{{own},{labels} {value}")
    };
    let is_comment = |text: &str| text.starts_with('#');
    let samples = truth.lines().filter(|text| !is_comment(text));
    samples.map(|text| line(text) + "\n").collect()
}
