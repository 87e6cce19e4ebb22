//! What flows through one connection: bounds of the replies, and signs that the server no longer answers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use node_shim_core::key_value::ReplyGuard;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// Time after which a connection that no operation uses is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Time without a byte from the server after which operations no longer use a connection. It is a little shorter than an
/// operation may take, so that the next operation after one that timed out connects again.
const STALLED: Duration = Duration::from_millis(1_750);
/// Maximum number of bytes that may be on their way to the node.
const MAX_EXPECTED: u64 = 34 << 20;

/// State of a connection that its users and its stream share.
#[derive(Debug)]
pub(super) struct Flow(Mutex<State>);

#[derive(Debug)]
struct State {
    guard: ReplyGuard,
    /// Time of the first operation after the last bytes of the server.
    waiting_since: Option<Instant>,
    used: Instant,
    invalid: bool,
    ended: bool,
}

/// A stream whose input is checked before it is read.
pub(super) struct GuardedStream<S> {
    stream: S,
    flow: Arc<Flow>,
}

impl Flow {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            guard: ReplyGuard::default(),
            waiting_since: None,
            used: Instant::now(),
            invalid: false,
            ended: false,
        })))
    }

    /// Starts an operation whose reply has at most this many bytes.
    pub(super) fn expect(&self, bytes: u64) {
        let mut state = self.0.lock();
        let now = Instant::now();
        state.guard.allow(bytes, MAX_EXPECTED);
        state.waiting_since.get_or_insert(now);
        state.used = now;
    }

    /// Returns whether another operation may use the connection. The operations of a connection on which nothing
    /// arrives end when their time is up, so that it looks unused to them; this is where it is noticed.
    pub(super) fn is_usable(&self) -> bool {
        let state = self.0.lock();
        let stalled = |since: Instant| since.elapsed() >= STALLED;
        !state.ended && !state.waiting_since.is_some_and(stalled)
    }

    /// Returns whether the server sent something that is not a reply.
    pub(super) fn is_invalid(&self) -> bool {
        self.0.lock().invalid
    }

    /// Records that the connection ended.
    pub(super) fn end(&self) {
        self.0.lock().ended = true;
    }

    /// Resolves when no operation has used the connection for a minute.
    pub(super) async fn idle(&self) {
        loop {
            let end = self.0.lock().used + IDLE;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }

    fn received(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.waiting_since = None;
        let checked = state.guard.check(bytes);
        state.invalid |= checked.is_err();
        checked.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl<S> GuardedStream<S> {
    pub(super) const fn new(stream: S, flow: Arc<Flow>) -> Self {
        Self { stream, flow }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.flow.received(bytes))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GuardedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_a_minute_after_its_last_operation() {
        let flow = Flow::new();
        let start = Instant::now();
        tokio::time::advance(Duration::from_secs(50)).await;
        flow.expect(1);
        flow.idle().await;
        assert_eq!(start.elapsed(), Duration::from_secs(110));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_sends_nothing_for_the_time_of_an_operation_is_given_up() {
        let flow = Flow::new();
        tokio::time::advance(STALLED * 10).await;
        assert!(flow.is_usable(), "nothing was asked");
        flow.expect(1_000);
        tokio::time::advance(STALLED / 2).await;
        flow.expect(1_000);
        assert!(flow.is_usable());
        tokio::time::advance(STALLED / 2).await;
        assert!(!flow.is_usable(), "a second operation starts no new wait");
        flow.received(b"+OK\r\n").unwrap();
        assert!(flow.is_usable());
        flow.end();
        assert!(!flow.is_usable());
    }

    /// HE-11: input that is no reply reaches no parser.
    #[tokio::test]
    async fn input_that_is_no_reply_ends_the_stream() {
        use tokio::io::AsyncReadExt;
        let flow = Flow::new();
        flow.expect(1_000);
        let input: &[u8] = b"*1000000000\r\n";
        let mut stream = GuardedStream::new(input, flow.clone());
        let read = stream.read(&mut [0; 100]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(flow.is_invalid());
    }
}
