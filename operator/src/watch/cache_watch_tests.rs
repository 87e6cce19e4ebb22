//! A cache that follows a server of a few lines, through everything that ends a watch.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

/// What lists are answered with, and what the present watch sends. A watch of which the sender is dropped ends.
#[derive(Clone)]
struct Server {
    list: Arc<Mutex<(StatusCode, Value)>>,
    events: Arc<Mutex<Option<mpsc::UnboundedSender<Value>>>>,
    lists: Arc<watch::Sender<usize>>,
    watches: Arc<watch::Sender<usize>>,
}

fn object(name: usize, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": { "version": version.to_string() },
        "metadata": { "name": name.to_string(), "namespace": "shop", "uid": name.to_string(), "resourceVersion": version.to_string() },
    })
}

fn list_of(names: impl IntoIterator<Item = usize>, version: u64) -> (StatusCode, Value) {
    let items: Vec<Value> = names
        .into_iter()
        .map(|name| object(name, version))
        .collect();
    let list = json!({
        "apiVersion": "v1", "kind": "ConfigMapList",
        "metadata": { "resourceVersion": version.to_string() }, "items": items,
    });
    (StatusCode::OK, list)
}

fn failure(code: u16) -> (StatusCode, Value) {
    let status = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": "Faulted", "message": "faulted" });
    (StatusCode::from_u16(code).unwrap(), status)
}

impl Server {
    fn new(list: (StatusCode, Value)) -> Self {
        Self {
            list: Arc::new(Mutex::new(list)),
            events: Arc::default(),
            lists: Arc::new(watch::Sender::new(0)),
            watches: Arc::new(watch::Sender::new(0)),
        }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let response = server.answer(request.uri().query().unwrap_or_default());
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, query: &str) -> Response<Body> {
        let (status, body) = if query.contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded_channel::<Value>();
            *self.events.lock().unwrap() = Some(sender);
            self.watches.send_modify(|count| *count += 1);
            let lines = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver)
                .map(|event| Ok::<_, Infallible>(format!("{event}\n")));
            (StatusCode::OK, Body::from_stream(lines))
        } else {
            let (status, list) = self.list.lock().unwrap().clone();
            self.lists.send_modify(|count| *count += 1);
            (status, Body::from(list.to_string()))
        };
        Response::builder().status(status).body(body).unwrap()
    }

    fn send(&self, kind: &str, object: &Value) {
        let event = json!({ "type": kind, "object": object });
        let events = self.events.lock().unwrap();
        events.as_ref().unwrap().send(event).unwrap();
    }

    /// The watch has fallen too far behind; lists are answered like this from now on.
    async fn expire(&self, list: (StatusCode, Value)) {
        *self.list.lock().unwrap() = list;
        let (lists, watches) = (*self.lists.borrow(), *self.watches.borrow());
        self.send("ERROR", &failure(410).1);
        let again = if self.list.lock().unwrap().0.is_success() {
            self.watches
                .subscribe()
                .wait_for(|count| *count > watches)
                .await
                .map(|_| ())
        } else {
            // tried more than once
            self.lists
                .subscribe()
                .wait_for(|count| *count > lists + 2)
                .await
                .map(|_| ())
        };
        again.unwrap();
    }
}

struct Followed {
    server: Server,
    cache: Cache<ConfigMap>,
    told: mpsc::UnboundedReceiver<(bool, String, u64)>,
}

impl Followed {
    /// Twenty objects of version 10, all told of.
    async fn twenty() -> Self {
        let server = Server::new(list_of(0..20, 10));
        let cache = Cache::<ConfigMap>::default();
        let (sender, told) = mpsc::unbounded_channel();
        let tell = move |change: Change<ConfigMap>| {
            let applied = matches!(change, Change::Applied(..));
            let object = change.into_object();
            let _ = sender.send((applied, object.name_any(), version(&*object)));
        };
        tokio::spawn(cache.watch(Api::all(server.client()), Brake::Held, |_| {}, tell));
        cache.filled().await;
        server
            .watches
            .subscribe()
            .wait_for(|count| *count == 1)
            .await
            .unwrap();
        let mut followed = Self {
            server,
            cache,
            told,
        };
        for _ in 0..20 {
            assert!(followed.next().await.0);
        }
        followed
    }

