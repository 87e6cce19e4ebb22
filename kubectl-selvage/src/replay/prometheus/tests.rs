use delivery::rollout::LatencyMeasure;
use serde_json::{Value, json};

use super::{Answer, Matcher, Metric, Totals};

fn matrix(series: &[Value]) -> Answer {
    let answer =
        json!({ "status": "success", "data": { "resultType": "matrix", "result": series } });
    serde_json::from_value(answer).unwrap()
}

/// Series of one process and revision with scrapes every 15 s.
fn series(labels: &Value, values: &[&str]) -> Value {
    let mut metric = json!({ "instance": "a", "revision": "v1" });
    for (name, value) in labels.as_object().unwrap() {
        metric[name] = value.clone();
    }
    let values = values.iter().enumerate();
    let values: Vec<_> = values
        .filter(|(_, value)| !value.is_empty())
        .map(|(index, value)| json!([1_800_000_000 + 15 * index, value]))
        .collect();
    json!({ "metric": metric, "values": values })
}

/// FE-2: what the counters had before the first scrape does not count, a restart does not lose or invent requests.
#[test]
fn totals_become_growth_and_restarts_are_resets() {
    let ok = json!({ "outcome": "ok", "code": "2xx", "start": "warm" });
    let trap = json!({ "outcome": "trap", "code": "5xx", "start": "warm" });
    let requests = [
        series(&ok, &["1000", "1010", "1025", "7", "NaN", "20"]),
        // appears with its first failure
        series(&trap, &["", "2", "3", "", "", "1"]),
    ];
    let buckets = [
        series(&json!({ "le": "0.005" }), &["900", "909", "920", "5"]),
        series(&json!({ "le": "+Inf" }), &["1000", "1012", "1028", "7"]),
    ];
    let mut totals = Totals::default();
    totals.take(Metric::Requests, matrix(&requests)).unwrap();
    totals.take(Metric::Latency, matrix(&buckets)).unwrap();
    let rows = totals.rows().unwrap();
    let counts: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.tally.requests,
                row.tally.errors,
                row.tally.latency.count(),
            )
        })
        .collect();
    assert_eq!(counts, [(12, 2, 12), (16, 1, 16), (7, 0, 7), (14, 1, 0)]);
    assert_eq!(rows[0].tally.latency.0[8], 9);
    // the next hour continues where this one ended, and may have its last scrape again
    let next = [series(&ok, &["", "", "", "", "", "20", "25"])];
    totals.take(Metric::Requests, matrix(&next)).unwrap();
    let rows = totals.rows().unwrap();
    assert_eq!((rows.len(), rows[0].tally.requests), (1, 5));
}

#[test]
fn an_error_of_prometheus_is_its_text() {
    let answer = json!({ "status": "error", "errorType": "bad_data", "error": "too many samples" });
    let answer = serde_json::from_value(answer).unwrap();
    let error = Totals::default()
        .take(Metric::Requests, answer)
        .unwrap_err();
    assert_eq!(error, "Prometheus refuses the query: too many samples");
    let query = Metric::Requests.selector(("a\"b", "c"), &[], LatencyMeasure::Head, 60);
    assert_eq!(
        query,
        "selvage_requests_total{function_namespace=\"a\\\"b\",function=\"c\",population=\"live\"}[60s]"
    );
}

#[test]
fn matchers_select_series_and_need_no_quotes() {
    let matcher = |text: &str| text.parse::<Matcher>();
    let selector = |texts: &[&str]| {
        let matchers: Vec<Matcher> = texts.iter().map(|text| matcher(text).unwrap()).collect();
        let query = Metric::Saturated.selector(("n", "f"), &matchers, LatencyMeasure::Head, 60);
        let (_, others) = query.split_once("population=\"live\"").unwrap();
        others.to_owned()
    };
    for (text, expected) in [
        ("cluster=east", r#",cluster="east"}[60s]"#),
        (r#"cluster="east""#, r#",cluster="east"}[60s]"#),
        ("cluster != east", r#",cluster!="east"}[60s]"#),
        ("pod=~a|b=c", r#",pod=~"a|b=c"}[60s]"#),
        ("pod!~a.+", r#",pod!~"a.+"}[60s]"#),
        (r#"a=b"}c\d"#, r#",a="b\"}c\\d"}[60s]"#),
        ("a=", r#",a=""}[60s]"#),
        // as in the chart value prometheus.selector
        (r#"a="b",c=~"d.+""#, r#",a="b",c=~"d.+"}[60s]"#),
    ] {
        assert_eq!(selector(&[text]), expected);
    }
    assert_eq!(selector(&["a=b", "c=d"]), r#",a="b",c="d"}[60s]"#);
    for text in ["", "east", "=east", "clus ter=east", "cluster!east"] {
        assert!(
            matcher(text).unwrap_err().contains("cluster=east"),
            "{text}"
        );
    }
}

fn ok(labels: Value, values: &[&str]) -> Value {
    let mut metric = json!({ "outcome": "ok", "code": "2xx" });
    metric
        .as_object_mut()
        .unwrap()
        .extend(labels.as_object().unwrap().clone());
    series(&metric, values)
}

#[test]
fn requests_of_several_clusters_are_not_mixed() {
    let mut totals = Totals::default();
    let of = |cluster: &str| ok(json!({ "cluster": cluster }), &["1", "2"]);
    totals
        .take(Metric::Requests, matrix(&[of("west")]))
        .unwrap();
    totals
        .take(Metric::Saturated, matrix(&[of("west")]))
        .unwrap();
    let error = totals
        .take(Metric::Requests, matrix(&[of("east")]))
        .unwrap_err();
    assert_eq!(
        error,
        "Prometheus has requests of the clusters east, west: choose one, for example with --matcher cluster=east"
    );
}

/// A Prometheus has the series of its own cluster without the label, beside those that it federates.
#[test]
fn a_cluster_without_a_label_is_one_of_several() {
    let local = ok(json!({}), &["1", "2"]);
    let federated = |cluster: &str| ok(json!({ "cluster": cluster }), &["10", "20"]);
    for (all, choice) in [
        (vec![local.clone(), federated("east")], "(east)"),
        (
            vec![federated("west"), federated("east"), local.clone()],
            "(east, west)",
        ),
    ] {
        let error = Totals::default()
            .take(Metric::Requests, matrix(&all))
            .unwrap_err();
        assert!(error.contains(choice), "{error}");
        assert!(error.contains("--matcher cluster=east, or"), "{error}");
        assert!(error.ends_with("with --matcher cluster="), "{error}");
    }
    // alone, it needs no choice: an empty label is as good as none
    let mut totals = Totals::default();
    let empty = ok(json!({ "cluster": "", "start": "cold" }), &["1", "2"]);
    totals
        .take(Metric::Requests, matrix(&[local, empty]))
        .unwrap();
    assert_eq!(totals.rows().unwrap()[0].tally.requests, 2);
}
