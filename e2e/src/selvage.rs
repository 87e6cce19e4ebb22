//! Operates Selvage on a cluster like a user: loads images into the nodes, installs the chart by Helm, applies
//! functions and sends requests through the port of a node. It depends on no internals of the programs.

use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    runtime::wait::await_condition,
};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Namespace in which the chart is installed.
pub const NAMESPACE: &str = "selvage-system";
/// Name of the Helm release.
pub const RELEASE: &str = "selvage";
/// Port of every node on which functions answer.
pub const EDGE_PORT: u16 = 30080;

/// Kinds that users write or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kind `EdgeFunction`.
    Function,
    /// Kind `EdgeRevision`.
    Revision,
    /// Kind `RolloutPolicy`.
    Policy,
    /// Kind `EdgeNode`.
    Node,
    /// Kind `HostClaim`.
    Claim,
}

impl Kind {
    fn resource(self) -> ApiResource {
        let (kind, plural) = match self {
            Self::Function => ("EdgeFunction", "edgefunctions"),
            Self::Revision => ("EdgeRevision", "edgerevisions"),
            Self::Policy => ("RolloutPolicy", "rolloutpolicies"),
            Self::Node => ("EdgeNode", "edgenodes"),
            Self::Claim => ("HostClaim", "hostclaims"),
        };
        let gvk = GroupVersionKind::gvk("selvage.dev", "v1alpha1", kind);
        ApiResource::from_gvk_with_plural(&gvk, plural)
    }
}

/// Returns the folder that `make dist` writes: programs, images, example components.
#[must_use]
pub fn dist() -> PathBuf {
    std::env::var_os("SELVAGE_DIST").map_or_else(|| root().join("target/dist"), PathBuf::from)
}

/// Returns the root folder of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Loads the images into the nodes and installs the chart with the registry and Prometheus of the cluster; `settings`
/// are additional `--set` values. Waits until all pods are ready. Prometheus finds them by itself.
///
/// # Errors
/// Returns an error when `make dist` has not run or Helm fails.
pub fn install(cluster: &Cluster, settings: &[&str]) -> Result<()> {
    for name in ["operator", "node-shim"] {
        let archive = dist().join(format!("{name}.tar"));
        ensure!(
            archive.exists(),
            "{} is missing: run `make dist`",
            archive.display()
        );
        cluster.import_image(&archive)?;
    }
    helm_upgrade(cluster, settings)
}

