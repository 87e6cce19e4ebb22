//! Streams of changes (server-sent events).
//!
//! A stream begins with the complete state of what it is about, so that a client neither misses nor merges anything. An event of the
//! list is written once for all streams, and contains changed rows only.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::access::failure;
use super::feed::{Feed, Update};
use super::list::ListQuery;
use super::nodes::NodeQuery;
use super::server::Server;
use crate::watch::ObjectKey;

/// Interval of comments on a stream without events, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Stream of the list: first `list`, then `changes`, or `many` when the client has to read the list again.
pub(super) async fn list(State(server): State<Server>, RawQuery(query): RawQuery) -> Response {
    let query = match ListQuery::parse(query.as_deref()) {
        Ok(query) => query,
        Err(why) => return failure(StatusCode::BAD_REQUEST, &why),
    };
    let Ok(permit) = Arc::clone(&server.streams).try_acquire_owned() else {
        return full();
    };
    // Subscribed before the list is read, so that no change between the two is lost.
    let updates = server.feed.subscribe();
    let first = event("list", &server.feed.list(&query));
    follow(first, updates, permit)
}

/// Stream of the list of nodes, with the same events.
pub(super) async fn nodes(State(server): State<Server>, RawQuery(query): RawQuery) -> Response {
    let query = match NodeQuery::parse(query.as_deref()) {
        Ok(query) => query,
        Err(why) => return failure(StatusCode::BAD_REQUEST, &why),
    };
    let Ok(permit) = Arc::clone(&server.streams).try_acquire_owned() else {
        return full();
    };
    let updates = server.feed.subscribe_nodes();
    let first = event("list", &server.feed.nodes(&query));
    follow(first, updates, permit)
}

/// The first event, then the changes of a list.
fn follow(first: Event, updates: Receiver<Arc<Update>>, permit: OwnedSemaphorePermit) -> Response {
    let changes = stream::unfold(updates, |mut updates| async move {
        let event = match updates.recv().await {
            Ok(update) => match &update.changes {
                Some(changes) => Event::default().event("changes").data(changes),
                None => Event::default().event("many").data("{}"),
            },
            Err(RecvError::Lagged(_)) => Event::default().event("many").data("{}"),
            Err(RecvError::Closed) => return None,
        };
        Some((event, updates))
    });
    respond(stream::iter([first]).chain(changes), permit)
}

/// Stream of one function: `function` with everything that the page shows of it, or `gone`.
pub(super) async fn function(
    State(server): State<Server>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let key = ObjectKey::new(&namespace, &name);
    let Ok(permit) = Arc::clone(&server.streams).try_acquire_owned() else {
        return full();
    };
    let updates = server.feed.subscribe();
    let first = present(&server.feed, &key);
    let changes = stream::unfold(
        (updates, server.feed.clone(), key),
        |(mut updates, feed, key)| async move {
            loop {
                match updates.recv().await {
                    Ok(update) if !update.keys.contains(&key) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return None,
                }
            }
            Some((present(&feed, &key), (updates, feed, key)))
        },
    );
    respond(stream::iter([first]).chain(changes), permit)
}

fn present(feed: &Feed, key: &ObjectKey) -> Event {
    match feed.view(key) {
        Some(view) => event("function", &view),
        None => Event::default().event("gone").data("{}"),
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let text = serde_json::to_string(data).unwrap_or_else(|error| {
        tracing::error!(%error, "an event of the page could not be written");
        "{}".to_owned()
    });
    Event::default().event(name).data(text)
}

/// The permit is held as long as the stream.
fn respond(
    events: impl Stream<Item = Event> + Send + 'static,
    permit: OwnedSemaphorePermit,
) -> Response {
    let events = events.map(move |event| {
        let _held = &permit;
        Ok::<_, Infallible>(event)
    });
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // nginx would collect the events
    let unbuffered = HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert("x-accel-buffering", unbuffered);
    response
}

fn full() -> Response {
    let why = "This replica serves as many streams as it may. The page reads the data from time to time instead.";
    let mut response = failure(StatusCode::SERVICE_UNAVAILABLE, why);
    let retry = HeaderValue::from_static("15");
    response.headers_mut().insert(header::RETRY_AFTER, retry);
    response
}
