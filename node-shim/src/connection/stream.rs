//! Streams of HTTP/2 connections as tasks that can be ended one by one.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use tokio::task::AbortHandle;

tokio::task_local! {
    static STREAM: Arc<OnceLock<AbortHandle>>;
}

/// Runs each stream of an HTTP/2 connection in a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamExecutor;

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let handle = Arc::new(OnceLock::new());
        let task = tokio::spawn(STREAM.scope(handle.clone(), stream));
        // the cell is new, so it is empty
        let _ = handle.set(task.abort_handle());
    }
}

/// Resets one stream of an HTTP/2 connection. hyper offers no other way while a stream waits for its
/// client, because it does not poll the body then.
#[derive(Debug)]
pub(crate) struct StreamReset(AbortHandle);

impl StreamReset {
    /// Returns the handle of the stream that the current task serves; `None` with HTTP/1.
    pub(crate) fn current() -> Option<Self> {
        let handle = STREAM.try_with(|stream| stream.get().cloned());
        handle.ok().flatten().map(Self)
    }

    /// Drops the response, which resets the stream. Other streams of the connection continue.
    pub(crate) fn reset(&self) {
        self.0.abort();
    }
}
