//! Flux on the cluster: source-controller and kustomize-controller as processes of this machine, and one story with both
//! environments.

use crate::phases::never;
use crate::world::{LATER, Shown, World};
use crate::{git_server, pipeline};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Process, flux_image_definitions, kustomize_controller, source_controller},
    selvage::{condition, root},
};
use futures::StreamExt;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use std::{fs, path::Path, pin::pin};

/// Namespace of Flux.
pub(crate) const NAMESPACE: &str = "flux-system";

pub(crate) struct Flux {
    kustomizations: Api<DynamicObject>,
    repositories: Api<DynamicObject>,
    pub(crate) shown: Shown,
    _processes: Vec<Process>,
}

/// Every phase of a rollout as Flux shows it.
pub(crate) async fn story(world: &World) -> Result<()> {
    let flux = Flux::start(world).await?;
    let url = git_server::serve(world.cluster.host(), world.repository.dir().to_owned()).await?;
    flux.deploy(world, &url)?;
    validate(world)?;
    flux.ready("staging").await?;
    let function = world.function("staging", |_| true).await?;
    ensure!(
        condition(&function, "Ready").0 == "True",
        "ready before the function: {}",
        function["status"]
    );
    flux.ready("production").await?;
    never(&flux.shown.take(), &["Ready=False HealthCheckFailed"])?;

    let load = world.load("staging.shop.example")?;
    good_version(world, &flux).await?;
    bad_version(world, &flux).await?;
    scale(world, &flux).await?;
    pipeline::story(world, &flux, &url).await?;
    drop(load);
    let _load = world.load("shop.example")?;
    approval(world, &flux).await
}

/// The API server accepts the objects for the image controllers, which no test runs.
fn validate(world: &World) -> Result<()> {
    let file = root().join("integrations/flux/image-update.yaml");
    let created = world.kubectl(&[
        "create",
        "--dry-run=server",
        "--validate=strict",
        "--filename",
        &file.to_string_lossy(),
    ])?;
    ensure!(created.lines().count() == 3, "{created}");
    Ok(())
}

/// Ready again only after the promotion.
async fn good_version(world: &World, flux: &Flux) -> Result<()> {
    println!("  a good version");
    world.release("staging", "v2")?;
    flux.apply("staging").await?;
    flux.ready("staging").await?;
    let function = world.function("staging", |_| true).await?;
    let digest = function["status"]["resolved"]["digest"]
        .as_str()
        .unwrap_or_default();
    ensure!(world.images["v2"].ends_with(digest), "{digest}");
    let newest = &function["status"]["history"][0];
    ensure!(
        newest["outcome"] == "Promoted",
        "ready before the promotion: {newest}"
    );
    ensure!(
        newest["reason"] != "FirstRevision",
        "ready before the rollout: {newest}"
    );
    flux.ready("production").await?;
    never(&flux.shown.take(), &["Ready=False HealthCheckFailed"])
}

/// Failed with the reason after a rollback, and ready after the revert.
async fn bad_version(world: &World, flux: &Flux) -> Result<()> {
    println!("  a bad version");
    world.release("staging", "v3")?;
    flux.apply("staging").await?;
    flux.wait("staging", |status| {
        condition(status, "Ready") == ("False", "HealthCheckFailed")
    })
    .await?;
    world
        .function("staging", |f| f["status"]["phase"] == "RolledBack")
        .await?;
    flux.shown
        .until("EdgeFunction/shop-staging/checkout")
        .await?;

    println!("  git revert");
    world.repository.revert()?;
    flux.apply("staging").await?;
    flux.ready("staging").await?;
    flux.ready("production").await?;
    flux.shown.take();
    Ok(())
}

/// A reconciliation keeps the scale.
async fn scale(world: &World, flux: &Flux) -> Result<()> {
    println!("  kubectl scale");
    world.kubectl(&[
        "--namespace",
        "shop-staging",
        "scale",
        "edgefunction/checkout",
        "--replicas=1",
    ])?;
    let scaled = world
        .function("staging", |f| f["status"]["nodes"]["desired"] == 1)
        .await?;
    world
        .repository
        .write("staging/note.txt", "nothing for the cluster\n")?;
    world.repository.commit("a note")?;
    flux.apply("staging").await?;
    flux.ready("staging").await?;
    let later = world.function("staging", |_| true).await?;
    ensure!(
        later["spec"] == scaled["spec"],
        "Flux changed {}",
        later["spec"]
    );
    flux.ready("production").await
}

/// Not ready while a person must approve.
async fn approval(world: &World, flux: &Flux) -> Result<()> {
    println!("  approval");
    world.release("production", "v2")?;
    flux.apply("production").await?;
    let function = world
        .function("production", |f| {
            condition(f, "Ready").1 == "AwaitingApproval"
        })
        .await?;
    let kustomization = flux.kustomizations.get("checkout-production").await?;
    ensure!(
        condition(&kustomization.data, "Ready").0 != "True",
        "ready before the approval"
    );
    // what the message tells a person to run
    let message = function["status"]["message"].as_str().unwrap_or_default();
    let (before, command) = message.rsplit_once(": kubectl ").context("no command")?;
    ensure!(
        before.contains("To approve: kubectl selvage approve checkout -n "),
        "{message}"
    );
    let arguments: Vec<&str> = command.split(' ').collect();
    world.kubectl(&arguments)?;
    flux.ready("production").await?;
    let function = world.function("production", |_| true).await?;
    ensure!(
        condition(&function, "Ready").0 == "True",
        "{}",
        function["status"]
    );
    never(&flux.shown.take(), &["Ready=False HealthCheckFailed"])
}

