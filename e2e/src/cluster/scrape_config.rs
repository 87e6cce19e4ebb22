//! Configuration of Prometheus in a local cluster: the one that `docs/install.md` shows to users, with the access to
//! this cluster, and the alerts of the chart.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const INSTALL: &str = include_str!("../../../docs/install.md");
const ALERTS: &str = include_str!("../../../charts/selvage/files/alerts.yaml");

/// How Prometheus reaches the API server and pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Pods by their addresses, and the API server with this kubeconfig.
    Kubeconfig(PathBuf),
    /// Both through the `kubectl proxy` at this host and port.
    Proxy(String),
}

/// Returns the configuration.
///
/// `alerts` is the file of the alerts. `targets` is the folder of further targets, one file `<job>.json` each.
pub(super) fn config(
    interval: Duration,
    access: &Access,
    alerts: &Path,
    targets: &Path,
) -> Result<Value> {
    let interval = format!("{}ms", interval.as_millis());
    let mut discovered = documented_job()?;
    discovered["scrape_interval"] = json!(interval);
    let sd = discovered
        .pointer_mut("/kubernetes_sd_configs/0")
        .context("the documented job has a discovery")?;
    match access {
        Access::Kubeconfig(file) => sd["kubeconfig_file"] = json!(file),
        Access::Proxy(address) => {
            sd["api_server"] = json!(format!("http://{address}"));
            discovered
                .pointer_mut("/relabel_configs")
                .and_then(Value::as_array_mut)
                .context("the documented job has relabelling")?
                .extend(through_proxy(address));
        }
    }
    Ok(json!({
        "global": { "scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval },
        "rule_files": [alerts],
        "scrape_configs": [
            discovered,
            {
                // every file sets the job of its targets
                "job_name": "files",
                "file_sd_configs": [{ "files": [targets.join("*.json")], "refresh_interval": "1s" }],
            },
        ],
    }))
}

/// Returns the text of the alerts.
pub(super) fn alerts() -> &'static str {
    ALERTS
}

fn documented_job() -> Result<Value> {
    let text = block(INSTALL, "scrape_configs:").context("docs/install.md shows a scrape job")?;
    let mut config: Value = serde_yaml::from_str(text).context("read the documented scrape job")?;
    config
        .pointer_mut("/scrape_configs/0")
        .map(Value::take)
        .context("docs/install.md shows one scrape job")
}

/// Returns the YAML block of a page that starts with `first`.
fn block(page: &'static str, first: &str) -> Option<&'static str> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks
        .filter_map(|rest| Some(rest.split_once("\n```")?.0))
        .find(|text| text.starts_with(first))
}

/// Returns relabelling after which targets are scraped through a `kubectl proxy`. The label `instance` stays the address of the pod.
fn through_proxy(address: &str) -> [Value; 3] {
    let pod = [
        "__meta_kubernetes_namespace",
        "__meta_kubernetes_pod_name",
        "__meta_kubernetes_pod_container_port_number",
    ];
    [
        json!({ "source_labels": ["__address__"], "target_label": "instance" }),
        json!({
            "source_labels": pod, "separator": "/", "regex": "(.+)/(.+)/(.+)",
            "target_label": "__metrics_path__",
            "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
        }),
        json!({ "target_label": "__address__", "replacement": address }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(access: &Access) -> Value {
        let second = Duration::from_secs(1);
        config(
            second,
            access,
            Path::new("/r/alerts.yml"),
            Path::new("/r/targets"),
        )
        .unwrap()
    }

    fn local() -> Value {
        built(&Access::Kubeconfig("/r/prometheus.kubeconfig".into()))
    }

    /// Users and the local cluster have the same job, except for access and interval.
    #[test]
    fn the_job_is_the_documented_one() {
        let mut job = local()["scrape_configs"][0].clone();
        let sd = job["kubernetes_sd_configs"][0].as_object_mut().unwrap();
        assert_eq!(
            sd.remove("kubeconfig_file").unwrap(),
            "/r/prometheus.kubeconfig"
        );
        assert_eq!(job["scrape_interval"], "1000ms");
        let mut documented = documented_job().unwrap();
        documented["scrape_interval"] = json!("1000ms");
        assert_eq!(job, documented);
        assert_eq!(job["kubernetes_sd_configs"][0]["role"], "pod");
    }

    /// The interval of the chart's values is the one of the documented job.
    #[test]
    fn the_documented_interval_is_the_default_of_the_chart() {
        let values = include_str!("../../../charts/selvage/values.yaml");
        let values: Value = serde_yaml::from_str(values).unwrap();
        let documented = documented_job().unwrap();
        let interval = &values["prometheus"]["scrapeInterval"];
        assert_eq!(&documented["scrape_interval"], interval);
    }

    /// The default of the chart value `prometheus.selector` names `namespace` and `pod`.
    #[test]
    fn targets_have_the_labels_of_the_selector() {
        let job = documented_job().unwrap();
        let rules = job["relabel_configs"].as_array().unwrap();
        for (label, meta) in [
            ("namespace", "__meta_kubernetes_namespace"),
            ("pod", "__meta_kubernetes_pod_name"),
        ] {
            let from = rules.iter().find(|rule| rule["target_label"] == label);
            assert_eq!(from.unwrap()["source_labels"], json!([meta]));
        }
        // with true, a pod could choose these labels itself
        assert_ne!(job["honor_labels"], true);
    }

    #[test]
    fn behind_a_proxy_only_the_way_to_a_pod_differs() {
        let job = built(&Access::Proxy("10.0.0.1:8001".into()))["scrape_configs"][0].clone();
        let sd = &job["kubernetes_sd_configs"][0];
        assert_eq!(sd["api_server"], "http://10.0.0.1:8001");
        assert!(sd.get("kubeconfig_file").is_none());
        let rules = job["relabel_configs"].as_array().unwrap();
        let documented = documented_job().unwrap();
        let before = documented["relabel_configs"].as_array().unwrap();
        assert_eq!(&rules[..before.len()], &before[..]);
        let last = rules.last().unwrap();
        assert_eq!(
            (&last["target_label"], &last["replacement"]),
            (&json!("__address__"), &json!("10.0.0.1:8001"))
        );
    }
}
