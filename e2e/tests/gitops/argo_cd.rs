//! Argo CD on the cluster: its controllers, repository server and API server as processes of this machine.

use crate::world::{FUNCTION, LATER, Shown, World};
use anyhow::{Context, Result, ensure};
use e2e::{
    cluster::{Process, Purpose, argo_cd, install, wait},
    selvage::root,
};
use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt, wait::await_condition, watcher},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};
use tokio::process::Command;

/// Namespace of Argo CD.
pub(crate) const NAMESPACE: &str = "argocd";

/// The repository server runs this program for each folder with a kustomization.
const KUSTOMIZE: &str = "#!/bin/sh
if [ \"$1\" = version ]; then echo v5.7.1; exit; fi
shift
exec kubectl kustomize \"$@\"
";

pub(crate) struct ArgoCd {
    applications: Api<DynamicObject>,
    http: reqwest::Client,
    url: String,
    /// Program for the command line, and its environment.
    cli: PathBuf,
    env: Vec<(String, String)>,
    _processes: Vec<Process>,
}

impl ArgoCd {
    /// Installs the manifests of Argo CD and the customization of this repository as its page says, and starts the
    /// programs.
    pub(crate) async fn start(world: &World) -> Result<Self> {
        install(&[Purpose::GitOps, Purpose::Tests])?;
        let programs = argo_cd()?;
        set_up(world, &programs.join("manifests"))?;
        let tools = world.folder("argocd-tools")?;
        let kustomize = tools.join("kustomize");
        fs::write(&kustomize, KUSTOMIZE)?;
        fs::set_permissions(&kustomize, fs::Permissions::from_mode(0o755))?;
        let env = environment(world, &[&tools, &programs])?;
        let api = World::free_address()?;
        let processes = processes(world, &programs, &api, &env)?;
        let argo = Self {
            applications: world.api("argoproj.io", "v1alpha1", "Application", NAMESPACE),
            http: reqwest::Client::builder().no_proxy().build()?,
            url: format!("http://{api}/api/v1"),
            cli: programs.join("argocd"),
            env: command_line(env, &api),
            _processes: processes,
        };
        let pause = Duration::from_millis(200);
        wait::until(LATER, pause, async || {
            Ok(argo.call(Method::GET, "projects/default", None).await.ok())
        })
        .await
        .context("wait for the API server of Argo CD")?;
        Ok(argo)
    }

    /// Creates the Application of the page for an environment, with the repository of the test. Records what Argo CD
    /// shows of it from then on.
    pub(crate) async fn deploy(&self, world: &World, environment: &str) -> Result<Shown> {
        self.apply(world, "application.yaml", &[("production", environment)])?;
        let name = application(environment);
        Ok(self.record(watcher::Config::default().fields(&format!("metadata.name={name}"))))
    }

    /// Applies a manifest of the page with the repository of the test and with other replacements.
    pub(crate) fn apply(
        &self,
        world: &World,
        file: &str,
        replacements: &[(&str, &str)],
    ) -> Result<()> {
        let path = root().join("integrations/argo-cd").join(file);
        let repository = format!("file://{}", world.repository.dir().display());
        let mut text =
            fs::read_to_string(path)?.replace("https://git.example/shop/edge.git", &repository);
        for (from, to) in replacements {
            text = text.replace(from, to);
        }
        world.apply(&text)
    }

    /// Records what Argo CD shows of the selected Applications from now on.
    pub(crate) fn record(&self, config: watcher::Config) -> Shown {
        let shown = Shown::new();
        let (api, recorded) = (self.applications.clone(), shown.clone());
        tokio::spawn(async move {
            let changes = watcher(api, config).default_backoff().applied_objects();
            // a watch that fails begins again
            let mut objects = pin!(changes.filter_map(|change| async { change.ok() }));
            while let Some(object) = objects.next().await {
                let shown = summary(&object.data);
                recorded.add(format!("{}: {shown}", object.name_any()));
            }
        });
        shown
    }

    /// Runs a command of the page with the contexts of a kubeconfig.
    pub(crate) async fn run(&self, kubeconfig: &Path, arguments: &[String]) -> Result<()> {
        let mut command = Command::new(&self.cli);
        command.args(arguments).envs(self.env.iter().cloned());
        let output = command.env("KUBECONFIG", kubeconfig).output().await?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.success(), "argocd {arguments:?}: {said}");
        println!("    argocd {}: {}", arguments.join(" "), said.trim());
        Ok(())
    }

    /// Reads the repository now instead of at the next interval, and waits until it is compared with the cluster.
    pub(crate) async fn refresh(&self, environment: &str) -> Result<()> {
        let key = "argocd.argoproj.io/refresh";
        let patch = json!({ "metadata": { "annotations": { key: "hard" } } });
        let (api, name) = (&self.applications, application(environment));
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        // Argo CD removes the annotation at the end
        let is_done = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| {
                let annotations = object.metadata.annotations.as_ref();
                annotations.is_none_or(|all| !all.contains_key(key))
            })
        };
        let done = await_condition(api.clone(), &name, is_done);
        tokio::time::timeout(LATER, done)
            .await
            .context("wait for the refresh")??;
        Ok(())
    }

    /// Waits until Argo CD has this sync status and health for the Application, and returns it.
    pub(crate) async fn shows(&self, environment: &str, sync: &str, health: &str) -> Result<Value> {
        self.wait(environment, |status| {
            status["sync"]["status"] == sync && status["health"]["status"] == health
        })
        .await
        .with_context(|| format!("wait for {sync} and {health}"))
    }

    /// Waits until the status of the Application is as described.
    pub(crate) async fn wait(
        &self,
        environment: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let name = application(environment);
        let is_met = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| holds(&object.data["status"]))
        };
        let found = await_condition(self.applications.clone(), &name, is_met);
        match tokio::time::timeout(LATER, found).await {
            Ok(found) => Ok(found?
                .map(|object| object.data["status"].clone())
                .unwrap_or_default()),
            Err(_) => {
                let object = self.applications.get(&name).await?;
                anyhow::bail!("{name} shows {:#}", object.data["status"])
            }
        }
    }

    /// Returns the enabled actions of the function.
    pub(crate) async fn actions(&self, environment: &str) -> Result<Vec<String>> {
        let path = format!(
            "applications/{}/resource/actions?namespace=shop-{environment}&resourceName={FUNCTION}&group=selvage.dev&version=v1alpha1&kind=EdgeFunction",
            application(environment)
        );
        let answer = self.call(Method::GET, &path, None).await?;
        let actions = answer["actions"].as_array().context("no actions")?;
        let enabled = actions.iter().filter(|action| action["disabled"] != true);
        Ok(enabled
            .filter_map(|action| Some(action["name"].as_str()?.to_owned()))
            .collect())
    }

    /// Runs an action as the pages of Argo CD do.
    pub(crate) async fn act(&self, environment: &str, action: &str) -> Result<()> {
        let path = format!(
            "applications/{}/resource/actions/v2",
            application(environment)
        );
        let body = json!({
            "namespace": format!("shop-{environment}"), "resourceName": FUNCTION,
            "group": "selvage.dev", "version": "v1alpha1", "kind": "EdgeFunction", "action": action,
        });
        self.call(Method::POST, &path, Some(body)).await?;
        Ok(())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}/{path}", self.url));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }
}

