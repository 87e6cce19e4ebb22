//! A real Prometheus on the host, which reads the pods to scrape from files.

use super::{packages::program, process::Process, run::Run, wait};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::task::JoinHandle;

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    targets: PathBuf,
    url: String,
    proxy: Option<String>,
    followers: Vec<JoinHandle<()>>,
}

/// A scrape target and the labels of its series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host and port. The path is `/metrics`.
    pub address: String,
    /// Labels in addition to `job` and `instance`.
    pub labels: BTreeMap<String, String>,
}

impl Prometheus {
    /// Starts Prometheus without targets.
    ///
    /// # Errors
    /// Returns an error when Prometheus does not start.
    pub async fn start(run: &Run, scrape_interval: Duration) -> Result<Self> {
        let dir = run.dir().join("prometheus");
        let targets = dir.join("targets");
        fs::create_dir_all(&targets)?;
        let address = run.listen(9090)?;
        let interval = format!("{}ms", scrape_interval.as_millis());
        let config = json!({
            "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
            "scrape_configs": [{
                // every file sets the job of its targets
                "job_name": "selvage",
                "file_sd_configs": [{ "files": [targets.join("*.json")], "refresh_interval": "1s" }],
            }],
        });
        let file = dir.join("prometheus.yml");
        fs::write(&file, serde_yaml::to_string(&config)?)?;
        let process = Process::start(
            run.dir(),
            "prometheus",
            &program("prometheus")?,
            [
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", dir.join("data").display()),
                format!("--web.listen-address={address}"),
                "--storage.tsdb.retention.time=1d".into(),
                "--log.level=warn".into(),
            ],
        )?;
        let url = format!("http://{address}");
        let mut prometheus = Self {
            process,
            targets,
            url,
            proxy: None,
            followers: Vec::new(),
        };
        prometheus.ready().await?;
        Ok(prometheus)
    }

    /// Returns the base URL of its API, which pods and host can reach.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns its process. After a restart it has the same port and the same data.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until Prometheus answers queries.
    ///
    /// # Errors
    /// Returns an error when Prometheus ends or does not answer for 60 s.
    pub async fn ready(&mut self) -> Result<()> {
        let url = format!("{}/-/ready", self.url);
        wait::until(
            Duration::from_secs(60),
            Duration::from_millis(50),
            async || {
                self.process.check()?;
                let ready = reqwest::get(&url)
                    .await
                    .is_ok_and(|answer| answer.status().is_success());
                Ok(ready.then_some(()))
            },
        )
        .await
        .context("wait for Prometheus")
    }

    /// Replaces the targets of a job.
    ///
    /// # Errors
    /// Returns an error when the file of targets cannot be written.
    pub fn set_targets(&self, job: &str, targets: &[Target]) -> Result<()> {
        write_targets(&self.targets, job, targets)
    }

    /// Makes Prometheus scrape pods through the `kubectl proxy` at this host and port.
    pub(super) fn set_proxy(&mut self, address: String) {
        self.proxy = Some(address);
    }

    /// Keeps the targets of `job` equal to the running pods that match a label selector. The labels `namespace` and
    /// `pod` are those of the usual discovery of pods, and `node_name` has the name of the node.
    pub fn follow_pods(
        &mut self,
        client: Client,
        namespace: &str,
        selector: &str,
        job: &str,
        port: u16,
    ) {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let list = ListParams::default().labels(selector);
        let (dir, job, proxy) = (self.targets.clone(), job.to_owned(), self.proxy.clone());
        self.followers.push(tokio::spawn(async move {
            let mut written = None;
            loop {
                // while the API server is unavailable, pods do not change
                if let Ok(found) = pods.list(&list).await {
                    let targets: Vec<Target> = found
                        .items
                        .iter()
                        .filter_map(|pod| target(pod, port, proxy.as_deref()))
                        .collect();
                    if written.as_ref() != Some(&targets)
                        && write_targets(&dir, &job, &targets).is_ok()
                    {
                        written = Some(targets);
                    }
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }));
    }

    /// Runs an instant query and returns `data.result` of the response.
    ///
    /// # Errors
    /// Returns an error when Prometheus does not answer or refuses the query.
    pub async fn query(&self, expression: &str) -> Result<Value> {
        query(&self.url, expression).await
    }

    pub(super) fn into_process(mut self) -> Process {
        for follower in self.followers.drain(..) {
            follower.abort();
        }
        self.process
    }
}

/// Runs an instant query at the Prometheus at `url` and returns `data.result` of the response.
///
/// # Errors
/// Returns an error when Prometheus does not answer or refuses the query.
pub async fn query(url: &str, expression: &str) -> Result<Value> {
    let mut url = reqwest::Url::parse(&format!("{url}/api/v1/query"))?;
    url.query_pairs_mut().append_pair("query", expression);
    let mut answer: Value = reqwest::get(url).await?.error_for_status()?.json().await?;
    answer
        .pointer_mut("/data/result")
        .map(Value::take)
        .context("an answer without a result")
}

fn write_targets(dir: &Path, job: &str, targets: &[Target]) -> Result<()> {
    let groups: Vec<Value> = targets
        .iter()
        .map(|target| {
            let mut labels = target.labels.clone();
            labels.insert("job".into(), job.into());
            json!({ "targets": [target.address], "labels": labels })
        })
        .collect();
    // a reader never sees a partial file
    let part = dir.join(format!("{job}.part"));
    fs::write(&part, serde_json::to_vec(&groups)?)?;
    fs::rename(&part, dir.join(format!("{job}.json"))).context("replace the targets")
}

fn target(pod: &Pod, port: u16, proxy: Option<&str>) -> Option<Target> {
    let status = pod.status.as_ref()?;
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let address = format!("{}:{port}", status.pod_ip.as_deref().filter(|_| !ended)?);
    let name = pod.metadata.name.clone()?;
    let node = pod.spec.as_ref()?.node_name.clone()?;
    let namespace = pod.metadata.namespace.clone()?;
    let mut labels = BTreeMap::from([
        ("namespace".into(), namespace.clone()),
        ("pod".into(), name.clone()),
        ("node_name".into(), node),
    ]);
    let Some(proxy) = proxy else {
        return Some(Target { address, labels });
    };
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
    labels.insert("__metrics_path__".into(), path);
    labels.insert("instance".into(), address);
    Some(Target {
        address: proxy.to_owned(),
        labels,
    })
}