impl Flux {
    async fn start(world: &World) -> Result<Self> {
        let run = world.cluster.run().dir();
        let (source, kustomize) = (source_controller()?, kustomize_controller()?);
        let images = flux_image_definitions()?;
        for definitions in [
            source.join("config/crd/bases"),
            kustomize.join("config/crd/bases"),
            images,
        ] {
            let definitions = definitions.to_string_lossy();
            world.kubectl(&["apply", "--server-side", "--filename", &definitions])?;
            world.kubectl(&[
                "wait",
                "--for=condition=Established",
                "--timeout=60s",
                "--filename",
                &definitions,
            ])?;
        }
        let mut processes = Vec::new();
        let artifacts = World::free_address()?;
        let storage = world.folder("flux-artifacts")?.display().to_string();
        let source_options = [
            "--storage-path".to_owned(),
            storage,
            "--storage-addr".to_owned(),
            artifacts.clone(),
            "--storage-adv-addr".to_owned(),
            artifacts,
        ];
        let kustomize_options = ["--requeue-dependency=2s".to_owned()];
        for (name, dir, options) in [
            ("source-controller", &source, &source_options[..]),
            ("kustomize-controller", &kustomize, &kustomize_options[..]),
        ] {
            let mut arguments = vec![
                "--metrics-addr".to_owned(),
                World::free_address()?,
                "--health-addr".to_owned(),
                World::free_address()?,
            ];
            arguments.extend_from_slice(options);
            let env = environment(world, name)?;
            processes.push(Process::start_with(
                run,
                name,
                &dir.join(name),
                arguments,
                env,
            )?);
        }
        let shown = Shown::new();
        let flux = Self {
            kustomizations: world.api(
                "kustomize.toolkit.fluxcd.io",
                "v1",
                "Kustomization",
                NAMESPACE,
            ),
            repositories: world.api("source.toolkit.fluxcd.io", "v1", "GitRepository", NAMESPACE),
            shown: shown.clone(),
            _processes: processes,
        };
        let changes = watcher(flux.kustomizations.clone(), watcher::Config::default());
        tokio::spawn(async move {
            let changes = changes.default_backoff().applied_objects();
            // a watch that fails, as it does until the definition is in effect, begins again
            let mut objects = pin!(changes.filter_map(|change| async { change.ok() }));
            while let Some(object) = objects.next().await {
                shown.add(summary(&object));
            }
        });
        Ok(flux)
    }

    /// Applies the manifests of the page with the repository of the test.
    fn deploy(&self, world: &World, url: &str) -> Result<()> {
        let text = fs::read_to_string(root().join("integrations/flux/checkout.yaml"))?;
        world.apply(&text.replace("https://git.example/shop/edge.git", url))
    }

    /// Fetches the repository now and waits until the Kustomization of the environment is applied from the new commit.
    pub(crate) async fn apply(&self, environment: &str) -> Result<()> {
        let before = self.repositories.get("edge").await?;
        let before = before.data["status"]["artifact"]["revision"].clone();
        let now = format!("{:?}", std::time::SystemTime::now());
        let patch =
            json!({ "metadata": { "annotations": { "reconcile.fluxcd.io/requestedAt": now } } });
        self.repositories
            .patch("edge", &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        let is_new = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| object.data["status"]["artifact"]["revision"] != before)
        };
        let fetched =
            kube::runtime::wait::await_condition(self.repositories.clone(), "edge", is_new);
        let fetched = tokio::time::timeout(LATER, fetched)
            .await
            .context("fetch the commit")??;
        let revision =
            fetched.context("no repository")?.data["status"]["artifact"]["revision"].clone();
        self.wait(environment, |object| {
            object["status"]["lastAttemptedRevision"] == revision
        })
        .await?;
        Ok(())
    }

    /// Waits until the Kustomization is ready at the commit that Flux has fetched.
    pub(crate) async fn ready(&self, environment: &str) -> Result<()> {
        let repository = self.repositories.get("edge").await?;
        let fetched = repository.data["status"]["artifact"]["revision"].clone();
        self.wait(environment, |object| {
            let status = &object["status"];
            let newest = fetched.is_null() || status["lastAppliedRevision"] == fetched;
            newest && condition(object, "Ready").0 == "True"
        })
        .await?;
        Ok(())
    }

    async fn wait(&self, environment: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let name = format!("checkout-{environment}");
        let is_met =
            |object: Option<&DynamicObject>| object.is_some_and(|object| holds(&object.data));
        let found =
            kube::runtime::wait::await_condition(self.kustomizations.clone(), &name, is_met);
        match tokio::time::timeout(LATER, found).await {
            Ok(found) => Ok(found?.map(|object| object.data).unwrap_or_default()),
            Err(_) => {
                let object = self.kustomizations.get(&name).await?;
                anyhow::bail!("{name} shows {:#}", object.data["status"])
            }
        }
    }
}

/// Condition `Ready` of a Kustomization.
fn summary(object: &DynamicObject) -> String {
    let conditions = object.data["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Ready"));
    let text = |key: &str| {
        ready
            .and_then(|ready| ready[key].as_str())
            .unwrap_or("-")
            .to_owned()
    };
    let name = object.metadata.name.as_deref().unwrap_or_default();
    format!(
        "{name}: Ready={} {}: {}",
        text("status"),
        text("reason"),
        text("message")
    )
}

fn environment(world: &World, name: &str) -> Result<Vec<(String, String)>> {
    let home = world.folder(&format!("{name}-home"))?;
    let home: &Path = &home;
    let home = home.display().to_string();
    let kubeconfig = world.cluster.kubeconfig().display().to_string();
    let env = [
        ("KUBECONFIG", kubeconfig),
        ("RUNTIME_NAMESPACE", NAMESPACE.to_owned()),
        ("HOME", home.clone()),
        ("TMPDIR", home),
    ];
    Ok(env
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}
