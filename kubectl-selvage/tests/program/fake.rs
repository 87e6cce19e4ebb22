//! An API server that keeps objects by path, with versions, watches, preconditions and logs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Path of the function in the tests.
pub(crate) const FUNCTION: &str =
    "/apis/selvage.dev/v1alpha1/namespaces/shop/edgefunctions/checkout";

/// The second in which nodes read all lines of their logs.
const READ: &str = "2026-11-21T14:00:00";

/// What the operator changes after a write: a merge patch of the object.
pub(crate) type Operator = Box<dyn Fn(&Value) -> Option<Value> + Send>;

#[derive(Clone, Default)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    /// Notifies about every request.
    seen: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    logs: BTreeMap<String, Log>,
    /// Where port-forwards of a pod lead to. Others are forbidden.
    forwards: BTreeMap<String, SocketAddr>,
    watches: Vec<Watch>,
    writes: Vec<Write>,
    operator: Option<Operator>,
    /// Changes by another writer, each right before a write arrives.
    interference: Vec<Value>,
    watched: usize,
}

/// The log of a pod, and the connections that follow it.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    /// Connections that are open, and whether their lines begin with the times at which the node read them.
    followers: Vec<(mpsc::UnboundedSender<String>, bool)>,
    /// Number of connections that have followed it.
    followed: usize,
}

struct Watch {
    kind: String,
    name: Option<String>,
    events: mpsc::UnboundedSender<String>,
}

/// A write that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) query: String,
    pub(crate) body: Value,
    pub(crate) status: u16,
}

impl Fake {
    /// Starts the server. It ends with the runtime.
    pub(crate) async fn start(self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let forward = "/api/v1/namespaces/{namespace}/pods/{pod}/portforward";
        let router = Router::new()
            .route(forward, get(crate::node::forward))
            .fallback(serve)
            .with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// Stores an object.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.lock().put(path, object);
        self.seen.send_replace(());
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, path: &str) {
        let mut state = self.state.lock();
        state.version += 1;
        let object = state.objects.remove(path).unwrap();
        state.announce("DELETED", path, &object);
    }

    /// Appends to the log of a pod.
    pub(crate) fn log(&self, path: &str, text: &str) {
        let mut state = self.state.lock();
        let log = state.logs.entry(path.into()).or_default();
        let first = log.lines.len();
        log.lines.extend(text.lines().map(ToOwned::to_owned));
        for (follower, stamped) in &log.followers {
            // a connection that its client has closed
            let _ = follower.send(log.text(first, *stamped));
        }
    }

    /// Ends the connections that follow a log, as the API server does for a container that ends.
    pub(crate) fn end_log(&self, path: &str) {
        self.state
            .lock()
            .logs
            .get_mut(path)
            .unwrap()
            .followers
            .clear();
    }

    /// Waits until `count` connections have followed a log.
    pub(crate) async fn log_followed(&self, path: &str, count: usize) {
        let mut seen = self.seen.subscribe();
        while self.state.lock().logs[path].followed < count {
            seen.changed().await.unwrap();
        }
    }

    pub(crate) fn forward(&self, pod: &str, address: SocketAddr) {
        self.state.lock().forwards.insert(pod.into(), address);
    }

    /// Forbids port-forwards of a pod.
    pub(crate) fn unforward(&self, pod: &str) {
        self.state.lock().forwards.remove(pod);
    }

    pub(crate) fn forwarded(&self, pod: &str) -> Option<SocketAddr> {
        self.state.lock().forwards.get(pod).copied()
    }

    pub(crate) fn operator(&self, operator: Operator) {
        self.state.lock().operator = Some(operator);
    }

    /// Another writer applies a merge patch to the function right before the next write.
    pub(crate) fn interfere(&self, patch: Value) {
        self.state.lock().interference.push(patch);
    }

    pub(crate) fn writes(&self) -> Vec<Write> {
        self.state.lock().writes.clone()
    }

    pub(crate) fn function(&self) -> Value {
        self.state.lock().objects[FUNCTION].clone()
    }

    /// Waits until `count` watches were opened.
    pub(crate) async fn watched(&self, count: usize) {
        let mut seen = self.seen.subscribe();
        while self.state.lock().watched < count {
            seen.changed().await.unwrap();
        }
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.objects.insert(path.to_owned(), object.clone());
        self.announce("MODIFIED", path, &object);
    }

    fn announce(&mut self, what: &str, path: &str, object: &Value) {
        let line = event(what, object);
        self.watches.retain(|watch| {
            !is_selected(path, &watch.kind, watch.name.as_deref())
                || watch.events.send(line.clone()).is_ok()
        });
    }

    /// Objects of a kind, in one namespace or in all.
    fn list(&self, kind: &str, name: Option<&str>) -> Vec<Value> {
        let objects = self.objects.iter();
        objects
            .filter(|(path, _)| is_selected(path, kind, name))
            .map(|(_, object)| object.clone())
            .collect()
    }
}

