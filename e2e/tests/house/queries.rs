//! Checks that alerts and dashboards select only metrics, labels and values that exist, and that their links lead somewhere.

use crate::tree::{files, read};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const ALERTS: &str = "charts/selvage/files/alerts.yaml";
const DASHBOARDS: &str = "charts/selvage/files/dashboards/";
/// Labels that the scrape adds, and the one of buckets.
const TARGET: [&str; 5] = ["instance", "job", "namespace", "pod", "le"];

/// A selector of a query: name of the metric, and its matchers as label and value.
type Selector = (String, Vec<(String, String)>);

/// Returns the labels of each metric, according to the tables of `docs/metrics.md`.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let ticked = |cell: &str| -> Vec<String> {
        let words = cell.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let (mut found, mut shared): (BTreeMap<_, _>, &[&str]) = (BTreeMap::new(), &[]);
    for line in read("docs/metrics.md").lines() {
        let cells: Vec<&str> = line.split('|').collect();
        let (Some(first), Some(labels)) = (cells.get(1), cells.get(2)) else {
            continue;
        };
        match first.trim() {
            "Metric of a revision" => shared = &["function_namespace", "function", "revision"],
            "Metric of a function during a rollout" => shared = &["function_namespace", "function"],
            other if other.contains("etric") && !other.contains('`') => shared = &[],
            _ => {}
        }
        let mut metrics = ticked(first);
        metrics.retain(|metric| metric.starts_with("selvage_"));
        let lists: Vec<&str> = labels.split(';').collect();
        for (at, metric) in metrics.iter().enumerate() {
            let own = if lists.len() == metrics.len() {
                lists[at]
            } else {
                labels
            };
            let all = ticked(own)
                .into_iter()
                .chain(shared.iter().map(|&name| name.to_owned()));
            found.insert(metric.clone(), all.collect());
        }
    }
    assert!(found.len() > 40, "{found:?}");
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the selectors of a query.
fn selectors(query: &str) -> Vec<Selector> {
    let starts = query.match_indices("selvage_").map(|(at, _)| at);
    let starts = starts.filter(|&at| !query[..at].ends_with(is_word));
    let selector = |at: usize| {
        let rest = &query[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let matchers = inside.map_or("", |(inside, _)| inside).split(',');
        let matchers = matchers.filter_map(|matcher| {
            let (label, value) = matcher.split_once(['=', '!'])?;
            let value = value.trim_start_matches(['=', '~']).trim_matches('"');
            Some((label.trim().to_owned(), value.to_owned()))
        });
        let suffixes = ["_bucket", "_count", "_sum"];
        let stem = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
        (stem.unwrap_or(name).to_owned(), matchers.collect())
    };
    starts.map(selector).collect()
}

/// Returns the labels by which a query groups or joins.
fn groupings(query: &str) -> BTreeSet<String> {
    let words = ["by (", "on (", "ignoring (", "group_left ("];
    let lists = words.iter().flat_map(|word| query.split(word).skip(1));
    let lists = lists.filter_map(|rest| Some(rest.split_once(')')?.0));
    let labels = lists.flat_map(|list| list.split(','));
    let labels = labels.map(|label| label.trim().to_owned());
    labels.filter(|label| !label.is_empty()).collect()
}

/// Returns the queries of alerts and dashboards with the files that contain them.
fn queries() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let rules: Value = serde_yaml::from_str(&read(ALERTS)).unwrap();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        found.push((ALERTS.to_owned(), rule["expr"].as_str().unwrap().to_owned()));
    }
    for (path, dashboard) in dashboards() {
        let panels = dashboard["panels"].as_array().unwrap().iter();
        let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        let of_panels = targets.map(|target| &target["expr"]);
        let of_variables = variables.map(|variable| &variable["query"]["query"]);
        for query in of_panels.chain(of_variables).filter_map(Value::as_str) {
            found.push((path.clone(), query.to_owned()));
        }
    }
    assert!(found.len() > 80, "{}", found.len());
    found
}

fn dashboards() -> Vec<(String, Value)> {
    let paths = files()
        .into_iter()
        .filter(|path| path.starts_with(DASHBOARDS));
    let parse = |path: String| {
        let text = read(&path);
        let dashboard = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
        (path, dashboard)
    };
    paths.map(parse).collect()
}

