//! A real Prometheus on the host. It finds pods at the API server, as documented for users, and further targets in files.

use super::{
    process::Process,
    run::Run,
    scrape_config::{self, Access},
    tools, wait,
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// User name of Prometheus at the API server, and name of its role.
pub(super) const IDENTITY: &str = "prometheus";

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    dir: PathBuf,
    url: String,
    config: Value,
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
    /// Starts Prometheus with the documented scrape job and the alerts of the chart.
    ///
    /// # Errors
    /// Returns an error when Prometheus cannot be built or does not start.
    pub(super) async fn start(
        run: &Run,
        scrape_interval: Duration,
        access: &Access,
    ) -> Result<Self> {
        let program = tools::prometheus()?;
        let dir = run.dir().join("prometheus");
        fs::create_dir_all(targets(&dir))?;
        let alerts = dir.join("alerts.yml");
        fs::write(&alerts, scrape_config::alerts())?;
        let config = scrape_config::config(scrape_interval, access, &alerts, &targets(&dir))?;
        write_config(&dir, &config)?;
        let address = run.listen(9090)?;
        let process = Process::start(
            run.dir(),
            "prometheus",
            &program,
            [
                format!("--config.file={}", config_file(&dir).display()),
                format!("--storage.tsdb.path={}", dir.join("data").display()),
                format!("--web.listen-address={address}"),
                // for Self::reconfigure
                "--web.enable-lifecycle".into(),
                "--storage.tsdb.retention.time=1d".into(),
                // with the default of 5 s, a new pod is scraped that much later
                "--scrape.discovery-reload-interval=1s".into(),
                "--log.level=warn".into(),
            ],
        )?;
        let mut prometheus = Self {
            process,
            dir,
            url: format!("http://{address}"),
            config,
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

    /// Replaces the targets of a job that a file lists.
    ///
    /// # Errors
    /// Returns an error when the file of targets cannot be written.
    pub fn set_targets(&self, job: &str, targets: &[Target]) -> Result<()> {
        let groups: Vec<Value> = targets
            .iter()
            .map(|target| {
                let mut labels = target.labels.clone();
                labels.insert("job".into(), job.into());
                json!({ "targets": [target.address], "labels": labels })
            })
            .collect();
        let dir = self::targets(&self.dir);
        // a reader never sees a partial file
        let part = dir.join(format!("{job}.part"));
        fs::write(&part, serde_json::to_vec(&groups)?)?;
        fs::rename(&part, dir.join(format!("{job}.json"))).context("replace the targets")
    }

    /// Applies a changed configuration: `change` edits the one with which Prometheus was started, so that a call with
    /// an empty function restores it.
    ///
    /// # Errors
    /// Returns an error when Prometheus refuses the configuration or does not run.
    pub async fn reconfigure(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut config = self.config.clone();
        change(&mut config);
        write_config(&self.dir, &config)?;
        let reload = reqwest::Client::new().post(format!("{}/-/reload", self.url));
        let answer = reload.send().await.context("reload the configuration")?;
        let status = answer.status();
        ensure!(
            status.is_success(),
            "Prometheus answered {status} to the new configuration: {}",
            answer.text().await.unwrap_or_default().trim()
        );
        Ok(())
    }

    /// Runs Prometheus with the configuration with which it was started, whatever a test did to it.
    ///
    /// # Errors
    /// Returns an error when Prometheus cannot be started.
    pub async fn repair(&mut self) -> Result<()> {
        write_config(&self.dir, &self.config)?;
        self.process.restart()?;
        self.ready().await
    }

    /// Runs an instant query and returns `data.result` of the response.
    ///
    /// # Errors
    /// Returns an error when Prometheus does not answer or refuses the query.
    pub async fn query(&self, expression: &str) -> Result<Value> {
        query(&self.url, expression).await
    }

    /// Returns the targets that Prometheus scrapes now, as `/api/v1/targets` describes them.
    ///
    /// # Errors
    /// Returns an error when Prometheus does not answer.
    pub async fn targets(&self) -> Result<Vec<Value>> {
        let url = format!("{}/api/v1/targets?state=active", self.url);
        let mut answer = get(reqwest::Url::parse(&url)?).await?;
        let targets = answer.pointer_mut("/data/activeTargets").map(Value::take);
        serde_json::from_value(targets.unwrap_or_default()).context("an answer without targets")
    }

    /// Returns the alerts of the chart with their state, as `/api/v1/rules` describes them.
    ///
    /// # Errors
    /// Returns an error when Prometheus does not answer.
    pub async fn alerts(&self) -> Result<Vec<Value>> {
        let url = format!("{}/api/v1/rules?type=alert", self.url);
        let mut answer = get(reqwest::Url::parse(&url)?).await?;
        let rules = answer.pointer_mut("/data/groups/0/rules").map(Value::take);
        serde_json::from_value(rules.unwrap_or_default()).context("an answer without rules")
    }

    pub(super) fn into_process(self) -> Process {
        self.process
    }
}

/// Permits Prometheus to find pods, and nothing else.
///
/// # Errors
/// Returns an error when the API server refuses.
pub(super) async fn grant(client: &Client) -> Result<()> {
    let metadata = json!({ "name": IDENTITY });
    let role = json!({
        "metadata": metadata,
        "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] }],
    });
    let api = "rbac.authorization.k8s.io";
    let binding = json!({
        "metadata": metadata,
        "roleRef": { "apiGroup": api, "kind": "ClusterRole", "name": IDENTITY },
        "subjects": [{ "apiGroup": api, "kind": "User", "name": IDENTITY }],
    });
    let (roles, bindings): (Api<ClusterRole>, Api<ClusterRoleBinding>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let new = PostParams::default();
    roles
        .create(&new, &serde_json::from_value(role)?)
        .await
        .context("create the role of Prometheus")?;
    bindings
        .create(&new, &serde_json::from_value(binding)?)
        .await
        .context("bind the role of Prometheus")?;
    Ok(())
}

/// Runs an instant query at the Prometheus at `url` and returns `data.result` of the response.
///
/// # Errors
/// Returns an error when Prometheus does not answer or refuses the query.
pub async fn query(url: &str, expression: &str) -> Result<Value> {
    let mut url = reqwest::Url::parse(&format!("{url}/api/v1/query"))?;
    url.query_pairs_mut().append_pair("query", expression);
    let mut answer = get(url).await?;
    answer
        .pointer_mut("/data/result")
        .map(Value::take)
        .context("an answer without a result")
}

async fn get(url: reqwest::Url) -> Result<Value> {
    Ok(reqwest::get(url).await?.error_for_status()?.json().await?)
}

fn targets(dir: &Path) -> PathBuf {
    dir.join("targets")
}

fn config_file(dir: &Path) -> PathBuf {
    dir.join("prometheus.yml")
}

fn write_config(dir: &Path, config: &Value) -> Result<()> {
    fs::write(config_file(dir), serde_yaml::to_string(config)?)
        .context("write the configuration of Prometheus")
}
