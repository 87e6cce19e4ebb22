//! Events about what is wrong with a spec, or with what it refers to: one for each problem, while it lasts.

use crds::conditions::reasons;

use super::*;
use crate::reconcile::report::NewEvent;

const EVENTS: &str = "/apis/events.k8s.io";

impl World {
    /// Events with this reason, oldest first.
    pub(super) fn events(&self, reason: &str) -> Vec<Value> {
        let mut events = self.fake.under(EVENTS);
        events.retain(|event| event["reason"] == reason);
        events.sort_by_key(|event| event["eventTime"].to_string());
        events
    }

    /// Waits until every Event that was recorded so far is written.
    pub(super) async fn events_written(&self) {
        let last = "EverythingBefore";
        let before = self.events(last).len();
        let event = NewEvent {
            kind: core::EventType::Normal,
            reason: last,
            note: "",
            dedup_key: &before.to_string(),
        };
        let about = crds::EdgeFunction::new("f", crds::function::EdgeFunctionSpec::default());
        let reporter = &self.reconciler.reporter;
        reporter.record_event(&about, Timestamp::now(), event);
        self.fake.until(|| self.events(last).len() > before).await;
    }

    /// Checks that the reason why the spec of `f` is not taken was reported by one Event with the message of `Ready`, and is not
    /// reported again by the next reconcile.
    pub(super) async fn is_reported_once(&self, reason: &str) {
        self.events_written().await;
        let warnings = || {
            let mut events = self.fake.under(EVENTS);
            events.retain(|event| event["type"] == "Warning");
            events
        };
        let first = warnings();
        let found: Vec<_> = first.iter().map(|event| event["reason"].as_str()).collect();
        let expected: Vec<_> = event_reason(reason).into_iter().map(Some).collect();
        assert_eq!(found, expected, "{reason}");
        let message = self.condition("f", "Ready").2;
        for event in &first {
            assert_eq!(event["note"], message, "{reason}");
        }
        // the first one has the answer of a registry next, and the second one a reconcile that panics
        if [reasons::RESOLVING, reasons::INTERNAL_ERROR].contains(&reason) {
            return;
        }
        self.catch_up();
        self.reconcile("f").await;
        self.events_written().await;
        assert_eq!(warnings(), first, "{reason}");
    }
}

/// Reason of the Event about a reason why a spec is not taken.
fn event_reason(reason: &str) -> Option<&str> {
    match reason {
        reasons::RESOLVING => None,
        reasons::NOT_FOUND
        | reasons::UNAUTHORIZED
        | reasons::DIGEST_MISMATCH
        | reasons::NOT_A_COMPONENT => Some(reasons::PULL_FAILED),
        _ => Some(reason),
    }
}

/// A problem that another edit leaves is a problem of that edit too, and one that comes back is a new one.
#[tokio::test]
async fn a_problem_is_reported_again_after_an_edit_and_when_it_comes_back() {
    let world = World::new();
    let (none, good) = (json!([]), json!([{ "hosts": ["f.example"] }]));
    world.apply("f", "2026-01-01T00:00:00Z", &json!({ "routes": none }));
    let path = format!("{FUNCTIONS}/f");
    for (generation, routes, reported) in
        [(1, &none, 1), (2, &none, 2), (3, &good, 2), (4, &none, 3)]
    {
        let mut object = world.fake.get(&path).unwrap();
        object["metadata"]["generation"] = json!(generation);
        object["spec"]["routes"] = routes.clone();
        world.fake.put(&path, object);
        world.catch_up();
        world.reconcile("f").await;
        world.events_written().await;
        let events = world.events(reasons::INVALID_ROUTE);
        assert_eq!(
            events.len(),
            reported,
            "generation {generation}: {events:?}"
        );
    }
}
