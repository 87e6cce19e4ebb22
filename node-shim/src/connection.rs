//! State and timeouts of one connection. hyper has a single read timeout for idle connections and for slow
//! request heads; here they are separate, distinguished by whether a request is in progress and whether
//! bytes of the next one have arrived.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Connection preface of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Timeouts and limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Maximum time without a request. Default: 60 s.
    pub idle: Duration,
    /// Maximum time from the first byte of a request head to its last. Default: 10 s.
    pub head_read: Duration,
    /// Maximum time that a client may accept no data. Default: 15 s.
    pub write_stall: Duration,
    /// Number of requests after which the connection is closed gracefully. Default: 10,000.
    pub max_requests: u32,
    /// Age after which the connection is closed gracefully, varied by ±20 %. Default: 10 min.
    pub max_age: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            head_read: Duration::from_secs(10),
            write_stall: Duration::from_secs(15),
            max_requests: 10_000,
            max_age: Duration::from_secs(600),
        }
    }
}

/// State shared by the socket, the connection task and all requests of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: IpAddr,
    active: AtomicU32,
    /// Number of requests started so far.
    requests_started: AtomicU32,
    /// End of the last request in milliseconds after `opened`.
    ended: AtomicU64,
    opened: Instant,
    /// Whether to close the connection by a reset, so that a body that ends with the connection does not
    /// look complete.
    pub(crate) reset: Arc<AtomicBool>,
    /// Whether the current request line contains a `#`, which hyper drops silently.
    fragment: AtomicBool,
    abort_requested: Notify,
}

/// Marks a request as in progress until dropped.
pub(crate) struct RequestGuard(Arc<Connection>);

impl Connection {
    pub(crate) fn new(peer: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            active: AtomicU32::new(0),
            requests_started: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            opened: Instant::now(),
            reset: Arc::default(),
            fragment: AtomicBool::new(false),
            abort_requested: Notify::new(),
        })
    }

    pub(crate) fn begin_request(self: &Arc<Self>) -> RequestGuard {
        self.requests_started.fetch_add(1, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
        RequestGuard(self.clone())
    }

    pub(crate) fn requests_started(&self) -> u32 {
        self.requests_started.load(Ordering::Relaxed)
    }

    /// Returns whether the target of the current request contained a `#`, and clears the flag.
    pub(crate) fn take_fragment(&self) -> bool {
        self.fragment.load(Ordering::Relaxed) && self.fragment.swap(false, Ordering::Relaxed)
    }

    /// Closes the connection at once.
    pub(crate) fn abort(&self) {
        self.abort_requested.notify_one();
    }

    /// Resolves when the connection has to be closed at once.
    pub(crate) async fn aborted(&self) {
        self.abort_requested.notified().await;
    }

    /// Returns since when the connection is idle; `None` while a request is in progress.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let ended = Duration::from_millis(self.ended.load(Ordering::Relaxed));
        (self.active.load(Ordering::Relaxed) == 0).then(|| self.opened + ended)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let ended = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended.store(ended, Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Socket with timeouts.
pub(crate) struct ConnectionIo {
    stream: TcpStream,
    conn: Arc<Connection>,
    limits: ConnectionLimits,
    /// Bytes read while detecting the protocol.
    sniffed: BytesMut,
    /// Whether read timeouts apply. On HTTP/2 the connection task closes idle connections.
    timeouts_enabled: bool,
    /// Time of the first byte of the current request head, and the number of requests started by then.
    head: Option<(Instant, u32)>,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    stalled: bool,
    /// Whether the end of the request line has not been read yet.
    in_request_line: bool,
}

impl ConnectionIo {
    pub(crate) fn new(stream: TcpStream, conn: Arc<Connection>, limits: ConnectionLimits) -> Self {
        Self {
            stream,
            conn,
            limits,
            sniffed: BytesMut::new(),
            timeouts_enabled: true,
            head: None,
            read_timer: None,
            write_timer: None,
            stalled: false,
            in_request_line: true,
        }
    }

    /// Reads until the protocol is known, and returns whether the client uses HTTP/2.
    ///
    /// # Errors
    /// Returns an error when the peer closes the connection or sends too little in time.
    pub(crate) async fn detect_http2(&mut self) -> io::Result<bool> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let mut wait = self.limits.idle;
        loop {
            let read = self.stream.read_buf(&mut self.sniffed);
            if timeout(wait, read).await.map_err(|_| late())?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.head.get_or_insert((Instant::now(), 0));
            wait = self.limits.head_read;
            let common = self
                .sniffed
                .iter()
                .zip(PREFACE)
                .take_while(|(a, b)| a == b)
                .count();
            if common == PREFACE.len() {
                self.timeouts_enabled = false;
                return Ok(true);
            }
            if common < self.sniffed.len() {
                return Ok(false);
            }
        }
    }

    /// Searches the request line for a `#`, which the parser would drop. A request that arrives in one
    /// piece with its predecessor is not checked; its fragment is dropped.
    fn scan_for_fragment(&mut self, bytes: &[u8]) {
        if !self.in_request_line || !self.timeouts_enabled {
            return;
        }
        let line = match bytes.iter().position(|b| *b == b'\n') {
            Some(end) => {
                self.in_request_line = false;
                bytes.get(..end).unwrap_or(bytes)
            }
            None => bytes,
        };
        if line.contains(&b'#') {
            self.conn.fragment.store(true, Ordering::Relaxed);
        }
    }

    /// Ready when the client has exceeded the idle or the head timeout.
    fn poll_read_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.timeouts_enabled {
            return Poll::Pending;
        }
        let Some(idle_since) = self.conn.idle_since() else {
            return Poll::Pending;
        };
        let begun = self.conn.requests_started();
        self.head = self.head.filter(|(_, at)| *at == begun);
        let end = match self.head {
            Some((first_byte, _)) => first_byte + self.limits.head_read,
            None => idle_since + self.limits.idle,
        };
        poll_deadline(&mut self.read_timer, end, cx)
    }
}