impl Log {
    /// Returns the log from a line on.
    fn text(&self, first: usize, stamped: bool) -> String {
        let lines = self.lines.iter().enumerate().skip(first);
        lines
            .map(|(index, line)| match stamped {
                true => format!("{READ}.7{index:08}Z {line}\n"),
                false => format!("{line}\n"),
            })
            .collect()
    }

    fn read(&mut self, query: &str) -> Response {
        let stamped = query.contains("timestamps=true");
        let mut parts = query.split('&');
        let since = parts.find_map(|part| part.strip_prefix("sinceTime="));
        let since = since.map(|since| since.replace("%3A", ":").replace('Z', ""));
        let is_over = since.is_some_and(|since| since.as_str() > READ);
        let first = if is_over { self.lines.len() } else { 0 };
        let text = self.text(first, stamped);
        if !query.contains("follow=true") {
            return text.into_response();
        }
        let (lines, received) = mpsc::unbounded_channel();
        lines.send(text).unwrap();
        self.followers.push((lines, stamped));
        self.followed += 1;
        let lines = UnboundedReceiverStream::new(received).map(Ok::<_, Infallible>);
        Body::from_stream(lines).into_response()
    }
}

fn is_selected(path: &str, kind: &str, name: Option<&str>) -> bool {
    let (folder, last) = path.rsplit_once('/').unwrap();
    let plural = kind.rsplit('/').next().unwrap();
    let group = kind.strip_suffix(&format!("/{plural}")).unwrap();
    let everywhere = folder.starts_with(&format!("{group}/namespaces/"))
        && folder.ends_with(&format!("/{plural}"));
    (folder == kind || everywhere) && name.is_none_or(|name| name == last)
}

fn event(what: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": what, "object": object }))
}

pub(crate) fn failure(code: u16, reason: &str, name: &str) -> Response {
    let details = json!({ "name": name });
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": format!("{reason}: {name}"), "details": details,
    });
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

/// Applies a JSON merge patch.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

async fn serve(Shared(fake): Shared<Fake>, method: Method, uri: Uri, body: Bytes) -> Response {
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let mut state = fake.state.lock();
    let response = match method {
        Method::GET => read(&mut state, path, query),
        Method::PATCH | Method::PUT => write(&mut state, &method, path, query, &body),
        _ => failure(405, "MethodNotAllowed", path),
    };
    fake.seen.send_replace(());
    response
}

fn read(state: &mut State, path: &str, query: &str) -> Response {
    if let Some(object) = state.objects.get(path) {
        return object.to_string().into_response();
    }
    if let Some(log) = state.logs.get_mut(path) {
        return log.read(query);
    }
    let name = query
        .split('&')
        .find_map(|part| part.strip_prefix("fieldSelector=metadata.name%3D"));
    if query.contains("watch=true") {
        let after = query
            .split('&')
            .find_map(|part| part.strip_prefix("resourceVersion="));
        let after: u64 = after.unwrap().parse().unwrap();
        let (events, received) = mpsc::unbounded_channel();
        for object in state.list(path, name) {
            let version = object["metadata"]["resourceVersion"].as_str().unwrap();
            if version.parse::<u64>().unwrap() > after {
                events.send(event("MODIFIED", &object)).unwrap();
            }
        }
        state.watched += 1;
        state.watches.push(Watch {
            kind: path.to_owned(),
            name: name.map(ToOwned::to_owned),
            events,
        });
        let lines = UnboundedReceiverStream::new(received).map(Ok::<_, Infallible>);
        return Body::from_stream(lines).into_response();
    }
    let last = path.rsplit('/').next().unwrap();
    if !last.ends_with('s') {
        return failure(404, "NotFound", last);
    }
    let items = state.list(path, name);
    let version = state.version.to_string();
    let list = json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items });
    list.to_string().into_response()
}

fn write(state: &mut State, method: &Method, path: &str, query: &str, body: &[u8]) -> Response {
    if let Some(patch) = state.interference.pop() {
        let mut other = state.objects[path].clone();
        merge(&mut other, &patch);
        state.put(path, other);
    }
    let body: Value = serde_json::from_slice(body).unwrap();
    let mut object = state.objects[path].clone();
    let expected = &body["metadata"]["resourceVersion"];
    let conflict = !expected.is_null() && *expected != object["metadata"]["resourceVersion"];
    state.writes.push(Write {
        query: query.to_owned(),
        body: body.clone(),
        status: if conflict { 409 } else { 200 },
    });
    if conflict {
        return failure(409, "Conflict", path);
    }
    if *method == Method::PUT {
        object = body;
    } else {
        merge(&mut object, &body);
    }
    state.put(path, object.clone());
    let answer = state.objects[path].to_string();
    let patch = state
        .operator
        .as_ref()
        .and_then(|operator| operator(&object));
    if let Some(patch) = patch {
        merge(&mut object, &patch);
        state.put(path, object);
    }
    answer.into_response()
}