#[test]
fn queries_name_only_metrics_and_labels_that_exist() {
    let documented = documented();
    let page = read("docs/metrics.md");
    let words: BTreeSet<&str> = page.split(|c| !is_word(c)).collect();
    let mut wrong = Vec::new();
    for (path, query) in queries() {
        let mut labels: BTreeSet<&str> = TARGET.into();
        let found = selectors(&query);
        if found.is_empty() {
            wrong.push(format!("{path}: no metric of Selvage in {query}"));
        }
        for (metric, matchers) in &found {
            let Some(own) = documented.get(metric) else {
                wrong.push(format!("{path}: the metric {metric} does not exist"));
                continue;
            };
            labels.extend(own.iter().map(String::as_str));
            for (label, value) in matchers {
                if !own.contains(label) && !TARGET.contains(&label.as_str()) {
                    wrong.push(format!("{path}: {metric} has no label {label}"));
                }
                let is_known = |word: &str| word.starts_with('$') || words.contains(word);
                if !value.split('|').all(is_known) {
                    wrong.push(format!("{path}: no {metric} has {label}={value}"));
                }
            }
        }
        for label in groupings(&query) {
            if !labels.contains(label.as_str()) {
                wrong.push(format!(
                    "{path}: no metric of this query has {label}: {query}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The labels in the tables are those of the programs: each is a literal in the file that defines the metric.
#[test]
fn the_documentation_names_only_labels_that_exist() {
    let sources = crate::metrics::DEFINING.map(read);
    for (metric, labels) in documented() {
        let quoted = |text: &str| format!("\"{text}\"");
        let source = sources
            .iter()
            .find(|source| source.contains(&quoted(&metric)));
        let source = source.unwrap_or_else(|| panic!("{metric} is not defined"));
        for label in labels {
            assert!(
                source.contains(&quoted(&label)),
                "{metric} has no label {label}"
            );
        }
    }
}

/// The page has one line for each alert, and each alert leads to the section that explains it.
#[test]
fn every_alert_is_listed_and_explained() {
    let rules: Value = serde_yaml::from_str(&read(ALERTS)).unwrap();
    let page = read("docs/metrics.md");
    let (_, list) = page.split_once("## Alerts\n").unwrap();
    let listed: Vec<&str> = list
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| Some(line.strip_prefix("| [")?.split_once("](")?.0))
        .collect();
    let runbook = read("docs/operating.md");
    let headings: Vec<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let mut names = Vec::new();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        let anchor = format!("docs/operating.md#{}", name.to_lowercase());
        assert_eq!(
            rule["annotations"]["runbook_url"],
            anchor.as_str(),
            "{name}"
        );
        assert!(
            headings.contains(&name),
            "docs/operating.md has no section {name}"
        );
        names.push(name);
    }
    assert_eq!(listed, names);
}

/// Grafana identifies a dashboard by its `uid`, and a panel by its `id`.
#[test]
fn dashboards_are_listed_and_have_distinct_identifiers() {
    let page = read("docs/metrics.md");
    let mut identifiers = BTreeSet::new();
    for (path, dashboard) in dashboards() {
        let name = path.trim_start_matches(DASHBOARDS);
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/metrics.md does not list {name}"
        );
        assert!(identifiers.insert(dashboard["uid"].to_string()), "{path}");
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<String> = panels.iter().map(|panel| panel["id"].to_string()).collect();
        assert_eq!(ids.len(), panels.len(), "{path}");
    }
    assert!(identifiers.len() >= 4, "{identifiers:?}");
}

#[test]
fn selectors_and_groupings_are_found() {
    let query = r#"sum by (node_name) (rate(selvage_a_bucket{le="1",x=~"p|q"}[5m]) * on (job) group_left (y) selvage_b)"#;
    let pair = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    let expected = [
        (
            "selvage_a".to_owned(),
            vec![pair("le", "1"), pair("x", "p|q")],
        ),
        ("selvage_b".to_owned(), Vec::new()),
    ];
    assert_eq!(selectors(query), expected);
    let labels = ["job", "node_name", "y"].map(str::to_owned);
    assert_eq!(groupings(query), labels.into());
}
