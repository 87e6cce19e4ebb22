//! Prometheus hangs or fails: no reconcile waits for it, and it is not asked more and more.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use operator_core::rollout::RequiredMeasurements;
use tokio::sync::Notify;

use super::recompute::stepping;
use super::resting::at_rest;
use super::*;
use crate::measure::{Access, Matchers, Meter, Prometheus};
use crate::reconcile::measure::{Needed, sample};

/// A Prometheus that never answers, or always with an error.
#[derive(Default)]
struct Server {
    hangs: bool,
    /// Refuses all clients instead of failing.
    refuses: bool,
    asked: AtomicUsize,
    arrived: Notify,
    /// Whether a client has stopped waiting.
    abandoned: AtomicBool,
}

/// Sets the flag if the query is dropped before it is answered.
struct Query<'a>(&'a AtomicBool);

impl Drop for Query<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Server {
    async fn answer(&self) -> StatusCode {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.arrived.notify_one();
        if self.hangs {
            let _query = Query(&self.abandoned);
            std::future::pending::<()>().await;
        }
        if self.refuses {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }

    /// Makes a world ask this server.
    async fn serve(self: &Arc<Self>, world: &mut World) {
        let served = Arc::clone(self);
        let handler = move || {
            let served = Arc::clone(&served);
            async move { served.answer().await }
        };
        let app = Router::new().route("/api/v1/query", post(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let meter = Meter::new(&prometheus::Registry::new()).unwrap();
        let (interval, targets) = (Duration::from_secs(5), Matchers::default());
        let prometheus =
            Prometheus::new(&url, Access::default(), interval, targets, meter).unwrap();
        let reconciler = Arc::get_mut(&mut world.reconciler).unwrap();
        let (fleet, queue) = (reconciler.fleet.clone(), reconciler.queue.clone());
        reconciler.source = PrometheusQueries::eager(prometheus, fleet, queue);
    }
}

/// A new version whose first step needs to know the traffic, which only Prometheus may tell.
fn new_version(world: &World) {
    let mut object = world.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    object["spec"]["env"] = json!([{ "name": "A", "value": "2" }]);
    object["spec"]["rollout"] = json!({ "analysis": { "source": "Prometheus" } });
    object["metadata"]["generation"] = json!(2);
    world.fake.put(&format!("{FUNCTIONS}/f"), object);
    world.catch_up();
}

/// FE-1: while Prometheus hangs, a rollout goes on as far as it can, and an `abort` acts at once.
#[tokio::test]
async fn no_reconcile_waits_for_a_prometheus_that_hangs() {
    let mut world = World::new();
    at_rest(&world).await;
    let server = Arc::new(Server {
        hangs: true,
        ..Server::default()
    });
    server.serve(&mut world).await;
    new_version(&world);
    for _ in 0..3 {
        world.reconcile("f").await;
        world.catch_up();
        world.follows("n-1", "f");
        world.follows("n-2", "f");
    }
    server.arrived.notified().await;
    let mut object = world.fake.get(&format!("{FUNCTIONS}/f")).unwrap();
    let candidate = object["status"]["candidate"]["revision"].clone();
    assert!(candidate.is_string(), "{:#}", object["status"]);
    object["metadata"]["annotations"] = json!({ "selvage.dev/abort": candidate });
    world.fake.put(&format!("{FUNCTIONS}/f"), object);
    world.catch_up();
    world.reconcile("f").await;
    assert_eq!(world.status("f").candidate, None);
    assert!(
        !server.abandoned.load(Ordering::SeqCst),
        "all of it happened while the first query was still open"
    );
}

/// FE-1: a query for the past that failed is not repeated by every reconcile.
#[tokio::test]
async fn the_past_is_asked_for_again_only_after_a_delay() {
    let mut world = World::new();
    at_rest(&world).await;
    let server = Arc::new(Server::default());
    server.serve(&mut world).await;
    new_version(&world);
    // no node has loaded the new version, so its traffic is asked for until then
    for _ in 0..6 {
        world.reconcile("f").await;
        world.catch_up();
        world.reconciler.source.settled().await;
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
}

/// Lets the node `n-1` report counters of the stable revision.
fn report_counters(world: &World, state: &RolloutState) {
    let stable = state.stable.as_ref().unwrap().revision.name.clone();
    let counters = node_api::v1::RevisionCounters {
        function: Some((&FunctionKey::new("shop", "f")).into()),
        revision: stable,
        population: "live".to_owned(),
        ..node_api::v1::RevisionCounters::default()
    };
    let frame = node_api::v1::CounterFrame {
        boot_id: 1,
        sequence: 1,
        absolute: true,
        revisions: vec![counters],
        ..node_api::v1::CounterFrame::default()
    };
    world.reconciler.fleet.counters_from("n-1", 1, [frame]);
}

/// FE-1: an evaluation that has the counters of the nodes waits for Prometheus for two seconds, and never longer.
#[tokio::test(start_paused = true)]
async fn an_evaluation_with_the_counters_of_nodes_goes_on_without_prometheus() {
    let mut world = World::new();
    let state = stepping(&world).await;
    report_counters(&world, &state);
    let server = Arc::new(Server {
        hangs: true,
        ..Server::default()
    });
    server.serve(&mut world).await;
    let nodes: BTreeSet<String> = ["n-1".to_owned()].into();
    let needed = Needed {
        key: &ObjectKey::new("shop", "f"),
        state: &state,
        required: RequiredMeasurements {
            evaluation: true,
            traffic: false,
        },
        placed: &nodes,
        exposed: nodes.clone(),
        now: Timestamp::now(),
    };
    let mut context = FunctionContext::default();
    let patience = Duration::from_secs(2);
    for question in ["stable's past", "the newest samples"] {
        sample(&world.reconciler, &needed, &mut context);
        assert!(context.evaluator.is_none(), "{question}");
        tokio::time::advance(patience).await;
    }
    assert!(
        context
            .decide_without_prometheus_at
            .is_some_and(|until| until <= Instant::now())
    );
    sample(&world.reconciler, &needed, &mut context);
    assert!(context.evaluator.is_some());
}

/// FE-1: a Prometheus that refuses the operator is named as the reason why a rollout has no samples.
#[tokio::test]
async fn a_refusal_of_prometheus_is_the_reason_for_missing_samples() {
    for (source, expected) in [
        (
            core::AnalysisSource::Prometheus,
            "status 401: Prometheus does not accept the credentials; the operator has no credentials for Prometheus",
        ),
        // the counters of another node are used and are not enough
        (
            core::AnalysisSource::Auto,
            "; Prometheus: status 401: Prometheus does not accept the credentials",
        ),
    ] {
        let mut world = World::new();
        let mut state = stepping(&world).await;
        state.rollout.as_mut().unwrap().plan.analysis.source = source;
        report_counters(&world, &state);
        let server = Arc::new(Server {
            refuses: true,
            ..Server::default()
        });
        server.serve(&mut world).await;
        let nodes: BTreeSet<String> = ["n-2".to_owned()].into();
        let needed = Needed {
            key: &ObjectKey::new("shop", "f"),
            state: &state,
            required: RequiredMeasurements {
                evaluation: true,
                traffic: false,
            },
            placed: &nodes,
            exposed: nodes.clone(),
            now: Timestamp::now() + Duration::from_secs(600),
        };
        let mut memory = FunctionContext::default();
        let mut measured;
        loop {
            (measured, _) = sample(&world.reconciler, &needed, &mut memory);
            // an answer of Prometheus causes the next reconcile
            if !world.reconciler.source.settled().await {
                break;
            }
        }
        let core::Measured::Unavailable { message, .. } = measured else {
            panic!("{source:?}: {measured:?}");
        };
        assert!(message.contains(expected), "{source:?}: {message}");
    }
}