/// Runs `helm upgrade --install … --wait` with the values of a local cluster and `settings`.
///
/// # Errors
/// Returns an error with the message of Helm, or as soon as a pod cannot become ready with the reason.
pub fn helm_upgrade(cluster: &Cluster, settings: &[&str]) -> Result<()> {
    let mut helm = cluster.helm()?;
    helm.args(["upgrade", "--install", RELEASE, "--namespace", NAMESPACE])
        .args(["--create-namespace", "--wait", "--timeout", "120s"])
        .arg(root().join("charts/selvage"))
        .args([
            "--set",
            "images.operator.reference=selvage.local/operator:dev",
        ])
        .args([
            "--set",
            "images.nodeShim.reference=selvage.local/node-shim:dev",
        ])
        .args(["--set", "images.pullPolicy=Never"])
        .args(["--set", "edge.service.type=NodePort"])
        .args(["--set", &format!("edge.service.nodePort={EDGE_PORT}")]);
    if let Some(registry) = &cluster.registry {
        helm.args([
            "--set",
            &format!("registries.insecure={{{}}}", registry.address()),
        ]);
    }
    if let Some(prometheus) = &cluster.prometheus {
        helm.args(["--set", &format!("prometheus.url={}", prometheus.url())])
            .args(["--set", "prometheus.scrapeInterval=2s"]);
    }
    for setting in settings {
        helm.args(["--set", setting]);
    }
    let output = cluster
        .output_unless_hopeless(NAMESPACE, helm)
        .context("helm upgrade")?;
    ensure!(
        output.status.success(),
        "helm upgrade: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Access to objects, with all permissions.
#[derive(Clone)]
pub struct Objects {
    client: Client,
}

impl Objects {
    /// Returns access to the objects of the cluster behind `client`.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Returns the API of a kind in a namespace; for cluster-scoped kinds the namespace is ignored.
    #[must_use]
    pub fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        match kind {
            Kind::Node | Kind::Claim => Api::all_with(self.client.clone(), &kind.resource()),
            _ => Api::namespaced_with(self.client.clone(), namespace, &kind.resource()),
        }
    }

    /// Applies an object, like `kubectl apply --server-side`.
    ///
    /// # Errors
    /// Returns an error when the API server refuses.
    pub async fn apply(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        body: Value,
    ) -> Result<DynamicObject> {
        let resource = kind.resource();
        let mut object = body;
        object["apiVersion"] = resource.api_version.into();
        object["kind"] = resource.kind.into();
        object["metadata"]["name"] = name.into();
        let manager = PatchParams::apply("e2e").force();
        Ok(self
            .api(kind, namespace)
            .patch(name, &manager, &Patch::Apply(&object))
            .await?)
    }

    /// Writes the annotation of an action, like `kubectl annotate --overwrite`.
    ///
    /// # Errors
    /// Returns an error when the API server refuses.
    pub async fn annotate(
        &self,
        namespace: &str,
        name: &str,
        action: &str,
        value: &str,
    ) -> Result<()> {
        let key = format!("selvage.dev/{action}");
        let patch = serde_json::json!({ "metadata": { "annotations": { key: value } } });
        let api = self.api(Kind::Function, namespace);
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// Watches an object until `holds` returns true for it.
    ///
    /// # Errors
    /// Returns an error after `limit`, with the status of the object.
    pub async fn wait(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        limit: Duration,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let api = self.api(kind, namespace);
        let whole = |object: &DynamicObject| serde_json::to_value(object).unwrap_or_default();
        let condition =
            |object: Option<&DynamicObject>| object.is_some_and(|object| holds(&whole(object)));
        match tokio::time::timeout(limit, await_condition(api.clone(), name, condition)).await {
            Ok(found) => Ok(found?.as_ref().map_or(Value::Null, whole)),
            Err(_) => {
                let status = api
                    .get_opt(name)
                    .await?
                    .map(|object| object.data["status"].clone());
                anyhow::bail!(
                    "{namespace}/{name} is not as awaited after {} s; status: {}",
                    limit.as_secs(),
                    serde_json::to_string_pretty(&status)?
                )
            }
        }
    }
}

/// Returns the status of a condition (`True`, `False`, `Unknown`) and its reason; both are empty when it is absent.
#[must_use]
pub fn condition<'a>(object: &'a Value, kind: &str) -> (&'a str, &'a str) {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|all| all.iter().find(|c| c["type"] == kind));
    let text = |key: &str| found.and_then(|c| c[key].as_str()).unwrap_or_default();
    (text("status"), text("reason"))
}

/// Sends requests to functions through nodes.
#[derive(Clone)]
pub struct Edge {
    http: reqwest::Client,
}

/// A response to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Header `x-version`, which the example component sets.
    pub version: String,
    /// Header `selvage-error`, present when Selvage itself answered.
    pub error: String,
    /// Body as text.
    pub body: String,
}

impl Edge {
    /// Creates a client that opens its own connections.
    ///
    /// # Errors
    /// Returns an error when the HTTP client cannot be created.
    pub fn new() -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        Ok(Self {
            http: http.build()?,
        })
    }

    /// Sends `GET path` for `host` through a node.
    ///
    /// # Errors
    /// Returns an error when there is no response.
    pub async fn get(&self, node: Ipv4Addr, host: &str, path: &str) -> Result<Answer> {
        answer(self.request(Method::GET, node, host, path)).await
    }

    /// Sends `POST path` with a body of JSON for `host` through a node.
    ///
    /// # Errors
    /// Returns an error when there is no response.
    pub async fn post(&self, node: Ipv4Addr, host: &str, path: &str, body: &str) -> Result<Answer> {
        let request = self.request(Method::POST, node, host, path);
        let request = request.header("content-type", "application/json");
        answer(request.body(body.to_owned())).await
    }

    fn request(&self, method: Method, node: Ipv4Addr, host: &str, path: &str) -> RequestBuilder {
        let address = SocketAddr::from((node, EDGE_PORT));
        let request = self.http.request(method, format!("http://{address}{path}"));
        request.header("host", host)
    }
}

async fn answer(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    Ok(Answer {
        status: response.status().as_u16(),
        version: header("x-version"),
        error: header("selvage-error"),
        body: response.text().await?,
    })
}
