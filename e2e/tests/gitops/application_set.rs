//! One ApplicationSet over two clusters: a commit reaches the second region only after its promotion in the first one.

use crate::argo_cd::ArgoCd;
use crate::phases::never;
use crate::world::{FUNCTION, LATER, Shown, World, dump, load};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Cluster, Options},
    documented::{Invocation, invocations},
    selvage::{self, Kind, Objects},
};
use kube::{
    Api,
    api::DynamicObject,
    runtime::{wait::await_condition, watcher},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Names of the clusters and regions on the page.
const CANARY: &str = "canary";
const EUROPE: &str = "europe";
const HOST: &str = "shop.example";
const PAGE: &str = "docs/argo-cd.md";

/// A cluster with Selvage to which Argo CD applies the function.
struct Region<'a> {
    name: &'static str,
    cluster: &'a Cluster,
    objects: Objects,
}

pub(crate) async fn story(world: &World) -> Result<()> {
    let europe = second_cluster(world).await?;
    let result = regions(world, &europe).await;
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(dump(&europe, "application-set-europe"))),
    }
}

/// Starts a cluster with one node, which uses the registry of the first cluster.
async fn second_cluster(world: &World) -> Result<Cluster> {
    let options = Options {
        nodes: 1,
        registry: false,
        prometheus: None,
    };
    let cluster = Cluster::start(&options, &|part, after| {
        println!("    {:5.1} s  {EUROPE}: {part}", after.as_secs_f64());
    })
    .await?;
    let registry = world.cluster.registry.as_ref().context("no registry")?;
    let insecure = format!("registries.insecure={{{}}}", registry.address());
    selvage::install(&cluster, &[&insecure])?;
    Ok(cluster)
}

async fn regions(world: &World, second: &Cluster) -> Result<()> {
    let [canary, europe] = [(CANARY, &world.cluster), (EUROPE, second)].map(|(name, cluster)| {
        let objects = Objects::new(cluster.client());
        Region {
            name,
            cluster,
            objects,
        }
    });
    let argo = ArgoCd::start(world).await?;
    let kubeconfig = kubeconfig(&world.folder("contexts")?, &[&canary, &europe])?;
    let added = commands("argocd cluster add")?;
    ensure!(added.len() == 2, "the page adds {} clusters", added.len());
    for command in added {
        argo.run(&kubeconfig, &arguments("cluster add", &command))
            .await?;
    }
    argo.apply(world, "application-set.yaml", &[])?;
    let shown = argo.record(watcher::Config::default());
    for region in [&canary, &europe] {
        argo.shows(region.name, "Synced", "Healthy").await?;
    }
    shown
        .until_newest("checkout-europe", "Synced Healthy")
        .await?;
    in_order(&shown.take())?;
    let _load = (load(canary.cluster, HOST)?, load(europe.cluster, HOST)?);
    let test = Regions {
        world,
        argo: &argo,
        kubeconfig: &kubeconfig,
        set: world.api(
            "argoproj.io",
            "v1alpha1",
            "ApplicationSet",
            crate::argo_cd::NAMESPACE,
        ),
    };
    test.good_version(&canary, &europe, &shown).await?;
    test.bad_version(&canary, &europe, &shown).await
}

struct Regions<'a> {
    world: &'a World,
    argo: &'a ArgoCd,
    kubeconfig: &'a Path,
    set: Api<DynamicObject>,
}

