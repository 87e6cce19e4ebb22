//! Follows the state of the demo's function by a watch.

use crate::selvage::{Kind, Objects};
use futures::StreamExt;
use kube::{
    api::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{sync::Arc, time::Instant};
use tokio::{sync::watch, task::JoinHandle};

/// Fields of an `EdgeFunction` that the demo uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct View {
    /// Whether the status describes the newest spec.
    pub(super) current: bool,
    pub(super) phase: String,
    pub(super) state: String,
    pub(super) step: Option<u64>,
    pub(super) attempt: u64,
    pub(super) started_at: String,
    pub(super) stable: String,
    pub(super) candidate: String,
    /// Weight of the candidate, in basis points (1/10,000).
    pub(super) weight: u64,
    pub(super) message: String,
    pub(super) ready: bool,
    pub(super) evaluations: u64,
    /// Results of finished rollouts, newest first.
    pub(super) history: Vec<Ending>,
}

/// Result of a finished rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) revision: String,
    pub(super) outcome: String,
    pub(super) reason: String,
    pub(super) message: String,
}

impl View {
    pub(super) fn read(object: &Value, generation: Option<i64>) -> Self {
        let status = &object["status"];
        let rollout = &status["rollout"];
        let evidence = &rollout["evidence"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let candidate = text(&status["candidate"]["revision"]);
        let weight = list(&status["traffic"])
            .iter()
            .find(|entry| entry["revision"] == candidate.as_str())
            .and_then(|entry| entry["weight"].as_u64());
        let ready = list(&status["conditions"])
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        Self {
            current: generation.is_some() && status["observedGeneration"].as_i64() == generation,
            phase: text(&status["phase"]),
            state: text(&rollout["state"]),
            step: rollout["step"].as_u64(),
            attempt: rollout["attempt"].as_u64().unwrap_or_default(),
            started_at: text(&rollout["startedAt"]),
            stable: text(&status["stable"]["revision"]),
            candidate,
            weight: weight.unwrap_or_default(),
            message: text(&status["message"]),
            ready,
            evaluations: evidence["evaluations"].as_u64().unwrap_or_default(),
            history: list(&status["history"])
                .iter()
                .map(|entry| Ending {
                    revision: text(&entry["revision"]),
                    outcome: text(&entry["outcome"]),
                    reason: text(&entry["reason"]),
                    message: text(&entry["message"]),
                })
                .collect(),
        }
    }

    /// Returns the result of the rollout of `revision`, if it has ended.
    pub(super) fn ending(&self, revision: &str) -> Option<&Ending> {
        self.history
            .iter()
            .find(|ending| ending.revision == revision)
    }
}

/// Records every state that the watch shows, with its time.
#[derive(Debug)]
pub(super) struct Follower {
    latest: watch::Receiver<View>,
    seen: Arc<Mutex<Vec<(Instant, View)>>>,
    task: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(objects: &Objects, namespace: &str, name: &str) -> Self {
        let (sender, latest) = watch::channel(View::default());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = watcher(objects.api(Kind::Function, namespace), config)
            .default_backoff()
            .touched_objects()
            .boxed();
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                // the watch reconnects by itself and shows missed changes afterwards
                let Ok(object) = event else { continue };
                let DynamicObject { metadata, data, .. } = object;
                let view = View::read(&data, metadata.generation);
                log.lock().push((Instant::now(), view.clone()));
                if sender.send(view).is_err() {
                    return;
                }
            }
        });
        Self { latest, seen, task }
    }

    /// Returns the newest state.
    pub(super) fn view(&self) -> View {
        self.latest.borrow().clone()
    }

    /// Returns all states since `from`, oldest first.
    pub(super) fn since(&self, from: Instant) -> Vec<(Instant, View)> {
        let seen = self.seen.lock();
        seen.iter().filter(|(at, _)| *at >= from).cloned().collect()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_view_is_what_the_status_says() {
        let view = View::read(
            &json!({ "status": {
                "observedGeneration": 3, "phase": "Progressing", "message": "at 10 %",
                "stable": { "revision": "hello-a" }, "candidate": { "revision": "hello-b" },
                "traffic": [{ "revision": "hello-a", "weight": 9000 }, { "revision": "hello-b", "weight": 1000 }],
                "rollout": { "state": "Stepping", "step": 0, "attempt": 1, "evidence": {
                    "evaluations": 4,
                }},
                "history": [{ "revision": "hello-a", "outcome": "Promoted", "attempt": 1 }],
            }}),
            Some(3),
        );
        assert!(view.current);
        assert_eq!(
            (view.weight, view.evaluations, view.step),
            (1000, 4, Some(0))
        );
        assert_eq!(
            view.ending("hello-a").map(|ending| ending.outcome.as_str()),
            Some("Promoted")
        );
        assert!(!View::read(&json!({}), Some(1)).current);
    }
}
