//! `replay`: a policy on recorded requests, from files, the cluster and a Prometheus.

use std::path::Path;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::HeaderMap;
use axum::routing::get;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::fake::FUNCTION;

const POLICY: &str = "apiVersion: selvage.dev/v1alpha1
kind: RolloutPolicy
metadata: { name: quick }
spec:
  canary: { steps: [{ weight: 10% }, { weight: 50% }] }
  bake: { duration: 1m }
";

/// CSV of `intervals` intervals with 3000 requests to each version, of which this many fail.
fn recording(intervals: u32, versions: &[(&str, u32)]) -> String {
    let mut text = "time,revision,requests,failures,le_0.005,le_0.02,le_+Inf\n".to_owned();
    for index in 0..intervals {
        for (revision, failures) in versions {
            let at = 1_800_000_000 + 15 * index;
            text += &format!("{at},{revision},3000,{failures},2000,2900,3000\n");
        }
    }
    text
}

/// A folder with a policy and recordings, and without a kubeconfig.
pub(crate) async fn folder() -> Cluster {
    let cluster = Cluster::with("ready").await;
    let write = |name: &str, text: &str| std::fs::write(cluster.folder().join(name), text).unwrap();
    write("policy.yaml", POLICY);
    write("good.csv", &recording(400, &[("v1", 6), ("v2", 6)]));
    write("bad.csv", &recording(400, &[("v1", 6), ("v2", 600)]));
    write("short.csv", &recording(10, &[("v1", 6), ("v2", 6)]));
    cluster
}

#[tokio::test]
async fn exit_codes_say_how_the_rollout_would_have_ended() {
    let cluster = folder().await;
    std::fs::remove_file(cluster.folder().join("config")).unwrap();
    for (file, code, last) in [
        ("good.csv", 0, "v2 would have become stable after "),
        (
            "bad.csv",
            1,
            "v2 would have been rolled back (ErrorsWorse) after ",
        ),
        ("short.csv", 2, "The data ends after "),
    ] {
        let line = format!("replay -f policy.yaml --recording {file} --svg {file}.svg");
        let run = cluster.run(&line).await;
        assert_eq!((run.code, run.err.as_str()), (code, ""), "{run:?}");
        let shown = run.out.lines().last().unwrap();
        assert!(shown.starts_with(last), "{}", run.out);
        let picture = std::fs::read_to_string(cluster.folder().join(format!("{file}.svg")));
        assert!(picture.unwrap().contains("Weight of the candidate"));
    }
    let run = cluster
        .run("replay -f policy.yaml --recording bad.csv -o json")
        .await;
    let object: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((run.code, &object["reason"]), (1, &json!("ErrorsWorse")));
}

#[tokio::test]
async fn what_cannot_be_played_is_named_with_the_option_that_helps() {
    let cluster = folder().await;
    let write = |name: &str, text: &str| std::fs::write(cluster.folder().join(name), text).unwrap();
    write("one.csv", &recording(40, &[("v1", 6)]));
    write("three.csv", &recording(40, &[("a", 1), ("b", 1), ("c", 1)]));
    write(
        "slow.csv",
        "time,revision,requests,failures\n1,v1,5,0\n1,v2,5,0\n",
    );
    write("wrong.csv", "time,revision,requests,failures\n1,v1,5,9\n");
    for (options, expected) in [
        ("--recording one.csv", "--same"),
        ("--recording three.csv", "--stable and --candidate"),
        ("--recording slow.csv", "--ignore-latency"),
        (
            "--recording wrong.csv",
            "wrong.csv cannot be used: line 2: 9 requests failed",
        ),
        ("--recording none.csv", "none.csv cannot be used"),
        (
            "--recording good.csv --start 2030-01-01T00:00:00Z",
            "the recording ends before",
        ),
        ("", "--recording"),
        ("--prometheus http://a.example", "--from"),
        (
            "--recording good.csv --same --candidate v2",
            "cannot be used with",
        ),
    ] {
        let run = cluster
            .run(format!("replay -f policy.yaml {options}").trim())
            .await;
        assert_eq!(run.code, 3, "{options}: {run:?}");
        assert!(run.err.contains(expected), "{options}: {}", run.err);
    }
}

#[tokio::test]
async fn a_version_is_played_against_itself() {
    let cluster = folder().await;
    let line = "replay -f policy.yaml --recording bad.csv --same --stable v1 --every 10m";
    let run = cluster.run(line).await;
    assert_eq!(run.code, 0, "{run:?}");
    let last = run.out.lines().last().unwrap();
    assert!(last.starts_with("0 of 9 rollouts of a version"), "{last}");
    assert!(!run.out.contains("played 1 of"), "{}", run.out);
}