impl Regions<'_> {
    /// The second region gets the commit after the promotion in the first one.
    async fn good_version(
        &self,
        canary: &Region<'_>,
        europe: &Region<'_>,
        shown: &Shown,
    ) -> Result<()> {
        println!("  a good version");
        let before = europe.image().await?;
        self.release("v2").await?;
        self.argo.shows(CANARY, "Synced", "Suspended").await?;
        self.waits(EUROPE).await?;
        ensure!(
            europe.image().await? == before,
            "{EUROPE} has the commit before the promotion in {CANARY}"
        );
        for region in [canary, europe] {
            self.argo.shows(region.name, "Synced", "Suspended").await?;
            self.approve(region).await?;
            self.argo.shows(region.name, "Synced", "Healthy").await?;
            let function = region.function(|_| true).await?;
            let status = &function["status"];
            let digest = status["resolved"]["digest"].as_str().unwrap_or_default();
            ensure!(
                self.world.images["v2"].ends_with(digest),
                "{}: {digest}",
                region.name
            );
            let newest = &status["history"][0];
            ensure!(newest["outcome"] == "Promoted", "{}: {newest}", region.name);
            ensure!(newest["reason"] != "FirstRevision", "no rollout: {newest}");
        }
        shown
            .until_newest("checkout-europe", "Synced Healthy")
            .await?;
        let all = shown.take();
        in_order(&all)?;
        never(&all, &["Degraded", "Unknown", "Missing"])
    }

    /// The second region never gets a commit that the first one has rolled back.
    async fn bad_version(
        &self,
        canary: &Region<'_>,
        europe: &Region<'_>,
        shown: &Shown,
    ) -> Result<()> {
        println!("  a bad version");
        let before = europe.function(|_| true).await?;
        self.release("v3").await?;
        self.argo.shows(CANARY, "Synced", "Degraded").await?;
        canary
            .function(|f| f["status"]["phase"] == "RolledBack")
            .await?;
        self.argo.refresh(CANARY).await?;
        self.waits(EUROPE).await?;
        self.argo.shows(EUROPE, "OutOfSync", "Healthy").await?;

        println!("  git revert");
        self.world.repository.revert()?;
        for region in [CANARY, EUROPE] {
            self.argo.refresh(region).await?;
        }
        for region in [CANARY, EUROPE] {
            self.argo.shows(region, "Synced", "Healthy").await?;
        }
        let after = europe.function(|_| true).await?;
        ensure!(
            after["metadata"]["generation"] == before["metadata"]["generation"],
            "the rejected commit changed {EUROPE}"
        );
        let all = shown.take();
        let europe: Vec<_> = all.into_iter().filter(|one| one.contains(EUROPE)).collect();
        never(&europe, &["Progressing", "Degraded", "Unknown", "Missing"])
    }

    async fn release(&self, version: &str) -> Result<()> {
        self.world.release("production", version)?;
        // the first region must see the commit first, as the page says
        for region in [CANARY, EUROPE] {
            self.argo.refresh(region).await?;
        }
        Ok(())
    }

    /// Waits until the ApplicationSet has seen the commit for a region and keeps it back.
    async fn waits(&self, region: &str) -> Result<()> {
        let is_met = |object: Option<&DynamicObject>| {
            let applications = object.map(|object| &object.data["status"]["applicationStatus"]);
            let mut applications = applications.and_then(Value::as_array).into_iter().flatten();
            applications.any(|one| {
                one["application"] == format!("checkout-{region}") && one["status"] == "Waiting"
            })
        };
        let waits = await_condition(self.set.clone(), "checkout", is_met);
        let waited = tokio::time::timeout(LATER, waits).await;
        waited.with_context(|| format!("the ApplicationSet does not keep {region} back"))??;
        Ok(())
    }

    /// Approves with the command of the page.
    async fn approve(&self, region: &Region<'_>) -> Result<()> {
        let all = commands("argocd app actions run")?;
        let found = all.first().context("the page runs no action")?;
        let application = format!("checkout-{}", region.name);
        let command = arguments("app actions run", found)
            .into_iter()
            .map(|word| word.replace("checkout-production", &application))
            .collect::<Vec<_>>();
        self.argo.run(self.kubeconfig, &command).await
    }
}

impl Region<'_> {
    async fn function(&self, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        self.objects
            .wait(Kind::Function, "shop-production", FUNCTION, LATER, holds)
            .await
    }

    async fn image(&self) -> Result<Value> {
        let function = self.function(|_| true).await?;
        Ok(function["spec"]["source"]["image"].clone())
    }
}

/// Checks that the first region was healthy when the second one began.
fn in_order(all: &[String]) -> Result<()> {
    let (canary, begins) = (
        format!("checkout-{CANARY}: "),
        format!("checkout-{EUROPE}: Synced Progressing"),
    );
    let begun = all.iter().position(|one| one.starts_with(&begins));
    let begun = begun.with_context(|| format!("no change of {EUROPE}: {all:#?}"))?;
    let before = all.iter().take(begun).rfind(|one| one.starts_with(&canary));
    ensure!(
        before.is_some_and(|one| one.contains(": Synced Healthy")),
        "{EUROPE} begins before {CANARY} is healthy: {all:#?}"
    );
    Ok(())
}

/// Returns the commands of the page that begin with some words.
fn commands(begin: &str) -> Result<Vec<Invocation>> {
    let mut found = invocations(begin)?;
    found.retain(|one| one.origin.starts_with(PAGE));
    Ok(found)
}

fn arguments(begin: &str, command: &Invocation) -> Vec<String> {
    let begin = begin.split(' ').map(str::to_owned);
    begin.chain(command.arguments.iter().cloned()).collect()
}

/// Writes a kubeconfig with a context for each region.
fn kubeconfig(folder: &Path, regions: &[&Region<'_>]) -> Result<PathBuf> {
    let mut all = json!({
        "apiVersion": "v1", "kind": "Config", "clusters": [], "users": [], "contexts": []
    });
    for Region { name, cluster, .. } in regions {
        let text = fs::read_to_string(cluster.kubeconfig())?;
        let one: Value = serde_yaml::from_str(&text)?;
        for key in ["clusters", "users"] {
            let mut entry = one[key][0].clone();
            entry["name"] = (*name).into();
            all[key].as_array_mut().context("a list")?.push(entry);
        }
        let context = json!({ "name": name, "context": { "cluster": name, "user": name } });
        let contexts = all["contexts"].as_array_mut();
        contexts.context("a list")?.push(context);
    }
    let file = folder.join("kubeconfig");
    fs::write(&file, all.to_string())?;
    Ok(file)
}