/// Adds the address of the API server to the environment of the command line.
fn command_line(mut env: Vec<(String, String)>, api: &str) -> Vec<(String, String)> {
    let options = format!("--server {api} --plaintext");
    env.push(("ARGOCD_OPTS".into(), options));
    env
}

fn application(environment: &str) -> String {
    format!("checkout-{environment}")
}

/// Status of the sync, health, and health and message of the function.
fn summary(object: &Value) -> String {
    let status = &object["status"];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let resources = status["resources"].as_array();
    let function = resources.and_then(|all| all.iter().find(|one| one["kind"] == "EdgeFunction"));
    let health = function
        .map(|function| &function["health"])
        .unwrap_or(&Value::Null);
    format!(
        "{} {} (function {}: {})",
        text(&status["sync"]["status"]),
        text(&status["health"]["status"]),
        text(&health["status"]),
        text(&health["message"])
    )
}

/// Starts Redis and the four programs of Argo CD; its API server listens at `api`.
fn processes(
    world: &World,
    programs: &Path,
    api: &str,
    env: &[(String, String)],
) -> Result<Vec<Process>> {
    let listen = |address: &str| {
        let (host, port) = address.rsplit_once(':').context("an address")?;
        Ok::<_, anyhow::Error>(format!(
            "--address {host} --port {port} --metrics-address {host} --metrics-port 0"
        ))
    };
    let (redis, repo, metrics) = (
        World::free_address()?,
        World::free_address()?,
        World::free_address()?,
    );
    let (host, port) = redis.rsplit_once(':').context("an address")?;
    let (_, metrics) = metrics.rsplit_once(':').context("an address")?;
    let client = format!(
        "--namespace {NAMESPACE} --redis {redis} --repo-server {repo} --repo-server-plaintext"
    );
    let redis_server = Path::new("/usr/bin/redis-server").to_owned();
    let lines = [
        (
            redis_server,
            format!("--bind {host} --port {port} --appendonly no --protected-mode no"),
        ),
        (
            programs.join("argocd-repo-server"),
            format!("{} --disable-tls --redis {redis}", listen(&repo)?),
        ),
        (
            programs.join("argocd-server"),
            format!("{} --insecure --disable-auth {client}", listen(api)?),
        ),
        (
            programs.join("argocd-application-controller"),
            format!("{client} --metrics-port {metrics} --persist-resource-health"),
        ),
        (
            programs.join("argocd-applicationset-controller"),
            format!(
                "--namespace {NAMESPACE} --argocd-repo-server {repo} --repo-server-plaintext --enable-progressive-syncs \
                 --metrics-addr {} --probe-addr {} --webhook-addr {}",
                World::free_address()?,
                World::free_address()?,
                World::free_address()?
            ),
        ),
    ];
    let run = world.cluster.run().dir();
    lines
        .into_iter()
        .map(|(program, line)| {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            let arguments = line.split(' ').map(str::to_owned).collect::<Vec<_>>();
            Process::start_with(run, &name, &program, arguments, env.to_vec())
        })
        .collect()
}