    async fn next(&mut self) -> (bool, String, u64) {
        self.told.recv().await.unwrap()
    }

    /// A change after everything before it was worked off: nothing else was told.
    async fn only_then(&mut self, name: usize, version: u64) {
        self.server.send("MODIFIED", &object(name, version));
        assert_eq!(self.next().await, (true, name.to_string(), version));
    }
}

/// FC-3: after a 410 the list is compared with what is held, and only what differs is told.
#[tokio::test(start_paused = true)]
async fn an_expired_watch_tells_differences_and_no_spurious_deletion() {
    let mut followed = Followed::twenty().await;
    let (status, mut list) = list_of(0..20, 10);
    list["items"][3] = object(3, 30);
    list["items"].as_array_mut().unwrap().remove(7);
    followed.server.expire((status, list)).await;
    assert_eq!(followed.next().await, (true, "3".to_owned(), 30));
    assert_eq!(followed.next().await, (false, "7".to_owned(), 10));
    followed.only_then(1, 31).await;
}

/// FC-1: without an API server what is known stays in use, and on its return it is listed once.
#[tokio::test(start_paused = true)]
async fn an_outage_forgets_nothing_and_ends_with_one_list() {
    let mut followed = Followed::twenty().await;
    followed.server.expire(failure(503)).await;
    assert_eq!(followed.cache.len(), 20);
    let before = *followed.server.lists.borrow();
    *followed.server.list.lock().unwrap() = list_of(0..20, 10);
    let mut watches = followed.server.watches.subscribe();
    watches.wait_for(|count| *count == 2).await.unwrap();
    assert_eq!(*followed.server.lists.borrow(), before + 1);
    followed.only_then(1, 31).await;
}

/// HK-10, FC-15: a definition that is deleted (404) and made again, empty, takes nothing away before its time; what
/// comes back meanwhile is as if it had never been gone.
#[tokio::test(start_paused = true)]
async fn a_deleted_definition_takes_nothing_away_at_once() {
    let mut followed = Followed::twenty().await;
    followed.server.expire(failure(404)).await;
    assert_eq!(followed.cache.len(), 20);
    *followed.server.list.lock().unwrap() = list_of([], 40);
    let mut watches = followed.server.watches.subscribe();
    watches.wait_for(|count| *count == 2).await.unwrap();
    followed.only_then(1, 41).await;
    assert_eq!(followed.cache.len(), 20);
    tokio::time::sleep(CONFIRMATION - WINDOW).await;
    assert_eq!(followed.cache.len(), 20);
    tokio::time::sleep(WINDOW * 2).await;
    assert_eq!(followed.cache.len(), 1, "the one that came back");
}

/// FC-8, HK-7: an object that cannot be decoded keeps its last good version, and others are heard of.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_decoded_stops_no_watch() {
    let mut followed = Followed::twenty().await;
    let key = ObjectKey::new("shop", "5");
    let mut strange = object(5, 30);
    strange["data"] = json!(7);
    followed.server.send("MODIFIED", &strange);
    followed.only_then(1, 31).await;
    assert_eq!(version(&*followed.cache.get(&key).unwrap()), 10);
    assert!(followed.cache.unreadable().contains_key(&key));
    followed.only_then(5, 32).await;
    assert!(followed.cache.unreadable().is_empty());
    // the same in a list
    let (status, mut list) = list_of(0..20, 32);
    list["items"][6]["data"] = json!("no map");
    followed.server.expire((status, list)).await;
    assert_eq!(followed.cache.len(), 20);
    assert_eq!(followed.cache.unreadable().len(), 1);
}
