mod access;
mod batches;
mod claims;
mod tls;
mod transports;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use operator_core::samples::{Outcome, Snapshot, StatusClass};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::node_api::Processes;

const SCRAPE: Duration = Duration::from_secs(2);

fn client(url: &str) -> Result<Prometheus, MeasureError> {
    let meter = Meter::new(&::prometheus::Registry::new()).unwrap();
    Prometheus::new(url, Access::default(), SCRAPE, Matchers::default(), meter)
}

/// Processes that `node-1` has reported.
pub(super) fn known() -> Processes {
    [("node-1", 900_250), ("node-1", 1_001_000)]
        .into_iter()
        .collect()
}

/// Reads the newest snapshots in one group.
async fn sample(prometheus: &Prometheus, wanted: &[SampleQuery]) -> Result<Sampled, MeasureError> {
    let known = known();
    let identified = prometheus.newest_targets(&known).await?;
    let mut sampled = prometheus.read(wanted, &identified).await?;
    sampled.include(&identified.targets, true);
    Ok(sampled)
}

/// Reads the newest snapshots of [`wanted`] as the only function of a batch.
pub(super) async fn batch(prometheus: &Prometheus) -> Result<Samples, MeasureError> {
    let mut answer = None;
    let mut suspects = batch::Suspects::default();
    let deliver = |_: SampleQuery, answered: Result<Samples, MeasureError>| answer = Some(answered);
    batch::run(prometheus, &known(), vec![wanted()], &mut suspects, deliver).await;
    answer.unwrap()
}

/// Number of reads without a usable answer that were counted with `reason`.
pub(super) fn failures(registry: &::prometheus::Registry, reason: &str) -> f64 {
    let families = registry.gather();
    let of_failures = families
        .iter()
        .filter(|family| family.name() == "selvage_metrics_query_failures_total");
    let of_reason = of_failures
        .flat_map(::prometheus::proto::MetricFamily::get_metric)
        .filter(|metric| metric.get_label().iter().any(|one| one.value() == reason));
    of_reason
        .map(|metric| metric.get_counter().get_value())
        .sum()
}

type Reply = (StatusCode, String);
type Script = fn(&str) -> Reply;

/// A server that answers queries by the metric in them; `script` may answer instead.
struct Stub {
    series: BTreeMap<&'static str, Vec<Value>>,
    asked: Mutex<Vec<String>>,
    /// Evaluation times of the queries.
    times: Mutex<Vec<Option<String>>>,
    script: Option<Script>,
}

impl Stub {
    fn new(series: BTreeMap<&'static str, Vec<Value>>) -> Self {
        Self {
            series,
            asked: Mutex::default(),
            times: Mutex::default(),
            script: None,
        }
    }

    fn answering(script: Script) -> Self {
        Self {
            script: Some(script),
            ..Self::new(BTreeMap::new())
        }
    }

    fn reply(&self, body: &str) -> Reply {
        let url = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
        let query = url.query_pairs().find(|(key, _)| key == "query").unwrap().1;
        self.asked.lock().push(query.to_string());
        let time = url.query_pairs().find(|(key, _)| key == "time");
        let time = time.map(|(_, time)| time.to_string());
        self.times.lock().push(time);
        if let Some(script) = self.script {
            return script(&query);
        }
        let metric = query.split('{').next().unwrap();
        let result = self.series.get(metric).cloned().unwrap_or_default();
        let data = json!({"resultType": "matrix", "result": result});
        (
            StatusCode::OK,
            json!({"status": "success", "data": data}).to_string(),
        )
    }

    async fn serve(self) -> (Prometheus, Arc<Self>) {
        let (url, stub) = self.listen().await;
        (client(&url).unwrap(), stub)
    }

