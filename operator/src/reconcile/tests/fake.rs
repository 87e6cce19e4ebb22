//! An API server of a few lines: objects by path, versions, merge patches with a precondition, and a list of
//! every write.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What a call is answered with instead of being served.
pub(super) type Fault = Box<dyn Fn(&Method, &str) -> Option<u16> + Send + Sync>;

/// What becomes of one write, the Events aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The process ends before it arrives.
    KilledBefore,
    /// It arrives, and the process ends before it hears so.
    KilledAfter,
    /// It is refused.
    Refused,
    /// It arrives, and the answer is lost.
    AnswerLost,
}

/// The client of one process, which may meet its fate.
pub(super) struct Process {
    pub(super) client: Client,
    pub(super) writes: Arc<AtomicUsize>,
    /// Whether it was killed.
    pub(super) dead: watch::Receiver<bool>,
}

#[derive(Clone, Default)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    /// Tells of every write.
    written: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
    fault: Option<Fault>,
    /// How long every call takes on its way there.
    delay: Duration,
}

impl Fake {
    pub(super) fn client(&self) -> Client {
        self.process(None).client
    }

    /// A process whose write number `at` (from 0) meets `fate`; every call of a dead one is for ever without an answer.
    pub(super) fn process(&self, fate: Option<(usize, Fate)>) -> Process {
        let (fake, writes) = (self.clone(), Arc::<AtomicUsize>::default());
        let (kill, dead) = watch::channel(false);
        let (kill, counted) = (Arc::new(kill), Arc::clone(&writes));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (fake, kill, counted) = (fake.clone(), Arc::clone(&kill), Arc::clone(&counted));
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                let path = parts.uri.path();
                let is_write = parts.method != Method::GET && !path.contains("/events");
                let number = is_write.then(|| counted.fetch_add(1, Ordering::SeqCst));
                let fate = fate
                    .filter(|(at, _)| number == Some(*at))
                    .map(|(_, fate)| fate);
                if fate == Some(Fate::KilledBefore) {
                    kill.send_replace(true);
                }
                if *kill.borrow() {
                    std::future::pending::<()>().await;
                }
                let delay = fake.lock().delay;
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                let answer = match fate {
                    Some(Fate::Refused) => failure(500, "Refused"),
                    _ => fake.serve(&parts.method, path, &body),
                };
                let (status, answer) = match fate {
                    Some(Fate::KilledAfter) => {
                        kill.send_replace(true);
                        std::future::pending().await
                    }
                    Some(Fate::AnswerLost) => failure(504, "Timeout"),
                    _ => answer,
                };
                let response = Response::builder().status(status);
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(response.body(body).unwrap())
            }
        });
        Process {
            client: Client::new(service, "default"),
            writes,
            dead,
        }
    }

    /// A fault that panics leaves everything as it was.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Stores an object as somebody else would write it.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.objects.insert(path.to_owned(), object);
    }

    pub(super) fn remove(&self, path: &str) {
        self.lock().objects.remove(path);
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.lock().objects.get(path).cloned()
    }

    pub(super) fn under(&self, path: &str) -> Vec<Value> {
        let state = self.lock();
        state
            .objects
            .iter()
            .filter(|(at, _)| at.starts_with(path))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// `METHOD path` of every write since the last call.
    pub(super) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().writes)
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.lock().delay = delay;
    }

    /// Waits until what was written makes `what` true.
    pub(super) async fn until(&self, what: impl Fn() -> bool) {
        let mut written = self.written.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !what() {
                written.changed().await.expect("it lives as long as self");
            }
        });
        waited.await.expect("it happens");
    }

    fn serve(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let answer = self.answer(method, path, body);
        if *method != Method::GET {
            self.written.send_replace(());
        }
        answer
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut state = self.lock();
        if *method != Method::GET {
            state.writes.push(format!("{method} {path}"));
        }
        if let Some(code) = state.fault.as_ref().and_then(|fault| fault(method, path)) {
            return failure(code, "Faulted");
        }
        match *method {
            Method::GET => match state.objects.get(path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None if path
                    .rsplit('/')
                    .next()
                    .is_some_and(|last| last.ends_with('s')) =>
                {
                    let prefix = format!("{path}/");
                    let items: Vec<&Value> = state
                        .objects
                        .range(prefix.clone()..)
                        .take_while(|(at, _)| at.starts_with(&prefix))
                        .map(|(_, object)| object)
                        .collect();
                    let kind = if path.ends_with("hostclaims") {
                        "HostClaimList"
                    } else {
                        "List"
                    };
                    (
                        StatusCode::OK,
                        json!({ "apiVersion": "selvage.dev/v1alpha1", "kind": kind, "metadata": { "resourceVersion": state.version.to_string() }, "items": items }),
                    )
                }
                None => failure(404, "NotFound"),
            },
            Method::POST => state.create(path, body),
            Method::PATCH => state.patch(path.trim_end_matches("/status"), body),
            _ => {
                state.objects.remove(path);
                (
                    StatusCode::OK,
                    json!({ "apiVersion": "v1", "kind": "Status", "status": "Success" }),
                )
            }
        }
    }
}

impl State {
    fn create(&mut self, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let at = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        if self.objects.contains_key(&at) {
            return failure(409, "AlreadyExists");
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        self.objects.insert(at, object.clone());
        (StatusCode::CREATED, object)
    }

    fn patch(&mut self, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let version = self.version + 1;
        let Some(object) = self.objects.get_mut(path) else {
            return failure(404, "NotFound");
        };
        let wanted = &patch["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
            return failure(409, "Conflict");
        }
        merge(&mut object["status"], &patch["status"]);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let answer = object.clone();
        self.version = version;
        (StatusCode::OK, answer)
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], change);
        }
    }
}

fn failure(code: u16, reason: &str) -> (StatusCode, Value) {
    let mut status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": reason });
    if [429, 503].contains(&code) {
        status["details"] = json!({ "retryAfterSeconds": 600 });
    }
    (StatusCode::from_u16(code).unwrap(), status)
}
