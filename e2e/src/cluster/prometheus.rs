//! A real Prometheus on the host. It discovers pods as in a user's cluster, by the annotations of the chart.

use super::{packages::program, process::Process, run::Run, wait};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    targets: PathBuf,
    url: String,
}

/// How Prometheus finds and reaches pods.
#[derive(Debug, Clone, Copy)]
pub(super) struct Discovery<'a> {
    /// Path of the kubeconfig to watch pods with.
    pub(super) kubeconfig: &'a Path,
    /// Host and port of a `kubectl proxy`, if this machine does not reach the addresses of pods.
    pub(super) proxy: Option<&'a str>,
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
    /// Starts Prometheus. It scrapes all pods with the annotation `prometheus.io/scrape`.
    ///
    /// # Errors
    /// Returns an error when Prometheus does not start.
    pub(super) async fn start(
        run: &Run,
        scrape_interval: Duration,
        discovery: Discovery<'_>,
    ) -> Result<Self> {
        let dir = run.dir().join("prometheus");
        let targets = dir.join("targets");
        fs::create_dir_all(&targets)?;
        let address = run.listen(9090)?;
        let interval = format!("{}ms", scrape_interval.as_millis());
        let config = json!({
            "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
            "scrape_configs": [
                pods(discovery),
                {
                    // processes outside of a cluster; every file sets the job of its targets
                    "job_name": "files",
                    "file_sd_configs": [{ "files": [targets.join("*.json")], "refresh_interval": "1s" }],
                },
            ],
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

    /// Runs an instant query and returns `data.result` of the response.
    ///
    /// # Errors
    /// Returns an error when Prometheus does not answer or refuses the query.
    pub async fn query(&self, expression: &str) -> Result<Value> {
        query(&self.url, expression).await
    }

    pub(super) fn into_process(self) -> Process {
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

/// The scrape configuration of pods, as a user writes it: the annotations of the chart say what to scrape and where.
fn pods(discovery: Discovery<'_>) -> Value {
    let meta = |name: &str| format!("__meta_kubernetes_pod_{name}");
    let port = meta("annotation_prometheus_io_port");
    let copy = |from: &[String], to: &str| json!({ "source_labels": from, "separator": ":", "target_label": to });
    let address = [meta("ip"), port.clone()];
    let mut relabel = vec![
        json!({ "source_labels": [meta("annotation_prometheus_io_scrape")], "regex": "true", "action": "keep" }),
        json!({ "source_labels": [meta("phase")], "regex": "Succeeded|Failed", "action": "drop" }),
        copy(&[meta("label_app_kubernetes_io_component")], "job"),
        copy(&[meta("name")], "pod"),
        copy(&[meta("node_name")], "node_name"),
        copy(&address, "instance"),
    ];
    match discovery.proxy {
        None => relabel.push(copy(&address, "__address__")),
        Some(proxy) => relabel.extend([
            json!({ "target_label": "__address__", "replacement": proxy }),
            json!({
                "source_labels": ["__meta_kubernetes_namespace", meta("name"), port],
                "regex": "(.*);(.*);(.*)",
                "target_label": "__metrics_path__",
                "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
            }),
        ]),
    }
    json!({
        "job_name": "pods",
        "kubernetes_sd_configs": [{ "role": "pod", "kubeconfig_file": discovery.kubeconfig }],
        "relabel_configs": relabel,
    })
}