    async fn listen(self) -> (String, Arc<Self>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let stub = Arc::new(self);
        let served = Arc::clone(&stub);
        let handler = move |body: String| async move { served.reply(&body).into_response() };
        let app = Router::new().route("/api/v1/query", post(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, stub)
    }
}

pub(super) fn key() -> FunctionKey {
    FunctionKey::new("shop", "checkout")
}

pub(super) fn wanted() -> SampleQuery {
    SampleQuery {
        function: key(),
        revisions: vec!["checkout-1".to_owned(), "checkout-2".to_owned()],
        latency: Latency::Head,
        population: "live".to_owned(),
    }
}

pub(super) fn series(metric: &str, labels: Value, values: Value) -> Value {
    let mut all = json!({"__name__": metric, "job": "shim", "instance": "10.0.0.1:9180"});
    for (name, value) in labels.as_object().unwrap() {
        all[name] = value.clone();
    }
    json!({"metric": all, "values": values})
}

pub(super) fn of_revision(revision: &str, more: Value) -> Value {
    let mut all = json!({
        "function_namespace": "shop",
        "function": "checkout",
        "revision": revision,
        "population": "live",
    });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}

fn requests(revision: &str, outcome: &str, code: &str, values: Value) -> Value {
    let labels = json!({"outcome": outcome, "code": code, "start": "warm"});
    series(
        "selvage_requests_total",
        of_revision(revision, labels),
        values,
    )
}

/// Samples of one node with both revisions and two scrapes.
pub(super) fn one_node() -> BTreeMap<&'static str, Vec<Value>> {
    let info = json!({"node_name": "node-1"});
    let bucket = |revision, le, values| {
        let labels = of_revision(revision, json!({ "le": le }));
        series("selvage_response_head_seconds_bucket", labels, values)
    };
    BTreeMap::from([
        (
            "selvage_node_info",
            vec![series(
                "selvage_node_info",
                info,
                json!([[1000.5, "1"], [1002.5, "1"]]),
            )],
        ),
        (
            "process_start_time_seconds",
            vec![series(
                "process_start_time_seconds",
                json!({}),
                json!([[1000.5, "900.25"], [1002.5, "900.25"]]),
            )],
        ),
        (
            "selvage_requests_total",
            vec![
                requests(
                    "checkout-1",
                    "ok",
                    "2xx",
                    json!([[1000.5, "90"], [1002.5, "100"]]),
                ),
                requests(
                    "checkout-1",
                    "trap",
                    "none",
                    json!([[1000.5, "1"], [1002.5, "2"]]),
                ),
                requests("checkout-2", "ok", "2xx", json!([[1002.5, "7"]])),
            ],
        ),
        (
            "selvage_saturated_total",
            vec![series(
                "selvage_saturated_total",
                of_revision("checkout-1", json!({})),
                json!([[1000.5, "0"], [1002.5, "3"]]),
            )],
        ),
        (
            "selvage_response_head_seconds_bucket",
            vec![
                bucket("checkout-1", "0.1", json!([[1002.5, "60"]])),
                bucket("checkout-1", "+Inf", json!([[1002.5, "100"]])),
                bucket("checkout-2", "+Inf", json!([[1002.5, "0"]])),
            ],
        ),
    ])
}

pub(super) fn only(sampled: &Sampled) -> &Snapshot {
    assert_eq!(sampled.rejected, BTreeMap::new());
    let snapshots = &sampled.snapshots[&key()];
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    &snapshots[0]
}

#[tokio::test]
async fn the_newest_scrape_becomes_one_snapshot_of_both_revisions() {
    let (prometheus, stub) = Stub::new(one_node()).serve().await;
    let sampled = sample(&prometheus, &[wanted()]).await.unwrap();
    let snapshot = only(&sampled);
    assert_eq!(snapshot.process, "node-1");
    assert_eq!(snapshot.boot, Some(900_250));
    assert_eq!(snapshot.at.as_millisecond(), 1_002_500);
    let stable = &snapshot.revisions["checkout-1"];
    assert_eq!(stable.of(Outcome::Ok, StatusClass::Other), 100);
    assert_eq!(stable.of(Outcome::Trap, StatusClass::Other), 2);
    assert_eq!(stable.saturated, 3);
    assert_eq!(
        (stable.latency.count(), stable.latency.slower_than(17)),
        (100, 40)
    );
    assert_eq!(snapshot.revisions["checkout-2"].total(), 7);
    let asked = stub.asked.lock();
    assert_eq!(asked.len(), 5, "one query per metric: {asked:?}");
    assert!(asked.iter().all(|query| query.ends_with("[60000ms]")));
    let times = stub.times.lock();
    assert_eq!(times[0], None);
    assert!(
        times[1..]
            .iter()
            .all(|time| time.as_deref() == Some("1002.500")),
        "at the newest scrape: {times:?}"
    );
    for forbidden in ["rate(", "increase(", "sum("] {
        assert!(asked.iter().all(|query| !query.contains(forbidden)));
    }
}

