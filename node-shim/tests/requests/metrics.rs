//! Metrics of the data plane.

use std::sync::Arc;
use std::time::Duration;

use node_shim::admin::MetricsPage;
use node_shim::counters::{CounterTable, FinishedRequest};
use node_shim::metrics::{Metrics, NodeIdentity};
use node_shim::routing_table::{RevisionSlot, ServedFunction};
use node_shim_core::request_labels::{Outcome, Population, StartKind, StatusClass};
use node_shim_core::table::{FunctionEntry, FunctionKey, RevisionName, TrafficSplit};

use crate::guests;
use crate::support::node::{Node, Setup};

const FINE: FinishedRequest = FinishedRequest {
    population: Population::Live,
    outcome: Outcome::Ok,
    reason: None,
    code: StatusClass::C2xx,
    start: StartKind::Warm,
    head: None,
    duration: Duration::from_millis(2),
};

/// Returns the metrics of the data plane for a client with this `accept` header.
pub(crate) fn scrape(node: &Node, accept: &str) -> MetricsPage {
    let identity = NodeIdentity {
        node_name: "n1".into(),
        started_ms: 1_234,
    };
    Metrics::new(identity).page(&node.plane, Vec::new(), accept)
}

/// Returns the metrics of the data plane as text.
pub(crate) fn page(node: &Node) -> String {
    scrape(node, "").text
}

#[test]
fn series_of_a_loaded_revision_exist_at_zero() {
    let node = Node::serve(&guests::ANSWER);
    let page = page(&node);
    let labels = "function_namespace=\"ns\",function=\"f\",revision=\"r1\"";
    for line in [
        format!(
            "selvage_requests_total{{{labels},outcome=\"trap\",code=\"5xx\",start=\"warm\",population=\"live\"}} 0"
        ),
        format!("selvage_saturated_total{{{labels},population=\"live\"}} 0"),
        format!(
            "selvage_response_head_seconds_bucket{{{labels},population=\"live\",le=\"0.0015\"}} 0"
        ),
        format!("selvage_response_head_seconds_count{{{labels},population=\"live\"}} 0"),
        "process_start_time_seconds 1.234".to_owned(),
        "selvage_node_info{node_name=\"n1\"} 1".to_owned(),
        "selvage_rejected_requests_total{reason=\"method\"} 0".to_owned(),
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\nin\n{page}");
    }
}

/// Functions beyond the budget of series are aggregated, and the aggregate never decreases.
#[test]
fn functions_beyond_the_budget_are_aggregated_and_rollouts_have_full_detail() {
    let node = Setup::default().start_empty(CounterTable::new());
    let counters: Vec<_> = (0..300)
        .map(|at| {
            let function = FunctionKey::new("ns", format!("f{at:03}"));
            let revision = RevisionName::new("r1").unwrap();
            let counters = node.plane.counters().revision(&function, &revision);
            counters.record(&FINE);
            counters
        })
        .collect();
    let rolling = FunctionEntry {
        key: FunctionKey::new("ns", "f299"),
        created_ms: 0,
        routes: Vec::new(),
        suspended: false,
        callers: Vec::new(),
        split: TrafficSplit {
            in_rollout: true,
            ..TrafficSplit::default()
        },
    };
    node.publish(vec![ServedFunction {
        entry: Arc::new(rolling),
        stable: RevisionSlot::Absent,
        candidate: RevisionSlot::Absent,
    }]);
    let metrics = Metrics::new(NodeIdentity {
        node_name: "n1".into(),
        started_ms: 1,
    });
    let page = metrics.page(&node.plane, Vec::new(), "").text;
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 20_000, "{series}");
    let of = |page: &str, metric: &str, function: &str| {
        let start = format!("{metric}{{");
        let name = format!("function=\"{function}\"");
        let lines = page
            .lines()
            .filter(|line| line.starts_with(&start) && line.contains(&name));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .collect::<Vec<_>>()
    };
    let own = (0..300)
        .filter(|at| !of(&page, "selvage_requests_total", &format!("f{at:03}")).is_empty())
        .count();
    let sum = |page: &str| {
        of(page, "selvage_requests_total", "_other")
            .iter()
            .sum::<f64>()
    };
    assert_eq!(sum(&page) as usize, 300 - own);
    let head = "selvage_response_head_seconds_count";
    let duration = "selvage_request_duration_seconds_count";
    assert_eq!(of(&page, head, "_other"), [(300 - own) as f64]);
    assert_eq!(of(&page, duration, "_other"), [0.0; 0]);
    // a function in a rollout, one with its own series, one that is aggregated
    assert_eq!(of(&page, duration, "f299"), [1.0]);
    assert_eq!(
        (of(&page, head, "f000"), of(&page, duration, "f000")),
        (vec![1.0], vec![])
    );
    assert_eq!(of(&page, head, "f298"), [0.0; 0]);
    let last = &counters[298];
    last.record(&FINE);
    let page = metrics.page(&node.plane, Vec::new(), "").text;
    assert_eq!(sum(&page) as usize, 300 - own + 1);
}
