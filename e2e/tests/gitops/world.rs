//! A cluster with Selvage, versions of the example component in the registry, and the example repository.

use crate::repository::Repository;
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, Options},
    load::{Load, Plan},
    push::push_component,
    selvage::{self, EDGE_PORT, Kind, Objects},
};
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Time limit for a wait. It is generous, because a loaded machine is slow and these tests measure nothing.
pub(crate) const LATER: Duration = Duration::from_secs(300);
/// Requests per second that suffice for every step within a few evaluations.
const RATE: u32 = 200;
pub(crate) const FUNCTION: &str = "checkout";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) objects: Objects,
    pub(crate) repository: Repository,
    /// Image with digest by version: `v1` and `v2` are good, `v3` fails.
    pub(crate) images: BTreeMap<&'static str, String>,
}

impl World {
    pub(crate) async fn start(namespaces: &[&str]) -> Result<Self> {
        let options = Options {
            nodes: 2,
            prometheus: None,
            ..Options::default()
        };
        let cluster = Cluster::start(&options, &|part, after| {
            println!("    {:5.1} s  {part}", after.as_secs_f64());
        })
        .await?;
        let registry = cluster.registry.as_ref().context("no registry")?;
        let mut images = BTreeMap::new();
        for version in ["v1", "v2", "v3"] {
            let image = format!("{}/hello:{version}", registry.address());
            let file = selvage::dist().join(format!("examples/hello-{version}.wasm"));
            let digest = push_component(&image, &file, None).await?;
            images.insert(version, format!("{image}@{digest}"));
        }
        let api: Api<Namespace> = Api::all(cluster.client());
        for namespace in namespaces
            .iter()
            .chain(&["shop-staging", "shop-production"])
        {
            let body = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
            api.create(&PostParams::default(), &body).await?;
        }
        selvage::install(
            &cluster,
            &["secrets.namespaces={shop-staging,shop-production}"],
        )?;
        let first = images.get("v1").context("no image")?;
        let repository = Repository::create(cluster.run().dir(), first)?;
        Ok(Self {
            objects: Objects::new(cluster.client()),
            repository,
            images,
            cluster,
        })
    }

    /// Commits a version of the function to an environment.
    pub(crate) fn release(&self, environment: &str, version: &str) -> Result<()> {
        let image = self.images.get(version).context("no such version")?;
        self.repository.set_image(environment, image)?;
        self.repository.commit(&format!("{environment}: {version}"))
    }

    /// Waits for the function of an environment.
    pub(crate) async fn function(
        &self,
        environment: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let namespace = format!("shop-{environment}");
        self.objects
            .wait(Kind::Function, &namespace, FUNCTION, LATER, holds)
            .await
    }

    /// Sends requests to a host until the result is dropped.
    pub(crate) fn load(&self, host: &str) -> Result<Load> {
        load(&self.cluster, host)
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cluster.kubectl().args(arguments).output()?;
        ensure!(
            output.status.success(),
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies manifests from a text.
    pub(crate) fn apply(&self, text: &str) -> Result<()> {
        let mut kubectl = self.cluster.kubectl();
        kubectl.args(["apply", "-f", "-"]).stdin(Stdio::piped());
        let mut child = kubectl.spawn()?;
        let mut input = child.stdin.take().context("no input")?;
        input.write_all(text.as_bytes())?;
        drop(input);
        ensure!(child.wait()?.success(), "kubectl apply");
        Ok(())
    }

    /// Returns the API of a kind in a namespace.
    pub(crate) fn api(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        namespace: &str,
    ) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.cluster.client(), namespace, &resource)
    }

    /// Returns an address of this machine at which nothing listens.
    pub(crate) fn free_address() -> Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(listener.local_addr()?.to_string())
    }

    /// Returns a new folder that ends with the cluster.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.cluster.run().dir().join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

/// Sends requests to a host on all nodes of a cluster until the result is dropped.
pub(crate) fn load(cluster: &Cluster, host: &str) -> Result<Load> {
    let nodes = cluster.nodes().iter();
    Load::start(Plan {
        rate: RATE,
        targets: nodes
            .map(|node| (node.address(), EDGE_PORT).into())
            .collect(),
        method: Method::GET,
        host: host.into(),
        path: "/".into(),
        timeout: Duration::from_secs(10),
    })
}

/// Writes objects, Events and logs of a cluster to a folder.
pub(crate) fn dump(cluster: &Cluster, name: &str) -> String {
    let dir = selvage::dist().join("failures").join(name);
    match cluster.dump(&dir) {
        Ok(summary) => format!("{summary}\neverything else is in {}", dir.display()),
        Err(error) => format!("the dump failed: {error:#}"),
    }
}

/// What a tool showed of an object, in order and without repetition.
#[derive(Clone)]
pub(crate) struct Shown {
    begin: Instant,
    all: Arc<Mutex<Vec<String>>>,
    added: Arc<Notify>,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            all: Arc::default(),
            added: Arc::default(),
        }
    }

    /// Adds what is shown now, and prints it if it is new.
    pub(crate) fn add(&self, what: String) {
        let Ok(mut all) = self.all.lock() else { return };
        if all.last() != Some(&what) {
            println!("    {:5.1} s  {what}", self.begin.elapsed().as_secs_f64());
            all.push(what);
            self.added.notify_waiters();
        }
    }

    /// Waits until something with this part was shown since the last call of [`Self::take`].
    pub(crate) async fn until(&self, part: &str) -> Result<()> {
        self.wait(|all| all.iter().any(|one| one.contains(part)))
            .await
            .with_context(|| format!("{part:?} is not in {:#?}", self.take()))
    }

    /// Waits until the newest of what begins with `name` contains this part.
    pub(crate) async fn until_newest(&self, name: &str, part: &str) -> Result<()> {
        let is_shown = |all: &[String]| {
            let newest = all.iter().rfind(|one| one.starts_with(name));
            newest.is_some_and(|one| one.contains(part))
        };
        self.wait(is_shown)
            .await
            .with_context(|| format!("{name} is not {part:?} at the end of {:#?}", self.take()))
    }

    async fn wait(&self, holds: impl Fn(&[String]) -> bool) -> Result<()> {
        let shown = || {
            let all = self.all.lock().map(|all| all.clone()).unwrap_or_default();
            holds(&all)
        };
        let wait = async {
            loop {
                let added = self.added.notified();
                if shown() {
                    return;
                }
                added.await;
            }
        };
        Ok(tokio::time::timeout(LATER, wait).await?)
    }

    /// Takes everything that was shown since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut all = self.all.lock().map(|all| all.clone()).unwrap_or_default();
        if let Ok(mut shown) = self.all.lock() {
            let last = shown.pop();
            shown.clear();
            shown.extend(last);
        }
        all.dedup();
        all
    }
}
