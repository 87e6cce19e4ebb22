//! Access to Prometheus, alerts and dashboards. `promtool`, of the version of Prometheus in the local cluster, checks the queries.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use e2e::{cluster::promtool, selvage::root};
use serde_json::{Value, json};

use crate::{
    render::{chart, render},
    values::INSTALLATIONS,
};

/// Each file that an argument of the operator names comes from a Secret that the values name.
#[test]
fn files_for_prometheus_are_mounted() -> Result<()> {
    for (name, settings) in INSTALLATIONS {
        let objects = render(settings)?;
        let operator = objects.iter().find(|object| object["kind"] == "Deployment");
        let pod = &operator.context("an operator")?["spec"]["template"]["spec"];
        let folder = "/var/run/selvage/prometheus/";
        let arguments = pod["containers"][0]["args"].as_array().unwrap();
        let named: BTreeSet<&str> = arguments
            .iter()
            .filter_map(|argument| Some(argument.as_str()?.split_once(folder)?.1))
            .collect();
        let volumes = pod["volumes"].as_array().unwrap().iter();
        let sources = volumes
            .filter(|volume| volume["name"] == "prometheus")
            .flat_map(|volume| volume["projected"]["sources"].as_array().unwrap());
        let mounted: BTreeSet<&str> = sources
            .flat_map(|source| source["secret"]["items"].as_array().unwrap())
            .filter_map(|item| item["path"].as_str())
            .collect();
        ensure!(named == mounted, "{name}: {named:?}, mounted {mounted:?}");
        let expects_files = settings.iter().any(|setting| setting.contains("-access"));
        ensure!(named.is_empty() != expects_files, "{name}: {named:?}");
    }
    Ok(())
}

/// Runs `promtool` and returns what it prints.
fn check(arguments: &[&str], file: &Path) -> Result<String> {
    let output = Command::new(promtool()?)
        .args(arguments)
        .arg(file)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "promtool {arguments:?}: {said}");
    Ok(said.into_owned())
}

fn alerts() -> Result<Value> {
    let text = fs::read_to_string(chart().join("files/alerts.yaml"))?;
    Ok(serde_yaml::from_str(&text)?)
}

fn names(rules: &Value) -> BTreeSet<String> {
    let groups = rules["groups"].as_array().into_iter().flatten();
    let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
    rules
        .filter_map(|rule| Some(rule["alert"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn promtool_accepts_the_alerts() -> Result<()> {
    check(
        &["check", "rules", "--lint=all", "--lint-fatal"],
        &chart().join("files/alerts.yaml"),
    )?;
    Ok(())
}

/// Each alert fires for series of its cause, and does not fire for others.
#[test]
fn every_alert_fires_and_does_not_fire() -> Result<()> {
    let cases = root().join("e2e/tests/chart/alerts.yaml");
    check(&["test", "rules"], &cases)?;
    let cases: Value = serde_yaml::from_str(&fs::read_to_string(cases)?)?;
    let mut tried: BTreeMap<bool, BTreeSet<String>> = BTreeMap::new();
    let tests = cases["tests"].as_array().context("tests")?;
    for case in tests
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten())
    {
        let name = case["alertname"].as_str().context("a name")?;
        let expected = case["exp_alerts"].as_array().context("exp_alerts")?;
        tried
            .entry(!expected.is_empty())
            .or_default()
            .insert(name.to_owned());
    }
    let all = names(&alerts()?);
    ensure!(all.len() > 5, "{all:?}");
    for fires in [true, false] {
        ensure!(
            tried.get(&fires) == Some(&all),
            "fires={fires}: {tried:?}, but the alerts are {all:?}"
        );
    }
    Ok(())
}

/// The PrometheusRule has the rules of the file, with the labels and the URL of the values.
#[test]
fn the_prometheus_rule_has_the_alerts_of_the_file() -> Result<()> {
    let (_, settings) = INSTALLATIONS
        .iter()
        .find(|(_, settings)| settings.contains(&"monitoring.prometheusRule.enabled=true"))
        .context("an installation with rules")?;
    let objects = render(settings)?;
    let rule = objects.iter().find(|one| one["kind"] == "PrometheusRule");
    let mut spec = rule.context("a PrometheusRule")?["spec"].clone();
    let rules = spec["groups"][0]["rules"].as_array_mut().context("rules")?;
    for rule in rules {
        ensure!(rule["labels"]["team"] == "edge", "{rule}");
        rule["labels"].as_object_mut().unwrap().remove("team");
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        let below = url.strip_prefix("https://git.example/selvage/blob/main/");
        rule["annotations"]["runbook_url"] = json!(below.context("the prefix")?);
    }
    ensure!(spec == alerts()?, "{spec:#}");
    Ok(())
}

/// Each query of a dashboard parses. promtool reads rules, so each becomes one.
#[test]
fn promtool_accepts_the_queries_of_the_dashboards() -> Result<()> {
    let mut rules = Vec::new();
    for entry in fs::read_dir(chart().join("files/dashboards"))? {
        let path = entry?.path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let panels = dashboard["panels"].as_array().context("panels")?;
        for target in panels
            .iter()
            .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        {
            let query = target["expr"].as_str().context("a query")?;
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$function_namespace", "shop")
                .replace("$function", "checkout")
                .replace("$node", ".*");
            ensure!(!query.contains('$'), "{}: {query}", path.display());
            rules.push(json!({ "record": "a:query", "expr": query }));
        }
    }
    ensure!(rules.len() > 50, "only {} queries", rules.len());
    let file = tempfile::NamedTempFile::new()?;
    let groups = json!({ "groups": [{ "name": "dashboards", "rules": rules }] });
    fs::write(file.path(), groups.to_string())?;
    let said = check(&["check", "rules", "--lint=none"], file.path())?;
    ensure!(
        said.contains(&format!("{} rules found", rules.len())),
        "{said}"
    );
    Ok(())
}

/// A pod of the DaemonSet has a port of the node only if the next one does not start beside it.
#[test]
fn pods_with_ports_of_the_node_do_not_surge() -> Result<()> {
    let mut seen = BTreeSet::new();
    for (name, settings) in INSTALLATIONS {
        let objects = render(settings)?;
        let shim = objects.iter().find(|object| object["kind"] == "DaemonSet");
        let spec = &shim.context("a DaemonSet")?["spec"];
        let pod = &spec["template"]["spec"];
        let ports = pod["containers"][0]["ports"].as_array().unwrap();
        let on_node = ports.iter().any(|port| !port["hostPort"].is_null())
            || pod["hostNetwork"] == json!(true);
        let surge = &spec["updateStrategy"]["rollingUpdate"]["maxSurge"];
        ensure!(*surge == json!(u8::from(!on_node)), "{name}: {surge}");
        seen.insert(on_node);
    }
    ensure!(seen.len() == 2, "{seen:?}");
    Ok(())
}