#[tokio::test]
async fn history_has_the_scrapes_at_a_bounded_density() {
    let mut scraped = one_node();
    let bucket = scraped.get_mut("selvage_requests_total").unwrap();
    bucket[0]["values"] = json!([
        [990.5, "80"],
        [992.5, "85"],
        [998.5, "90"],
        [1002.5, "95"],
        [1004.5, "100"]
    ]);
    for metric in ["selvage_node_info", "process_start_time_seconds"] {
        let values = [990.5, 992.5, 998.5, 1002.5, 1004.5].map(|at| json!([at, "900.25"]));
        scraped.get_mut(metric).unwrap()[0]["values"] = json!(values);
    }
    let (prometheus, _) = Stub::new(scraped).serve().await;
    let samples = prometheus.history(wanted(), &known()).await.unwrap();
    let totals: Vec<u64> = samples
        .snapshots
        .iter()
        .map(|snapshot| snapshot.revisions["checkout-1"].of(Outcome::Ok, StatusClass::Other))
        .collect();
    assert_eq!(totals, [80, 90, 100], "those that are five seconds apart");
}

/// FE-3: samples scraped by two Prometheus servers count once.
#[tokio::test]
async fn of_two_scrapers_the_one_with_higher_counts_is_used() {
    let mut scraped = one_node();
    for all in scraped.values_mut() {
        for mut other in all.clone() {
            other["metric"]["prometheus_replica"] = json!("b");
            // An older scrape of the same counters.
            for sample in other["values"].as_array_mut().unwrap() {
                sample[0] = json!(sample[0].as_f64().unwrap() - 0.75);
            }
            if other["metric"]["outcome"] == "ok" {
                for sample in other["values"].as_array_mut().unwrap() {
                    sample[1] = json!("5");
                }
            }
            all.push(other);
        }
    }
    let (prometheus, _) = Stub::new(scraped).serve().await;
    let sampled = sample(&prometheus, &[wanted()]).await.unwrap();
    let stable = only(&sampled).revisions["checkout-1"];
    assert_eq!(stable.of(Outcome::Ok, StatusClass::Other), 100);
}

/// FE-3: a restarted shim is two series of counters, never a negative one.
#[tokio::test]
async fn a_restart_within_the_window_gives_a_snapshot_of_each_start() {
    let mut scraped = one_node();
    let starts = scraped.get_mut("process_start_time_seconds").unwrap();
    starts[0]["values"] = json!([[1000.5, "900.25"], [1002.5, "1001.0"]]);
    let (prometheus, _) = Stub::new(scraped).serve().await;
    let sampled = sample(&prometheus, &[wanted()]).await.unwrap();
    let boots: Vec<_> = sampled.snapshots[&key()]
        .iter()
        .map(|snapshot| (snapshot.boot, snapshot.revisions["checkout-1"].total()))
        .collect();
    assert_eq!(boots, [(Some(900_250), 91), (Some(1_001_000), 102)]);
}

/// FE-2: an invalid value in a sample rejects that snapshot, with the reason, and no other.
#[tokio::test]
async fn broken_samples_are_left_out_by_reason() {
    for (broken, reason) in [
        ("NaN", "not_finite"),
        ("+Inf", "not_finite"),
        ("-Inf", "not_finite"),
        ("-1", "negative"),
        ("many", "not_finite"),
    ] {
        let mut scraped = one_node();
        let all = scraped.get_mut("selvage_requests_total").unwrap();
        all[1]["values"][1][1] = json!(broken);
        let (prometheus, _) = Stub::new(scraped).serve().await;
        let sampled = sample(&prometheus, &[wanted()]).await.unwrap();
        assert_eq!(sampled.rejected, BTreeMap::from([(reason, 1)]), "{broken}");
        let left: Vec<_> = sampled.snapshots[&key()].iter().map(|one| one.at).collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].as_millisecond(), 1_000_500, "the scrape before");
    }
    for (le, value, reason) in [
        ("0.1", "101", "bucket_above_count"),
        ("0.11", "60", "unknown_bound"),
        ("x", "60", "unknown_bound"),
    ] {
        let mut scraped = one_node();
        let all = scraped
            .get_mut("selvage_response_head_seconds_bucket")
            .unwrap();
        all[0]["metric"]["le"] = json!(le);
        all[0]["values"][0][1] = json!(value);
        let (prometheus, _) = Stub::new(scraped).serve().await;
        let sampled = sample(&prometheus, &[wanted()]).await.unwrap();
        assert_eq!(sampled.rejected, BTreeMap::from([(reason, 1)]), "{le}");
    }
}

