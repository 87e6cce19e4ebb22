//! Samples count only for a process that its node has reported. Targets that change their labels count again at once.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

type Scraped = BTreeMap<&'static str, Vec<Value>>;

/// The same series at another target: labels are replaced, times moved and counts multiplied.
fn also(scraped: &mut Scraped, labels: &Value, seconds: f64, times: u64) {
    for all in scraped.values_mut() {
        for mut other in all.clone() {
            for (name, value) in labels.as_object().unwrap() {
                other["metric"][name] = value.clone();
            }
            let is_count = other["metric"].get("function").is_some();
            for sample in other["values"].as_array_mut().unwrap() {
                sample[0] = json!(sample[0].as_f64().unwrap() + seconds);
                if is_count {
                    let count: u64 = sample[1].as_str().unwrap().parse().unwrap();
                    sample[1] = json!((count * times).to_string());
                }
            }
            all.push(other);
        }
    }
}

fn start_of(scraped: &mut Scraped, instance: &str, start: &str) {
    let starts = scraped.get_mut("process_start_time_seconds").unwrap();
    let of = |one: &&mut Value| one["metric"]["instance"] == instance;
    for one in starts.iter_mut().filter(of) {
        for sample in one["values"].as_array_mut().unwrap() {
            sample[1] = json!(start);
        }
    }
}

async fn read(scraped: Scraped) -> Sampled {
    let (prometheus, _) = Stub::new(scraped).serve().await;
    sample(&prometheus, &[wanted()]).await.unwrap()
}

fn counts(sampled: &Sampled) -> Vec<(String, i64, u64)> {
    let snapshots = sampled.snapshots.get(&key()).into_iter().flatten();
    let of = |one: &Snapshot| {
        let stable = one.revisions["checkout-1"].of(Outcome::Ok, StatusClass::Other);
        (one.process.clone(), one.at.as_millisecond(), stable)
    };
    snapshots.map(of).collect()
}

/// The newest counts of the only node.
fn truth() -> Vec<(String, i64, u64)> {
    vec![("node-1".to_owned(), 1_002_500, 100)]
}

/// FE-6: a pod that claims to be a node counts nothing: its process started at another time than those that the node reported.
#[tokio::test]
async fn a_process_that_its_node_has_not_reported_counts_nothing() {
    let mut scraped = one_node();
    also(
        &mut scraped,
        &json!({ "instance": "10.9.9.9:9180" }),
        0.25,
        50,
    );
    start_of(&mut scraped, "10.9.9.9:9180", "1001.5");
    let sampled = read(scraped).await;
    assert_eq!(sampled.rejected, BTreeMap::from([("unknown_process", 1)]));
    assert_eq!(counts(&sampled), truth());
    let problem = sampled.problem.unwrap();
    assert!(
        problem.contains("10.9.9.9:9180") && problem.contains("node-1"),
        "{problem}"
    );
}

/// FE-6: two targets that claim the same process at the same time make both unusable, and both are named.
#[tokio::test]
async fn two_targets_that_claim_one_process_both_count_nothing() {
    for seconds in [-0.75, 0.0] {
        let mut scraped = one_node();
        also(
            &mut scraped,
            &json!({ "instance": "10.9.9.9:9180" }),
            seconds,
            50,
        );
        let sampled = read(scraped).await;
        assert_eq!(sampled.rejected, BTreeMap::from([("claimed_twice", 2)]));
        assert_eq!(counts(&sampled), [], "{seconds}");
        let problem = sampled.problem.unwrap();
        for named in ["10.0.0.1:9180", "10.9.9.9:9180", "node-1"] {
            assert!(problem.contains(named), "{problem}");
        }
    }
    // a target that begins while the other one may still go on has to wait
    let mut scraped = one_node();
    also(
        &mut scraped,
        &json!({ "instance": "10.9.9.9:9180" }),
        2.5,
        50,
    );
    for all in scraped.values_mut() {
        for one in all
            .iter_mut()
            .filter(|one| one["metric"]["instance"] == "10.9.9.9:9180")
        {
            one["values"]
                .as_array_mut()
                .unwrap()
                .retain(|sample| sample[0].as_f64() == Some(1005.0));
        }
    }
    assert_eq!(counts(&read(scraped).await), truth());
}

