//! A cache that follows a server of a few lines, through everything that ends a watch.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use crds::EdgeRevision;
use http::{Request, Response, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::mass_deletion::{CONFIRMATION, WINDOW};
use super::*;

/// What lists are answered with, and what the present watch sends. A watch of which the sender is dropped ends.
#[derive(Clone)]
struct Server {
    list: Arc<Mutex<(StatusCode, Value)>>,
    /// What quorum reads are answered from.
    store: Arc<Mutex<Store>>,
    events: Arc<Mutex<Option<mpsc::UnboundedSender<Value>>>>,
    lists: Arc<watch::Sender<usize>>,
    watches: Arc<watch::Sender<usize>>,
}

struct Store {
    /// Names of the objects that exist.
    there: Vec<usize>,
    /// The code of every answer, if the reads fail.
    fails: Option<u16>,
    version: u64,
    /// When the definition was made; `None`: there is none.
    defined: Option<&'static str>,
    is_terminating: bool,
    /// `METHOD path` of every quorum read.
    reads: Vec<String>,
}

const CREATED: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-02-01T00:00:00Z";

fn object(name: usize, version: u64) -> Value {
    json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeRevision",
        "spec": { "function": "f", "number": version, "digest": "sha256:1" },
        "metadata": {
            "name": name.to_string(), "namespace": "shop", "uid": name.to_string(),
            "resourceVersion": version.to_string(), "creationTimestamp": CREATED,
        },
    })
}

fn list_of(names: impl IntoIterator<Item = usize>, version: u64) -> (StatusCode, Value) {
    let items: Vec<Value> = names
        .into_iter()
        .map(|name| object(name, version))
        .collect();
    let list = json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeRevisionList",
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
            store: Arc::new(Mutex::new(Store {
                there: (0..20).collect(),
                fails: None,
                version: 1000,
                defined: Some(CREATED),
                is_terminating: false,
                reads: Vec::new(),
            })),
            events: Arc::default(),
            lists: Arc::new(watch::Sender::new(0)),
            watches: Arc::new(watch::Sender::new(0)),
        }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let query = request.uri().query().unwrap_or_default();
            let path = request.uri().path();
            let whole = path.ends_with("/v1alpha1/edgerevisions") && !query.contains("limit=1&");
            let response = if whole && !query.ends_with("limit=1") {
                server.answer(query)
            } else {
                server.store.lock().unwrap().read(path)
            };
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

impl Store {
    fn delete(&mut self, names: &Range<usize>) {
        self.there.retain(|name| !names.contains(name));
    }

    fn read(&mut self, path: &str) -> Response<Body> {
        self.reads.push(path.to_owned());
        let (status, body) = self.found(path);
        let body = Body::from(body.to_string());
        Response::builder().status(status).body(body).unwrap()
    }

    fn found(&self, path: &str) -> (StatusCode, Value) {
        if let Some(code) = self.fails {
            return failure(code);
        }
        let (_, last) = path.rsplit_once('/').unwrap();
        if path.contains("customresourcedefinitions") {
            assert_eq!(last, "edgerevisions.selvage.dev");
            let Some(defined) = self.defined else {
                return failure(404);
            };
            let mut meta = json!({ "name": last, "creationTimestamp": defined });
            if self.is_terminating {
                meta["deletionTimestamp"] = json!(LATER);
            }
            return (StatusCode::OK, json!({ "metadata": meta }));
        }
        if last == "edgerevisions" {
            let (status, mut list) = list_of(self.there.iter().copied(), 10);
            list["metadata"]["resourceVersion"] = json!(self.version.to_string());
            return (status, list);
        }
        let name = last.parse().unwrap();
        if self.there.contains(&name) {
            return (StatusCode::OK, object(name, 10));
        }
        let (status, mut missing) = failure(404);
        missing["details"] = json!({ "name": last });
        (status, missing)
    }
}

struct Followed {
    server: Server,
    cache: Cache<EdgeRevision>,
    told: mpsc::UnboundedReceiver<(bool, String, u64)>,
}