#[tokio::test]
async fn a_target_that_is_no_known_node_is_left_out() {
    let mut scraped = one_node();
    scraped.get_mut("selvage_node_info").unwrap()[0]["metric"]["instance"] = json!("other");
    let (prometheus, _) = Stub::new(scraped).serve().await;
    let sampled = sample(&prometheus, &[wanted()]).await.unwrap();
    let reasons = BTreeMap::from([("unknown_node", 1), ("unknown_process", 1)]);
    assert_eq!(sampled.rejected, reasons);
    assert_eq!(sampled.snapshots, BTreeMap::new());
}

#[tokio::test]
async fn an_empty_answer_is_no_samples_and_no_error() {
    let (prometheus, _) = Stub::new(BTreeMap::new()).serve().await;
    let sampled = sample(&prometheus, &[wanted()]).await.unwrap();
    let problem = "no series of selvage_node_info has the labels {}";
    let expected = Sampled {
        problem: Some(problem.to_owned()),
        ..Sampled::default()
    };
    assert_eq!(sampled, expected);
}

/// FE-1 and the rest of FE-2: an unusable answer has a kind, and is counted under it.
#[tokio::test]
async fn unusable_answers_are_reported_by_kind() {
    fn ok(body: &str) -> Reply {
        (StatusCode::OK, body.to_owned())
    }
    let table: [(Script, &str, &str); 8] = [
        (
            |_| (StatusCode::UNAUTHORIZED, "who are you".to_owned()),
            "bad_status",
            "status 401",
        ),
        (
            |_| {
                let body =
                    r#"{"status":"error","errorType":"bad_data","error":"parse \u001b error"}"#;
                (StatusCode::BAD_REQUEST, body.to_owned())
            },
            "bad_status",
            "status 400: parse  error",
        ),
        (
            |_| (StatusCode::FOUND, String::new()),
            "bad_status",
            "status 302",
        ),
        (|_| ok("<html>"), "malformed", "malformed answer"),
        (
            |_| ok(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#),
            "malformed",
            "malformed answer (a vector instead of a matrix)",
        ),
        (
            |_| ok(r#"{"status":"success","data":{"resultType":"string","result":[1,"x"]}}"#),
            "malformed",
            "malformed answer (a string instead of a matrix)",
        ),
        (
            |_| {
                ok(
                    r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,2]]}]}}"#,
                )
            },
            "malformed",
            "malformed answer",
        ),
        (
            |_| ok(&"x".repeat(1024 * 1024)),
            "too_large",
            "the answer is larger than ",
        ),
    ];
    for (script, reason, message) in table {
        let (url, _) = Stub::answering(script).listen().await;
        let registry = ::prometheus::Registry::new();
        let meter = Meter::new(&registry).unwrap();
        let prometheus =
            Prometheus::new(&url, Access::default(), SCRAPE, Matchers::default(), meter).unwrap();
        let error = batch(&prometheus).await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert!(error.to_string().starts_with(message), "{error}");
        assert_eq!(failures(&registry, reason), 1.0, "{message}");
    }
}

/// FE-1: an unreachable Prometheus is reported as such.
#[tokio::test]
async fn an_unreachable_server_is_reported() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let prometheus = client(&url).unwrap();
    let error = sample(&prometheus, &[wanted()]).await.unwrap_err();
    assert_eq!(
        error,
        MeasureError::NoAnswer("connection refused".to_owned())
    );
}

#[test]
fn a_url_that_cannot_be_a_base_is_refused() {
    for url in [
        "",
        "prometheus:9090",
        "file:///etc/passwd",
        "http://user:secret@prometheus:9090",
        "http://prometheus:9090/?tenant=shop",
        "http://prometheus:9090/#graph",
    ] {
        assert!(client(url).is_err(), "{url}");
    }
}