/// FE-3: the same process in two jobs of one server, or at two servers, counts once.
#[tokio::test]
async fn a_process_that_is_scraped_twice_counts_once() {
    for labels in [json!({ "job": "other" }), json!({ "prometheus": "b" })] {
        let mut scraped = one_node();
        also(&mut scraped, &labels, -0.75, 1);
        let sampled = read(scraped).await;
        assert_eq!(sampled.rejected, BTreeMap::new());
        assert_eq!(counts(&sampled), truth(), "{labels}");
    }
}

/// FE-3: all series carry another name of the node for a while. The name is that of each scrape, not one of the whole window.
#[tokio::test]
async fn a_target_that_was_renamed_counts_with_its_next_scrape() {
    for renamed in ["node-2", "node-0", "zzz"] {
        let mut scraped = one_node();
        // the newest scrape has the right name again
        also(&mut scraped, &json!({ "node_name": renamed }), -20.0, 1);
        let sampled = read(scraped).await;
        assert_eq!(counts(&sampled), truth(), "{renamed}");
        // the newest scrape has the wrong one
        let mut scraped = one_node();
        also(&mut scraped, &json!({ "node_name": renamed }), 20.0, 1);
        let sampled = read(scraped).await;
        assert_eq!(counts(&sampled), truth(), "{renamed}");
        assert_eq!(sampled.rejected, BTreeMap::from([("unknown_node", 1)]));
    }
}

/// FE-3: a label of the target with the name of a label of the node-shim renames the latter.
#[tokio::test]
async fn a_label_of_the_target_does_not_hide_the_name_of_the_node() {
    let mut scraped = one_node();
    for all in scraped.values_mut() {
        for one in all {
            if one["metric"].get("node_name").is_some() {
                one["metric"]["exported_node_name"] = json!("node-1");
            }
            one["metric"]["node_name"] = json!("a name of the cloud");
        }
    }
    let sampled = read(scraped).await;
    assert_eq!(sampled.rejected, BTreeMap::new());
    assert_eq!(counts(&sampled), truth());
}

/// FE-3: another label of the target changes, so its series end and others begin.
#[tokio::test]
async fn a_target_with_another_label_counts_when_the_former_one_has_ended() {
    for labels in [json!({ "pod": "x" }), json!({ "instance": "renamed" })] {
        let mut scraped = one_node();
        also(&mut scraped, &labels, 20.0, 2);
        let expected = ("node-1".to_owned(), 1_022_500, 200);
        assert_eq!(counts(&read(scraped).await), [expected], "{labels}");
    }
}

/// FE-3: series that differ in nothing but the name of the node are not added.
#[tokio::test]
async fn doubled_series_of_one_scrape_count_once() {
    let mut scraped = one_node();
    also(&mut scraped, &json!({ "node_name": "node-2" }), 0.0, 1);
    let sampled = read(scraped).await;
    assert_eq!(counts(&sampled), truth());
}

/// Right after a change of the leader few nodes have reported to it, but Prometheus has the series of all of them.
#[tokio::test]
async fn nodes_that_have_not_reported_yet_make_no_answer_too_large() {
    let mut scraped = one_node();
    for n in 2..100 {
        let target =
            json!({"instance": format!("10.0.0.{n}:9180"), "node_name": format!("node-{n}")});
        let info = series("selvage_node_info", target.clone(), json!([[1002.5, "1"]]));
        scraped.get_mut("selvage_node_info").unwrap().push(info);
        let mut labels = of_revision("checkout-1", target);
        labels["outcome"] = json!("ok");
        labels["build"] = json!("0123456789abcdef".repeat(3072));
        let requests = series("selvage_requests_total", labels, json!([[1002.5, "5"]]));
        scraped
            .get_mut("selvage_requests_total")
            .unwrap()
            .push(requests);
    }
    assert_eq!(counts(&read(scraped).await), truth());
}

/// The names of all nodes, and the starts of their processes, are read before any of them is known to have reported.
#[tokio::test]
async fn the_names_of_nodes_that_have_not_reported_yet_make_no_answer_too_large() {
    let mut scraped = one_node();
    let build = "0123456789abcdef".repeat(32);
    for n in 0..800 {
        let target =
            json!({"instance": format!("10.1.{}.{}:9180", n / 250, n % 250), "build": build});
        let mut info = target.clone();
        info["node_name"] = json!(format!("other-{n}"));
        let claims = [
            ("selvage_node_info", info, "1"),
            ("process_start_time_seconds", target, "900.25"),
        ];
        for (metric, labels, value) in claims {
            let one = series(metric, labels, json!([[1002.5, value]]));
            scraped.get_mut(metric).unwrap().push(one);
        }
    }
    assert_eq!(counts(&read(scraped).await), truth());
}