/// The policy is the one in the cluster, and errors name what is missing there.
#[tokio::test]
async fn without_a_file_the_policy_is_that_of_the_function() {
    let cluster = folder().await;
    let mut function = crate::cluster::object("ready");
    function["spec"]["rollout"] = json!({ "policyRef": { "name": "quick" } });
    cluster.fake.put(FUNCTION, function);
    let line = "replay checkout --recording good.csv";
    let run = cluster.run(line).await;
    assert_eq!(run.code, 3);
    assert!(run.err.contains("\"quick\" does not exist"), "{run:?}");
    let path = FUNCTION.replace("edgefunctions/checkout", "rolloutpolicies/quick");
    let mut policy: Value = serde_yaml::from_str(POLICY).unwrap();
    policy["metadata"]["namespace"] = json!("shop");
    cluster.fake.put(&path, policy);
    let run = cluster.run(line).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.contains("v2 is at 10 % (step 1 of 2"),
        "{}",
        run.out
    );
}

/// A Prometheus with two scrapes a minute of one node in each of two clusters, for queries with the right token.
async fn prometheus() -> String {
    async fn answer(RawQuery(query): RawQuery, headers: HeaderMap) -> String {
        let query = query.unwrap_or_default();
        if headers
            .get("authorization")
            .is_none_or(|token| token != "Bearer secret")
        {
            return json!({ "status": "error", "error": "no token" }).to_string();
        }
        assert!(query.contains("function_namespace"), "{query}");
        let end: i64 = query.rsplit('=').next().unwrap().parse().unwrap();
        let chosen = query.contains("%2Ccluster%3D%22east%22%7D");
        let clusters: &[&str] = if chosen { &["east"] } else { &["east", "west"] };
        let metrics: Vec<_> = ["v1", "v2"]
            .into_iter()
            .flat_map(|revision| clusters.iter().map(move |cluster| (revision, cluster)))
            .flat_map(|(revision, cluster)| {
                let base = json!({
                    "instance": "node-1", "cluster": cluster, "revision": revision, "outcome": "ok", "code": "2xx",
                });
                if query.contains("bucket") {
                    return ["0.005", "+Inf"]
                        .map(|le| {
                            let mut labels = base.clone();
                            labels["le"] = json!(le);
                            labels
                        })
                        .to_vec();
                }
                vec![base]
            })
            .collect();
        let metrics = if query.contains("saturated") {
            Vec::new()
        } else {
            metrics
        };
        // scrapes are in the window (end - 1 h, end]
        let scrapes: Vec<i64> = (0..120)
            .map(|index| end - 3600 + 30 * (index + 1))
            .collect();
        let values: Vec<_> = scrapes
            .iter()
            .map(|at| json!([at, ((at - 1_700_000_000) * 100).to_string()]))
            .collect();
        let series = metrics
            .into_iter()
            .map(|metric| json!({ "metric": metric, "values": values }));
        let result: Vec<_> = series.collect();
        json!({ "status": "success", "data": { "resultType": "matrix", "result": result } })
            .to_string()
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/prom/api/v1/query", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/prom/")
}

#[tokio::test]
async fn requests_of_a_prometheus_are_played_or_recorded() {
    let cluster = folder().await;
    let url = prometheus().await;
    let times = "--from 2027-01-15T08:00:00Z --to 2027-01-15T10:00:00Z";
    let line = format!("replay checkout -f policy.yaml -n shop --prometheus {url} {times}");
    let run = cluster.run(&line).await;
    assert_eq!(run.code, 3);
    assert!(
        run.err.contains("Prometheus refuses the query: no token"),
        "{run:?}"
    );
    std::fs::write(cluster.folder().join("token"), "secret\n").unwrap();
    let line = format!("{line} --token-file token");
    let run = cluster.run(&line).await;
    assert_eq!(run.code, 3);
    assert!(run.err.contains("--matcher cluster=east"), "{run:?}");
    let line = format!("{line} --matcher cluster=east");
    let run = cluster.run(&line).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.contains("v2 would have become stable"),
        "{}",
        run.out
    );
    // what is recorded is played in the same way
    let recorded = cluster.run(&format!("{line} --record day.csv")).await;
    // two hours of two revisions, without the first scrape
    assert_eq!(
        recorded.out, "day.csv has 478 rows of v1 (717000 requests), v2 (717000 requests).\n",
        "{recorded:?}"
    );
    let again = cluster
        .run("replay -f policy.yaml --recording day.csv")
        .await;
    assert_eq!(again.out, run.out);
}

/// The example of the documentation: a version that was rolled out at once and fails more. The page has what the program prints.
#[tokio::test]
async fn the_example_is_played() {
    let cluster = folder().await;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/replay");
    let examples = examples.display();
    let files = format!("-f {examples}/policy.yaml --recording {examples}/recording.csv");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/replay.md");
    let page = std::fs::read_to_string(page).unwrap();
    let run = cluster
        .run(&format!("replay {files} --stable-earlier 1h"))
        .await;
    assert_eq!(run.code, 1, "{run:?}");
    assert!(page.contains(&run.out), "{}", run.out);
    let run = cluster
        .run(&format!("replay {files} --same --stable v1"))
        .await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(page.contains(&run.out), "{}", run.out);
}