fn set_up(world: &World, manifests: &Path) -> Result<()> {
    for folder in ["crds", "base/config"] {
        for found in fs::read_dir(manifests.join(folder))? {
            let path = found?.path();
            let path = path.to_string_lossy();
            if !path.ends_with("kustomization.yaml") {
                world.kubectl(&[
                    "apply",
                    "--server-side",
                    "--namespace",
                    NAMESPACE,
                    "--filename",
                    &path,
                ])?;
            }
        }
    }
    let integrations = root().join("integrations/argo-cd");
    let customization = integrations.join("argocd-cm.yaml");
    let customization = customization.to_string_lossy();
    world.kubectl(&[
        "--namespace",
        NAMESPACE,
        "patch",
        "configmap",
        "argocd-cm",
        "--type",
        "merge",
        "--patch-file",
        &customization,
    ])?;
    Ok(())
}

/// Environment of all programs of Argo CD. The address of the cluster in the Application means the cluster of the
/// kubeconfig.
fn environment(world: &World, programs: &[&Path]) -> Result<Vec<(String, String)>> {
    let kubernetes = world.cluster.tools().dir();
    let path =
        programs
            .iter()
            .copied()
            .chain([kubernetes, Path::new("/usr/bin"), Path::new("/bin")]);
    let path = std::env::join_paths(path)?.into_string();
    let home = world.folder("argocd-home")?.display().to_string();
    let mut env = BTreeMap::from([
        ("PATH", path.unwrap_or_default()),
        (
            "KUBECONFIG",
            world.cluster.kubeconfig().display().to_string(),
        ),
        ("ARGOCD_FAKE_IN_CLUSTER", "true".into()),
        ("ARGOCD_GPG_ENABLED", "false".into()),
    ]);
    for name in [
        "HOME",
        "TMPDIR",
        "ARGOCD_TLS_DATA_PATH",
        "ARGOCD_SSH_DATA_PATH",
        "ARGOCD_GNUPGHOME",
    ] {
        env.insert(name, home.clone());
    }
    Ok(env
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}
