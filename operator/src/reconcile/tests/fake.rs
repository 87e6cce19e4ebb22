//! An API server of a few lines: objects by path, versions, merge patches with a precondition, and a list of
//! every write.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body as Answer;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What a call is answered with instead of being served.
pub(super) type Fault = Box<dyn Fn(&Method, &str) -> Option<u16> + Send + Sync>;

/// The fate of one write that is not an Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The process ends before it arrives.
    KilledBefore,
    /// It arrives, and the process ends before it gets the answer.
    KilledAfter,
    /// The server refuses it.
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
    /// Notifies about every write.
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
    /// Open watches, and where their events go.
    watches: Vec<(Selection, mpsc::UnboundedSender<String>)>,
    /// Last states of deleted objects, with the version of the deletion.
    deleted: Vec<(String, Value)>,
    /// Lists so far, by path.
    lists: BTreeMap<String, usize>,
    /// A watch cannot start at an older version.
    oldest: u64,
}

/// The objects that a list or a watch is about.
struct Selection {
    /// Path of a kind, in one namespace or over all.
    kind: String,
    /// The name that a field selector asks for.
    name: Option<String>,
}

impl Fake {
    pub(super) fn client(&self) -> Client {
        self.process(None).client
    }

    /// A process whose write number `at` (from 0) meets `fate`; no call of a dead process gets an answer.
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
                let delay = fake.state.lock().delay;
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                let query = parts.uri.query().unwrap_or_default();
                if query.contains("watch=true") {
                    return Ok(match fake.fault(&parts.method, path) {
                        Some(code) => {
                            let (status, answer) = failure(code, "Faulted");
                            let response = Response::builder().status(status);
                            response.body(Answer::from(answer.to_string())).unwrap()
                        }
                        None => Response::new(fake.watch(path, query)),
                    });
                }
                let answer = match fate {
                    Some(Fate::Refused) => failure(500, "Refused"),
                    _ => fake.serve(&parts.method, path, query, &body),
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
                let body = Answer::from(answer.to_string());
                Ok::<_, Infallible>(response.body(body).unwrap())
            }
        });
        Process {
            client: Client::new(service, "default"),
            writes,
            dead,
        }
    }

    /// Stores an object as another writer would.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.objects.insert(path.to_owned(), object);
        state.announce("MODIFIED", path);
    }

    /// Events of one kind from `resourceVersion` on, as long as the client listens.
    fn watch(&self, kind: &str, query: &str) -> Answer {
        let after = query
            .split('&')
            .find_map(|part| part.strip_prefix("resourceVersion="));
        let after: u64 = after.and_then(|version| version.parse().ok()).unwrap_or(0);
        let selection = Selection::of(kind, query);
        let (send, events) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        if after < state.oldest {
            return Answer::from(event("ERROR", &failure(410, "Expired").1));
        }
        let deleted = state
            .deleted
            .iter()
            .map(|(path, last)| ("DELETED", path, last));
        let present = state.objects.iter();
        let present = present.map(|(path, object)| ("MODIFIED", path, object));
        for (what, path, object) in deleted.chain(present) {
            if version_of(object) > after && selection.has(path) {
                let _ = send.send(event(what, object));
            }
        }
        state.watches.push((selection, send));
        drop(state);
        let lines = UnboundedReceiverStream::new(events).map(Ok::<_, Infallible>);
        Answer::from_stream(lines)
    }

    /// How often a list of this path was asked for.
    pub(super) fn lists(&self, path: &str) -> usize {
        self.state.lock().lists.get(path).copied().unwrap_or(0)
    }

    /// Deletes an object as another writer would.
    pub(super) fn remove(&self, path: &str) {
        self.state.lock().delete(path);
    }

    /// Deletes all objects below a path.
    pub(super) fn remove_under(&self, path: &str) {
        let mut state = self.state.lock();
        let there: Vec<String> = state.objects.keys().cloned().collect();
        for object in there.iter().filter(|at| at.starts_with(path)) {
            state.delete(object);
        }
    }

    /// Ends all watches, which cannot continue where they were.
    pub(super) fn end_watches(&self) {
        let mut state = self.state.lock();
        state.watches.clear();
        state.oldest = state.version;
    }

    /// All objects, with their paths.
    pub(super) fn objects(&self) -> Vec<(String, Value)> {
        let state = self.state.lock();
        let objects = state.objects.iter();
        objects
            .map(|(path, object)| (path.clone(), object.clone()))
            .collect()
    }

    fn fault(&self, method: &Method, path: &str) -> Option<u16> {
        let state = self.state.lock();
        state.fault.as_ref().and_then(|fault| fault(method, path))
    }

    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    pub(super) fn under(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock();
        state
            .objects
            .iter()
            .filter(|(at, _)| at.starts_with(path))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// `METHOD path` of every write since the last call.
    pub(super) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().writes)
    }

    pub(super) fn fail(&self, fault: Fault) {
        self.state.lock().fault = Some(fault);
    }

    pub(super) fn delay(&self, delay: Duration) {
        self.state.lock().delay = delay;
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

    fn serve(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> (StatusCode, Value) {
        let answer = self.answer(method, path, query, body);
        if *method != Method::GET {
            self.written.send_replace(());
        }
        answer
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut state = self.state.lock();
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
                    *state.lists.entry(path.to_owned()).or_default() += 1;
                    let selection = Selection::of(path, query);
                    let objects = state.objects.iter();
                    let items: Vec<&Value> = objects
                        .filter(|(at, _)| selection.has(at))
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
                None => missing(path),
            },
            Method::POST => state.create(path, body),
            Method::PATCH => state.patch(path, body),
            _ => {
                state.delete(path);
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
        self.objects.insert(at.clone(), object.clone());
        self.announce("ADDED", &at);
        (StatusCode::CREATED, object)
    }

    fn patch(&mut self, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let version = self.version + 1;
        let (path, part) = match path.strip_suffix("/status") {
            Some(object) => (object, "/status"),
            None => (path, "/metadata/ownerReferences"),
        };
        let Some(object) = self.objects.get_mut(path) else {
            return missing(path);
        };
        let wanted = &patch["metadata"]["resourceVersion"];
        if !wanted.is_null() && *wanted != object["metadata"]["resourceVersion"] {
            return failure(409, "Conflict");
        }
        let (parent, field) = part.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap();
        merge(
            &mut parent[field],
            patch.pointer(part).unwrap_or(&Value::Null),
        );
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        note_manager(object);
        let answer = object.clone();
        self.version = version;
        self.announce("MODIFIED", path);
        (StatusCode::OK, answer)
    }

    /// Notifies the watches of the object at `path`.
    fn announce(&mut self, what: &str, path: &str) {
        let Some(object) = self.objects.get(path) else {
            return;
        };
        let mut line = None;
        self.watches.retain(|(selection, events)| {
            !selection.has(path)
                || events
                    .send(line.get_or_insert_with(|| event(what, object)).clone())
                    .is_ok()
        });
    }

    fn delete(&mut self, path: &str) {
        let version = self.version + 1;
        let Some(object) = self.objects.get_mut(path) else {
            return;
        };
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        self.version = version;
        self.announce("DELETED", path);
        let last = self.objects.remove(path);
        self.deleted
            .extend(last.map(|last| (path.to_owned(), last)));
    }
}

impl Selection {
    fn of(kind: &str, query: &str) -> Self {
        let mut parameters = query.split('&');
        let name = parameters.find_map(|one| one.strip_prefix("fieldSelector=metadata.name%3D"));
        Self {
            kind: kind.to_owned(),
            name: name.map(str::to_owned),
        }
    }

    fn has(&self, path: &str) -> bool {
        let Some((kind, name)) = path.rsplit_once('/') else {
            return false;
        };
        (kind == self.kind || kind_of(path) == self.kind)
            && self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}

/// The path of an object's kind over all namespaces.
fn kind_of(path: &str) -> String {
    let kind = path.rsplit_once('/').map_or(path, |(kind, _)| kind);
    match kind.split_once("/namespaces/") {
        Some((group, rest)) => {
            let plural = rest.split_once('/').map_or(rest, |(_, plural)| plural);
            format!("{group}/{plural}")
        }
        None => kind.to_owned(),
    }
}

fn version_of(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

fn event(what: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": what, "object": object }))
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

/// Notes the operator as the manager of the status, in objects that name their managers at all.
fn note_manager(object: &mut Value) {
    let fields = fields_of(&json!({ "status": object["status"] }));
    let Some(managers) = object["metadata"]["managedFields"].as_array_mut() else {
        return;
    };
    managers.retain(|entry| entry["manager"] != crds::FIELD_MANAGER);
    managers.push(json!({
        "manager": crds::FIELD_MANAGER, "operation": "Update", "apiVersion": "selvage.dev/v1alpha1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields, "subresource": "status",
    }));
}

/// The fields of an object as the API server lists them for their manager.
pub(super) fn fields_of(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (format!("f:{name}"), fields_of(value)))
            .collect(),
        Value::Array(items) if items.iter().any(|item| item.get("type").is_some()) => items
            .iter()
            .map(|item| {
                let key = json!({ "type": item["type"] });
                (format!("k:{key}"), fields_of(item))
            })
            .collect(),
        _ => json!({}),
    }
}

/// The answer about an object that does not exist. A kind that is not served is answered without the name of an object.
fn missing(path: &str) -> (StatusCode, Value) {
    let (status, mut answer) = failure(404, "NotFound");
    let name = path.rsplit('/').next().unwrap_or_default();
    answer["details"] = json!({ "name": name });
    (status, answer)
}

fn failure(code: u16, reason: &str) -> (StatusCode, Value) {
    let mut status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": reason });
    if [429, 503].contains(&code) {
        status["details"] = json!({ "retryAfterSeconds": 600 });
    }
    (StatusCode::from_u16(code).unwrap(), status)
}