impl Followed {
    /// Twenty objects of version 10, all told of.
    async fn twenty() -> Self {
        let server = Server::new(list_of(0..20, 10));
        let cache = Cache::<EdgeRevision>::default();
        let (sender, told) = mpsc::unbounded_channel();
        let tell = move |change: Change<EdgeRevision>| {
            let applied = matches!(change, Change::Applied(..));
            let object = change.into_object();
            let _ = sender.send((applied, object.name_any(), version(&*object)));
        };
        tokio::spawn(cache.watch(Api::all(server.client()), MassDeletionGuard::Held, |_| {}, tell));
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

    fn change(&self, change: impl FnOnce(&mut Store)) {
        change(&mut self.server.store.lock().unwrap());
    }

    /// A list lacks these.
    async fn lose(&self, names: &Range<usize>) {
        let left = (0..20).filter(|name| !names.contains(name));
        self.server.expire(list_of(left, 10)).await;
    }

    /// These exist no longer, and a list lacks them.
    async fn delete(&self, names: &Range<usize>) {
        self.change(|store| store.delete(names));
        self.lose(names).await;
    }

    async fn after(&self, seconds: u64) -> usize {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.cache.len()
    }

    fn reads(&self) -> Vec<String> {
        std::mem::take(&mut self.server.store.lock().unwrap().reads)
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

/// What many users delete at once is gone within seconds, since the API server confirms it.
#[tokio::test(start_paused = true)]
async fn a_mass_deletion_that_is_true_is_believed_within_seconds() {
    // a list of a namespace where that costs less; the first nine of a trickle are believed anyway
    let cases = [
        (true, 0..19, 1),
        (true, 0..12, 1),
        (true, 0..10, 10),
        (false, 0..19, 1),
        (false, 0..12, 3),
    ];
    for (by_list, deleted, reads) in cases {
        let mut followed = Followed::twenty().await;
        if by_list {
            followed.delete(&deleted).await;
            assert_eq!(followed.cache.len(), 20);
        } else {
            followed.change(|store| store.delete(&deleted));
            for name in deleted.clone() {
                followed.server.send("DELETED", &object(name, 50));
            }
        }
        assert_eq!(followed.after(2).await, 20 - deleted.len(), "{deleted:?}");
        let mut gone: Vec<usize> = Vec::new();
        for _ in deleted.clone() {
            let (applied, name, _) = followed.next().await;
            assert!(!applied);
            gone.push(name.parse().unwrap());
        }
        gone.sort_unstable();
        assert_eq!(gone, deleted.collect::<Vec<usize>>());
        let read = followed.reads();
        let objects = read.iter().filter(|path| path.contains("/shop/"));
        assert_eq!(objects.count(), reads, "{read:?}");
        followed.only_then(19, 51).await;
    }
}

/// FC-15, HK-11: what a quorum read finds was never gone, however long a watch or a list says so.
#[tokio::test(start_paused = true)]
async fn a_mass_deletion_that_is_contradicted_takes_nothing_away() {
    let followed = Followed::twenty().await;
    followed.lose(&(0..15)).await;
    assert_eq!(followed.after(3600).await, 20);
    // and at a rate that falls
    let reads = followed.reads();
    let objects = reads.iter().filter(|path| path.contains("/shop/"));
    assert!(objects.count() < 100, "{reads:?}");
    // in the end they are deleted
    followed.change(|store| store.delete(&(0..15)));
    assert_eq!(followed.after(65).await, 5);
}

/// FC-15: an API server that is away, refuses, lost its definition or runs on an older store confirms nothing.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_confirmed_is_kept_for_a_quarter_of_an_hour() {
    let lies: [fn(&mut Store); 7] = [
        |store| store.fails = Some(503),
        |store| store.fails = Some(403),
        |store| store.fails = Some(404),
        |store| store.version = 9,
        |store| store.defined = None,
        |store| store.is_terminating = true,
        |store| store.defined = Some(LATER),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let followed = Followed::twenty().await;
        followed.change(lie);
        followed.delete(&(0..15)).await;
        assert_eq!(followed.after(14 * 60).await, 20, "{number}");
        assert_eq!(followed.after(2 * 60).await, 5, "{number}");
        // and believed as soon as it can be confirmed
        let followed = Followed::twenty().await;
        followed.change(lie);
        followed.delete(&(0..15)).await;
        assert_eq!(followed.after(5 * 60).await, 20, "{number}");
        followed.change(|store| {
            (store.fails, store.version) = (None, 1000);
            (store.defined, store.is_terminating) = (Some(CREATED), false);
        });
        assert_eq!(followed.after(65).await, 5, "{number}");
    }
}

/// HK-10, FC-15: a definition that is deleted (404) and made again, empty, takes nothing away before its time; what
/// comes back meanwhile is as if it had never been gone.
#[tokio::test(start_paused = true)]
async fn a_deleted_definition_takes_nothing_away_at_once() {
    let mut followed = Followed::twenty().await;
    followed.server.expire(failure(404)).await;
    assert_eq!(followed.cache.len(), 20);
    followed.change(|store| (store.defined, store.there) = (Some(LATER), Vec::new()));
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
    strange["spec"] = json!(7);
    followed.server.send("MODIFIED", &strange);
    followed.only_then(1, 31).await;
    assert_eq!(version(&*followed.cache.get(&key).unwrap()), 10);
    assert!(followed.cache.unreadable().contains_key(&key));
    followed.only_then(5, 32).await;
    assert!(followed.cache.unreadable().is_empty());
    // the same in a list
    let (status, mut list) = list_of(0..20, 32);
    list["items"][6]["spec"] = json!("no map");
    followed.server.expire((status, list)).await;
    assert_eq!(followed.cache.len(), 20);
    assert_eq!(followed.cache.unreadable().len(), 1);
}
