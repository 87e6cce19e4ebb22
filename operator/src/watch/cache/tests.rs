//! A cache that follows a minimal server, through every way in which a watch can end.

use std::convert::Infallible;
use std::ops::Range;
use std::time::Duration;

use axum::body::Body;
use crds::EdgeRevision;
use http::{Request, Response, StatusCode};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::mass_deletion::{CONFIRMATION, WINDOW};
use super::*;

/// Answer to lists, and the sender of the current watch. Dropping the sender ends the watch.
#[derive(Clone)]
struct Server {
    list: Arc<Mutex<(StatusCode, Value)>>,
    /// Answers to quorum reads.
    store: Arc<Mutex<Store>>,
    events: Arc<Mutex<Option<mpsc::UnboundedSender<Value>>>>,
    lists: Arc<watch::Sender<usize>>,
    watches: Arc<watch::Sender<usize>>,
}

struct Store {
    /// Names of the objects that exist.
    there: Vec<usize>,
    /// Status code of every answer, if the reads fail.
    fails: Option<u16>,
    version: u64,
    /// Creation time of the definition; `None` means that it does not exist.
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
                server.store.lock().read(path)
            };
            async move { Ok::<_, Infallible>(response) }
        });
        Client::new(service, "default")
    }

    fn answer(&self, query: &str) -> Response<Body> {
        let (status, body) = if query.contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded_channel::<Value>();
            *self.events.lock() = Some(sender);
            self.watches.send_modify(|count| *count += 1);
            let lines = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver)
                .map(|event| Ok::<_, Infallible>(format!("{event}\n")));
            (StatusCode::OK, Body::from_stream(lines))
        } else {
            let (status, list) = self.list.lock().clone();
            self.lists.send_modify(|count| *count += 1);
            (status, Body::from(list.to_string()))
        };
        Response::builder().status(status).body(body).unwrap()
    }

    fn send(&self, kind: &str, object: &Value) {
        let event = json!({ "type": kind, "object": object });
        let events = self.events.lock();
        events.as_ref().unwrap().send(event).unwrap();
    }

    /// Ends the watch as too old; lists get this answer from now on.
    async fn expire(&self, list: (StatusCode, Value)) {
        *self.list.lock() = list;
        let (lists, watches) = (*self.lists.borrow(), *self.watches.borrow());
        self.send("ERROR", &failure(410).1);
        let again = if self.list.lock().0.is_success() {
            self.watches
                .subscribe()
                .wait_for(|count| *count > watches)
                .await
                .map(|_| ())
        } else {
            // The list was tried more than once.
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
    changes: mpsc::UnboundedReceiver<(bool, String, u64)>,
}

impl Followed {
    /// Twenty objects of version 10, all reported.
    async fn twenty() -> Self {
        let server = Server::new(list_of(0..20, 10));
        let cache = Cache::<EdgeRevision>::default();
        let (sender, changes) = mpsc::unbounded_channel();
        let report = move |change: Change<EdgeRevision>| {
            let applied = matches!(change, Change::Applied(..));
            let (name, version) = match change {
                Change::Vanished(key, version) => (key.name.to_string(), version),
                Change::Applied(object, _) | Change::Deleted(object, _) => {
                    (object.name_any(), version(&*object))
                }
            };
            let _ = sender.send((applied, name, version));
        };
        tokio::spawn(cache.watch(
            Api::all(server.client()),
            MassDeletionGuard::Held,
            |_| {},
            report,
        ));
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
            changes,
        };
        for _ in 0..20 {
            assert!(followed.next().await.0);
        }
        followed
    }

    async fn next(&mut self) -> (bool, String, u64) {
        self.changes.recv().await.unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Store)) {
        change(&mut self.server.store.lock());
    }

    /// Answers a list without these objects.
    async fn lose(&self, names: &Range<usize>) {
        let left = (0..20).filter(|name| !names.contains(name));
        self.server.expire(list_of(left, 10)).await;
    }

    /// Deletes these objects, and answers a list without them.
    async fn delete(&self, names: &Range<usize>) {
        self.change(|store| store.delete(names));
        self.lose(names).await;
    }

    async fn after(&self, seconds: u64) -> usize {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.cache.len()
    }

    fn reads(&self) -> Vec<String> {
        std::mem::take(&mut self.server.store.lock().reads)
    }

    /// Sends a change after all earlier ones were processed, and checks that nothing else was reported.
    async fn only_then(&mut self, name: usize, version: u64) {
        self.server.send("MODIFIED", &object(name, version));
        assert_eq!(self.next().await, (true, name.to_string(), version));
    }
}

/// FC-3: after a 410 the list is compared with the cache, and only differences are reported.
#[tokio::test(start_paused = true)]
async fn an_expired_watch_reports_differences_and_no_spurious_deletion() {
    let mut followed = Followed::twenty().await;
    let (status, mut list) = list_of(0..20, 10);
    list["items"][3] = object(3, 30);
    list["items"].as_array_mut().unwrap().remove(7);
    followed.server.expire((status, list)).await;
    assert_eq!(followed.next().await, (true, "3".to_owned(), 30));
    assert_eq!(followed.next().await, (false, "7".to_owned(), 10));
    followed.only_then(1, 31).await;
}

