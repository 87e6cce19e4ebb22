//! Log lines name the function that they are about: at the default level by a field, at debug level by their span.

use std::io;
use std::sync::LazyLock;

use axum::Router;
use axum::http::StatusCode;
use tracing::Dispatch;

use super::*;

/// With only one subscriber in the process, tracing lets the thread that reaches a span or event first decide for all threads
/// whether it is recorded: the thread of another test has no subscriber and decides that it is not. With a second one it asks
/// all of them.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Writes the events that `filter` lets through on this thread until the guard is dropped.
    pub(super) fn start(filter: &str) -> (Self, tracing::subscriber::DefaultGuard) {
        LazyLock::force(&SECOND);
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The lines with this text.
    pub(super) fn lines(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().clone()).unwrap();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// The only line with this text.
    fn line(&self, text: &str) -> String {
        let mut lines = self.lines(text);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

#[tokio::test]
async fn a_transition_names_its_function_at_the_default_level() {
    let (log, _guard) = Log::start("info");
    let world = World::new();
    world.apply("f", "2026-01-01T00:00:00Z", &json!({}));
    world.reconcile("f").await;
    let line = log.line("transition=");
    assert!(line.contains("function=shop/f"), "{line}");
}

#[tokio::test]
async fn a_line_of_a_task_that_a_reconcile_started_names_function_and_generation() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(|| async { (StatusCode::NOT_FOUND, "{}") });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let (log, _guard) = Log::start("operator=debug");
    let world = World::with(vec![host.clone()]);
    let source = json!({ "source": { "image": format!("{host}/shop/app:1") } });
    world.apply("f", "2026-01-01T00:00:00Z", &source);
    world.reconcile("f").await;
    world.reconciler.queue.take(false).await;
    let line = log.line("could not be resolved");
    let span = "reconcile{function=shop/f generation=1";
    assert!(line.contains(span), "{line}");
}

/// Each of the six watches wrote a line at least every five seconds.
#[tokio::test(start_paused = true)]
async fn an_outage_of_the_api_server_is_a_few_lines() {
    let (log, _guard) = Log::start("info");
    let world = World::new();
    world.fake.fail(Box::new(|_, _| Some(500)));
    let (changed, _changes) = mpsc::unbounded_channel();
    let Context { caches, client, .. } = &*world.reconciler;
    let watches = futures::future::join_all(caches.watch(client, &changed));
    let outage = tokio::time::timeout(Duration::from_secs(600), watches).await;
    assert!(outage.is_err(), "watches never end");
    let lines = log.lines("watch interrupted");
    assert!((6..=6 * 4).contains(&lines.len()), "{lines:?}");
    assert!(
        lines.iter().all(|line| line.contains(" WARN ")),
        "{lines:?}"
    );
}
