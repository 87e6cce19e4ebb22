//! Environment that the scenarios share: the cluster, Selvage on it, the example component in the registry.

use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, Options},
    load::{Load, Plan, Samples},
    push::push_component,
    selvage::{self, EDGE_PORT, Edge, Kind, Objects},
};
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Time limit for a wait. It is generous, because a loaded machine is slow and these tests measure nothing.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Port of every node on which functions answer over TLS.
pub(crate) const TLS_PORT: u16 = 30443;
/// Port of every node on which operators serve the page.
pub(crate) const PAGE_PORT: u16 = 30181;
/// Chart values beside those of every local cluster: a certificate, whose Secret a scenario creates, and the page.
pub(crate) const SETTINGS: [&str; 5] = [
    "edge.tls.secretNames={edge-tls}",
    "edge.tls.nodePort=30443",
    "page.enabled=true",
    "page.service.type=NodePort",
    "page.service.nodePort=30181",
];
/// Time limit for a complete rollout.
pub(crate) const LATER: Duration = Duration::from_secs(240);

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) objects: Objects,
    pub(crate) edge: Edge,
    /// Image reference by version, `v1` to `v4`.
    pub(crate) images: BTreeMap<&'static str, String>,
    /// Manifest digest by version.
    pub(crate) digests: BTreeMap<&'static str, String>,
    /// Namespaces that scenarios have created.
    created: Mutex<Vec<String>>,
}

impl World {
    pub(crate) async fn start() -> Result<Self> {
        let options = Options {
            nodes: 3,
            ..Options::default()
        };
        let cluster = Cluster::start(&options, &|part, after| {
            println!("    {:5.1} s  {part}", after.as_secs_f64());
        })
        .await?;
        let (mut images, mut digests) = (BTreeMap::new(), BTreeMap::new());
        let registry = cluster
            .registry
            .as_ref()
            .context("no registry")?
            .address()
            .to_owned();
        for version in ["v1", "v2", "v3", "v4"] {
            let image = format!("{registry}/hello:{version}");
            let file = selvage::dist().join(format!("examples/hello-{version}.wasm"));
            digests.insert(version, push_component(&image, &file, None).await?);
            images.insert(version, image);
        }
        selvage::install(&cluster, &SETTINGS)?;
        let objects = Objects::new(cluster.client());
        Ok(Self {
            cluster,
            objects,
            edge: Edge::new()?,
            images,
            digests,
            created: Mutex::default(),
        })
    }

    /// Creates a namespace for one scenario.
    pub(crate) async fn namespace(&self, name: &str) -> Result<String> {
        let api: Api<Namespace> = Api::all(self.cluster.client());
        let body = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        api.create(&PostParams::default(), &body).await?;
        self.created.lock().unwrap().push(name.into());
        Ok(name.into())
    }

    /// Returns the number of namespaces that scenarios have created so far.
    pub(crate) fn namespaces(&self) -> usize {
        self.created.lock().unwrap().len()
    }

    /// Ends the rollouts that a failed scenario left behind, because a later scenario measures the leader at rest.
    async fn delete_functions(&self, since: usize) -> Result<()> {
        let created = self.created.lock().unwrap().split_off(since);
        for namespace in created {
            let functions = self.objects.api(Kind::Function, &namespace);
            functions
                .delete_collection(&DeleteParams::default(), &ListParams::default())
                .await?;
        }
        Ok(())
    }

    /// Returns the spec of a function that answers `host` with `version`, with the short rollout of the tests.
    pub(crate) fn spec(&self, version: &str, host: &str) -> Value {
        json!({
            "source": { "image": self.images[version] },
            "routes": [{ "hosts": [host] }],
            "rollout": short_rollout(),
        })
    }

    pub(crate) async fn apply(&self, namespace: &str, name: &str, spec: Value) -> Result<()> {
        self.objects
            .apply(Kind::Function, namespace, name, json!({ "spec": spec }))
            .await?;
        Ok(())
    }

    /// Runs kubectl to its end.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        let output = self.cluster.kubectl().args(arguments).output()?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Applies a spec and waits until all nodes serve it.
    pub(crate) async fn serve(&self, namespace: &str, name: &str, spec: Value) -> Result<Value> {
        self.apply(namespace, name, spec).await?;
        self.ready(namespace, name).await
    }

    /// Waits until a function is ready on all nodes, also on those that are not connected to the operator at the moment.
    /// `Ready` alone does not wait for these: a function becomes ready although a node is dead.
    pub(crate) async fn ready(&self, namespace: &str, name: &str) -> Result<Value> {
        self.function(namespace, name, SOON, |f| {
            let holds = |kind| selvage::condition(f, kind).0 == "True";
            f["metadata"]["generation"] == f["status"]["observedGeneration"]
                && holds("Ready")
                && holds("Distributed")
        })
        .await
    }

    pub(crate) async fn function(
        &self,
        namespace: &str,
        name: &str,
        limit: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.objects
            .wait(Kind::Function, namespace, name, limit, holds)
            .await
    }