/// FC-1: without an API server cached objects stay in use, and when it returns they are listed once.
#[tokio::test(start_paused = true)]
async fn an_outage_forgets_nothing_and_ends_with_one_list() {
    let mut followed = Followed::twenty().await;
    followed.server.expire(failure(503)).await;
    assert_eq!(followed.cache.len(), 20);
    let before = *followed.server.lists.borrow();
    *followed.server.list.lock() = list_of(0..20, 10);
    let mut watches = followed.server.watches.subscribe();
    watches.wait_for(|count| *count == 2).await.unwrap();
    assert_eq!(*followed.server.lists.borrow(), before + 1);
    followed.only_then(1, 31).await;
}

/// FC-15: objects that many users delete at once disappear within seconds, because the API server confirms it.
#[tokio::test(start_paused = true)]
async fn a_real_mass_deletion_is_applied_within_seconds() {
    // Namespaces are listed where that costs less; the first nine deletions of a slow sequence need no confirmation.
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

/// FC-15, HK-11: an object that a quorum read finds is never removed, however long a watch or a list lacks it.
#[tokio::test(start_paused = true)]
async fn a_contradicted_mass_deletion_removes_nothing() {
    let followed = Followed::twenty().await;
    followed.lose(&(0..15)).await;
    assert_eq!(followed.after(3600).await, 20);
    // The rate of reads decreases.
    let reads = followed.reads();
    let objects = reads.iter().filter(|path| path.contains("/shop/"));
    assert!(objects.count() < 100, "{reads:?}");
    // Finally the objects are deleted.
    followed.change(|store| store.delete(&(0..15)));
    assert_eq!(followed.after(65).await, 5);
}

/// FC-15: an API server that is unavailable, refuses, lost its definition or has an older store confirms no deletion.
#[tokio::test(start_paused = true)]
async fn unconfirmed_deletions_are_held_for_a_quarter_of_an_hour() {
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
        // The deletion is applied as soon as it can be confirmed.
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

/// HK-10, FC-15: after the definition is deleted (404) and created again, empty, objects stay until their time is
/// over; objects that come back meanwhile are treated as never deleted.
#[tokio::test(start_paused = true)]
async fn a_deleted_definition_removes_nothing_at_once() {
    let mut followed = Followed::twenty().await;
    followed.server.expire(failure(404)).await;
    assert_eq!(followed.cache.len(), 20);
    followed.change(|store| (store.defined, store.there) = (Some(LATER), Vec::new()));
    *followed.server.list.lock() = list_of([], 40);
    let mut watches = followed.server.watches.subscribe();
    watches.wait_for(|count| *count == 2).await.unwrap();
    followed.only_then(1, 41).await;
    assert_eq!(followed.cache.len(), 20);
    tokio::time::sleep(CONFIRMATION - WINDOW).await;
    assert_eq!(followed.cache.len(), 20);
    tokio::time::sleep(WINDOW * 2).await;
    assert_eq!(followed.cache.len(), 1, "the object that came back");
}

/// FC-8, HK-7: an object that cannot be decoded keeps its last good version, and changes of others are still
/// reported.
#[tokio::test(start_paused = true)]
async fn an_undecodable_object_does_not_stop_the_watch() {
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
    // The same holds in a list.
    let (status, mut list) = list_of(0..20, 32);
    list["items"][6]["spec"] = json!("no map");
    followed.server.expire((status, list)).await;
    assert_eq!(followed.cache.len(), 20);
    assert_eq!(followed.cache.unreadable().len(), 1);
}

/// FC-8: an object of which no version could be decoded is known by its name and uid, and its deletion is reported, by the
/// watch or by a list.
#[tokio::test(start_paused = true)]
async fn the_deletion_of_an_object_that_was_never_decoded_is_reported() {
    let mut followed = Followed::twenty().await;
    let mut strange = object(30, 30);
    strange["spec"] = json!(7);
    let known = [(ObjectKey::new("shop", "30"), "30".to_owned())].into();
    followed.server.send("ADDED", &strange);
    followed.only_then(1, 31).await;
    assert_eq!(followed.cache.never_decoded(), known);
    strange["metadata"]["resourceVersion"] = json!("32");
    followed.server.send("DELETED", &strange);
    assert_eq!(followed.next().await, (false, "30".to_owned(), 32));
    assert!(followed.cache.never_decoded().is_empty());

    followed.server.send("ADDED", &strange);
    followed.only_then(1, 33).await;
    assert_eq!(followed.cache.never_decoded(), known);
    let (status, mut list) = list_of(0..20, 10);
    list["items"][1] = object(1, 33);
    followed.server.expire((status, list)).await;
    assert_eq!(followed.next().await, (false, "30".to_owned(), 0));
    followed.only_then(1, 34).await;
}

/// FC-15: a list without most objects is no proof that one that cannot be decoded was deleted.
#[tokio::test(start_paused = true)]
async fn an_object_that_was_never_decoded_stays_while_a_mass_deletion_is_in_doubt() {
    let mut followed = Followed::twenty().await;
    let mut strange = object(30, 30);
    strange["spec"] = json!(7);
    followed.server.send("ADDED", &strange);
    followed.only_then(1, 31).await;
    followed.lose(&(5..20)).await;
    // The list has an older version of this one.
    assert_eq!(followed.next().await, (true, "1".to_owned(), 10));
    followed.only_then(1, 32).await;
    assert_eq!(followed.cache.never_decoded().len(), 1);
    assert_eq!(followed.cache.len(), 20);
}