/// Polls a timer for `end`. The timer may be set to an earlier time; it is then moved when it fires.
fn poll_deadline(
    timer: &mut Option<Pin<Box<Sleep>>>,
    end: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
    if timer.deadline() > end {
        timer.as_mut().reset(end);
    }
    while timer.as_mut().poll(cx).is_ready() {
        if Instant::now() >= end {
            return Poll::Ready(());
        }
        timer.as_mut().reset(end);
    }
    Poll::Pending
}

impl AsyncRead for ConnectionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.sniffed.has_remaining() {
            let some = this.sniffed.len().min(buf.remaining());
            let bytes = this.sniffed.split_to(some);
            this.scan_for_fragment(&bytes);
            buf.put_slice(&bytes);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let came = buf.filled().get(before..).unwrap_or_default();
                if !came.is_empty() && this.conn.idle_since().is_some() {
                    let begun = this.conn.requests_started();
                    this.head = this.head.filter(|(_, at)| *at == begun);
                    if this.head.is_none() {
                        this.head = Some((Instant::now(), begun));
                        this.in_request_line = true;
                    }
                    this.scan_for_fragment(came);
                }
                Poll::Ready(result)
            }
            Poll::Pending => match this.poll_read_timeout(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl ConnectionIo {
    /// Applies the write timeout to the result of a write: a pending write starts the timer, any progress
    /// stops it.
    fn poll_write_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = false;
            return polled;
        }
        if !self.stalled {
            self.stalled = true;
            let end = Instant::now() + self.limits.write_stall;
            match &mut self.write_timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.write_timer = Some(Box::pin(sleep_until(end))),
            }
        }
        let timer = self.write_timer.as_mut();
        match timer.map(|timer| timer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            _ => Poll::Pending,
        }
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, data);
        self.poll_write_timeout(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.poll_write_timeout(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.conn.reset.load(Ordering::Acquire) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ConnectionIo {
    fn drop(&mut self) {
        if self.conn.reset.load(Ordering::Acquire) {
            // this fails only when the peer has closed the connection already
            let _ = self.stream.set_zero_linger();
        }
    }
}
