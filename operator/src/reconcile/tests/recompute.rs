//! Looks between the last write and a crash: taken again from what Prometheus remembers.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use operator_core::rollout::{AnalysisState, RequiredMeasurements};

use super::resting::at_rest;
use super::*;
use crate::measure::{Access, Matchers, Meter, Prometheus};
use crate::reconcile::measure::{Needed, sample};

const PERIOD: i64 = 5;

/// A Prometheus that scrapes one node, a second before each look, and remembers.
struct History {
    /// When evaluations begin, and how many there were until now.
    base: Timestamp,
    evaluations: Mutex<i64>,
    revisions: [String; 2],
    /// Answers nothing about what is longer ago than a look needs.
    forgets: AtomicBool,
    asked: Mutex<Vec<String>>,
}

impl History {
    /// The samples of a counter, from the beginning to now.
    fn values(&self, at: impl Fn(i64) -> i64) -> Value {
        let now = *self.evaluations.lock();
        let time = |look: i64| self.base.as_second() + look * PERIOD - 1;
        let values = (0..=now).map(|look| json!([time(look), at(look).to_string()]));
        values.collect()
    }

    fn series(&self, metric: &str) -> Vec<Value> {
        let series = |more: Value, values: Value| {
            let mut labels = json!({ "__name__": metric, "job": "shim", "instance": "n-1:9180" });
            merge_into(&mut labels, &more);
            json!({ "metric": labels, "values": values })
        };
        let requests = |revision: &str, outcome: &str, each: i64, of: i64| {
            let labels = json!({
                "function_namespace": "shop", "function": "f", "revision": revision, "population": "live",
                "outcome": outcome, "code": "2xx", "start": "warm",
            });
            series(labels, self.values(|look| look * each / of))
        };
        let [candidate, stable] = &self.revisions;
        match metric {
            "selvage_node_info" => vec![series(json!({ "node_name": "n-1" }), self.values(|_| 1))],
            "process_start_time_seconds" => {
                // the nodes of these tests report that they started at the first millisecond of the epoch
                let mut values = self.values(|_| 0);
                for value in values.as_array_mut().unwrap() {
                    value[1] = json!("0.001");
                }
                vec![series(json!({}), values)]
            }
            "selvage_requests_total" => vec![
                requests(candidate, "ok", 10, 1),
                requests(candidate, "trap", 1, 3),
                requests(stable, "ok", 190, 1),
                requests(stable, "trap", 1, 1),
            ],
            _ => Vec::new(),
        }
    }