    /// Sends requests to a host through all nodes until `finish`.
    pub(crate) fn load(&self, host: &str, rate: u32) -> Result<Traffic> {
        self.load_on(host, rate, self.nodes().len())
    }

    /// Sends requests like [`Self::traffic`], through the first `count` nodes only.
    pub(crate) fn load_on(&self, host: &str, rate: u32, count: usize) -> Result<Traffic> {
        let nodes = self.nodes().into_iter().take(count);
        Ok(Traffic(Load::start(Plan {
            rate,
            targets: nodes.map(|node| (node, EDGE_PORT).into()).collect(),
            method: Method::GET,
            host: host.into(),
            path: "/".into(),
            timeout: Duration::from_secs(10),
        })?))
    }

    /// Calls `ask` until it returns true.
    pub(crate) async fn until(&self, ask: impl AsyncFn(&Self) -> Result<bool>) -> Result<()> {
        let pause = Duration::from_millis(100);
        e2e::cluster::wait::until(SOON, pause, async || Ok(ask(self).await?.then_some(()))).await
    }

    pub(crate) fn nodes(&self) -> Vec<Ipv4Addr> {
        self.cluster
            .nodes()
            .iter()
            .map(e2e::cluster::Node::address)
            .collect()
    }

    /// Dumps objects, events and logs. Returns the folder.
    pub(crate) fn dump(&self, name: &str) -> String {
        let dir = selvage::dist().join("failures").join(name);
        match self.cluster.dump(&dir) {
            Ok(summary) => format!("{summary}\neverything else is in {}", dir.display()),
            Err(error) => format!("the dump failed: {error:#}"),
        }
    }

    /// Removes the functions in namespaces that a failed scenario created after the first `namespaces`, and returns whether the
    /// next scenario can use the cluster.
    pub(crate) async fn mend(&mut self, namespaces: usize) -> bool {
        let prometheus = match &mut self.cluster.prometheus {
            Some(prometheus) => prometheus.repair().await.is_ok(),
            None => true,
        };
        prometheus
            && self.cluster.check().is_ok()
            && self.cluster.nodes_ready(SOON).await.is_ok()
            && self.delete_functions(namespaces).await.is_ok()
    }
}

/// Returns rollout settings with three steps of a few evaluations each and a short bake. Everything else has its
/// default.
pub(crate) fn short_rollout() -> Value {
    json!({
        "strategy": "Canary",
        "canary": { "steps": [
            { "weight": "10%", "minDuration": "5s" },
            { "weight": "25%", "minDuration": "5s" },
            { "weight": "50%", "minDuration": "5s" },
        ] },
        "bake": { "duration": "15s" },
    })
}

/// Returns the same settings for scenarios that do not test how much evidence a step needs.
pub(crate) fn brisk(mut spec: Value) -> Value {
    spec["rollout"]["analysis"] = json!({
        "errors": { "passIncrease": "10%" },
        "latency": { "passIncrease": "10%" },
    });
    spec
}

/// A running load generator with a constant rate of requests.
pub(crate) struct Traffic(Load);

impl Traffic {
    pub(crate) async fn finish(self) -> Result<TrafficReport> {
        let samples = tokio::task::spawn_blocking(|| self.0.finish()).await?;
        anyhow::ensure!(samples.beyond() == 0, "not all requests were kept");
        Ok(TrafficReport::new(samples))
    }
}

/// Responses that a client received.
pub(crate) struct TrafficReport {
    pub(crate) total: u64,
    pub(crate) failed: u64,
    samples: Arc<Samples>,
}

impl TrafficReport {
    fn new(samples: Arc<Samples>) -> Self {
        let all = samples.all(..);
        Self {
            total: all.requests,
            failed: all.failed,
            samples,
        }
    }

    /// Returns the number of responses of a version.
    pub(crate) fn answered(&self, version: &str) -> u64 {
        self.samples.arm(version, ..).requests
    }

    /// Returns the number of those responses that were not 2xx.
    pub(crate) fn failed_of(&self, version: &str) -> u64 {
        self.samples.arm(version, ..).failed
    }

    /// Returns the number of requests that no version answered: refused, aborted, or answered by Selvage itself.
    pub(crate) fn unattributed(&self) -> u64 {
        self.samples.arm("", ..).requests
    }
}

impl std::fmt::Debug for TrafficReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} requests, {} failed", self.total, self.failed)?;
        for version in self.samples.versions() {
            write!(
                f,
                "; {version}: {} of {} failed",
                self.failed_of(&version),
                self.answered(&version)
            )?;
        }
        write!(f, "; by no version: {}", self.unattributed())?;
        for failure in self.samples.failures(&[], 5) {
            write!(
                f,
                "; at {:.2} s {}",
                failure.end().as_secs_f64(),
                failure.outcome()
            )?;
        }
        Ok(())
    }
}