    fn answer(&self, body: &str) -> Response {
        let url = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
        let query = url.query_pairs().find(|(key, _)| key == "query").unwrap().1;
        self.asked.lock().push(query.to_string());
        if self.forgets.load(Ordering::SeqCst) && !query.ends_with("[60000ms]") {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let metric = query.split(['{', '[']).next().unwrap();
        let data = json!({ "resultType": "matrix", "result": self.series(metric) });
        json!({ "status": "success", "data": data })
            .to_string()
            .into_response()
    }

    async fn serve(self: &Arc<Self>, world: &World) -> PrometheusQueries {
        let served = Arc::clone(self);
        let handler = move |body: String| async move { served.answer(&body) };
        let app = Router::new().route("/api/v1/query", post(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let meter = Meter::new(&prometheus::Registry::new()).unwrap();
        let (interval, targets) = (Duration::from_secs(5), Matchers::default());
        let prometheus =
            Prometheus::new(&url, Access::default(), interval, targets, meter).unwrap();
        let (fleet, queue) = (&world.reconciler.fleet, &world.reconciler.queue);
        PrometheusQueries::eager(prometheus, fleet.clone(), queue.clone())
    }
}

fn merge_into(labels: &mut Value, more: &Value) {
    for (name, value) in more.as_object().unwrap() {
        labels[name] = value.clone();
    }
}

/// In the first step, all nodes following.
pub(super) async fn stepping(world: &World) -> RolloutState {
    at_rest(world).await;
    let mut object = world.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    object["spec"]["env"] = json!([{ "name": "A", "value": "2" }]);
    object["spec"]["rollout"] = json!({ "canary": { "steps": [{ "weight": "5%" }] } });
    object["metadata"]["generation"] = json!(2);
    world.fake.put(&format!("{FUNCTIONS}/f"), object);
    for _ in 0..3 {
        world.catch_up();
        world.reconcile("f").await;
        for node in ["n-1", "n-2"] {
            world.follows(node, "f");
        }
    }
    world.reconcile("f").await;
    let context = world.reconciler.contexts.of(&ObjectKey::new("shop", "f"));
    let context = context.lock().await;
    let state = context.present.as_ref().unwrap().state.clone();
    assert_eq!(state.state, core::State::Stepping);
    assert!(state.rollout.as_ref().unwrap().acked_at.is_some());
    state
}

/// A leader and what it holds in memory.
struct Leader<'a> {
    world: &'a World,
    history: &'a History,
    state: RolloutState,
    context: FunctionContext,
}

impl<'a> Leader<'a> {
    fn new(world: &'a World, history: &'a History, state: &RolloutState) -> Self {
        Self {
            world,
            history,
            state: state.clone(),
            context: FunctionContext::default(),
        }
    }

    async fn look(&mut self, number: i64) {
        *self.history.evaluations.lock() = number;
        let now = self.history.base + Duration::from_secs((number * PERIOD).unsigned_abs());
        let required = RequiredMeasurements {
            evaluation: true,
            traffic: false,
        };
        let needed = Needed {
            key: &ObjectKey::new("shop", "f"),
            state: &self.state,
            required,
            placed: &["n-1".to_owned()].into(),
            exposed: ["n-1".to_owned()].into(),
            now,
        };
        let ctx = &self.world.reconciler;
        let mut measured;
        loop {
            (measured, _) = sample(ctx, &needed, &mut self.context);
            // an answer of Prometheus causes the next reconcile
            if !ctx.source.settled().await {
                break;
            }
        }
        let look = match measured {
            core::Measured::Evaluation(evaluation) => evaluation,
            // the first one sets the baselines
            other => return assert_eq!((other, number), (core::Measured::NotDue, 1)),
        };
        self.state.rollout.as_mut().unwrap().analysis = Some(AnalysisState {
            state: look.analysis,
            evaluations: look.number,
            evaluated_at: look.at,
        });
        self.state.evidence_summary = Some(look.evidence_summary);
    }

    fn evidence(&self) -> (&str, &core::EvidenceSummary) {
        let analysis = self.state.rollout.as_ref().unwrap().analysis.as_ref();
        (
            &analysis.unwrap().state,
            self.state.evidence_summary.as_ref().unwrap(),
        )
    }
}

/// FC-5: evaluations between the last write and a crash are taken again, once, and come to the same.
#[tokio::test]
async fn fc_2_a_crash_between_two_writes_loses_no_evidence_that_prometheus_remembers() {
    let mut world = World::new();
    let start = stepping(&world).await;
    let rollout = start.rollout.as_ref().unwrap();
    let stable = &start.stable.as_ref().unwrap().revision;
    let history = Arc::new(History {
        base: Timestamp::from_second(Timestamp::now().as_second() + 10).unwrap(),
        evaluations: Mutex::new(0),
        revisions: [rollout.candidate.revision.name.clone(), stable.name.clone()],
        forgets: AtomicBool::new(false),
        asked: Mutex::default(),
    });
    let source = history.serve(&world).await;
    Arc::get_mut(&mut world.reconciler).unwrap().source = source;

    let mut undisturbed = Leader::new(&world, &history, &start);
    let mut written = None;
    for number in 1..=12 {
        undisturbed.look(number).await;
        if number == 4 {
            written = Some(undisturbed.state.clone());
        }
    }
    let written = written.unwrap();
    // evaluations 5 to 8 were taken, not written, and died with the process
    history.asked.lock().clear();
    let mut successor = Leader::new(&world, &history, &written);
    for number in 9..=12 {
        successor.look(number).await;
    }
    assert_eq!(successor.evidence(), undisturbed.evidence());
    let asked = std::mem::take(&mut *history.asked.lock());
    let long: Vec<&String> = asked.iter().filter(|q| !q.ends_with("[60000ms]")).collect();
    assert_eq!(long.len(), 5, "asked once, of 25 s and a window: {asked:?}");
    assert!(long.iter().all(|query| query.ends_with("[85000ms]")));

    // not to be had: those evaluations are lost, their counts are not
    history.forgets.store(true, Ordering::SeqCst);
    let mut poor = Leader::new(&world, &history, &written);
    for number in 9..=12 {
        poor.look(number).await;
    }
    let (lost, full) = (poor.evidence(), undisturbed.evidence());
    assert_ne!(lost.0, full.0);
    assert_eq!(lost.1.candidate, full.1.candidate);
    assert_eq!(lost.1.evaluations + 4, full.1.evaluations);
}
