//! Socket with timeouts. hyper has a single read timeout for idle connections and for slow request heads;
//! here they are separate, distinguished by whether a request is in progress and whether bytes of the next
//! one have arrived.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::parser_response::may_be_from_parser;
use super::{Connection, Hold, Socket};

/// Connection preface of HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Socket as hyper sees it. The connection task holds the socket too, and closes it after hyper has ended.
pub(crate) struct ConnectionIo {
    socket: Arc<Socket>,
    conn: Arc<Connection>,
    /// Bytes read while detecting the protocol.
    sniffed: BytesMut,
    http2: bool,
    /// Time of the first byte of the current request head, and the number of requests started by then.
    head: Option<(Instant, u32)>,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    stalled: bool,
    /// Number of encrypted bytes sent when the write timer was started.
    sent: u64,
    /// Whether the end of the request line has not been read yet.
    in_request_line: bool,
}

impl ConnectionIo {
    pub(crate) fn new(socket: Arc<Socket>, conn: Arc<Connection>) -> Self {
        Self {
            socket,
            conn,
            sniffed: BytesMut::new(),
            http2: false,
            head: None,
            read_timer: None,
            write_timer: None,
            stalled: false,
            sent: 0,
            in_request_line: true,
        }
    }

    /// Sets the protocol that a client with TLS chose.
    pub(crate) fn set_http2(&mut self, http2: bool) {
        self.http2 = http2;
    }

    /// Reads until the protocol of a client without TLS is known, and returns whether it uses HTTP/2.
    ///
    /// # Errors
    /// Returns an error when the peer closes the connection or sends too little in time.
    pub(crate) async fn detect_http2(&mut self) -> io::Result<bool> {
        let late = || io::Error::from(io::ErrorKind::TimedOut);
        let mut wait = self.conn.limits.idle;
        loop {
            let socket = self.socket.tcp();
            timeout(wait, socket.readable())
                .await
                .map_err(|_| late())??;
            match socket.try_read_buf(&mut self.sniffed) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            self.head.get_or_insert((Instant::now(), 0));
            wait = self.conn.limits.head_read;
            let common = self
                .sniffed
                .iter()
                .zip(PREFACE)
                .take_while(|(a, b)| a == b)
                .count();
            if common == PREFACE.len() {
                self.http2 = true;
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
        if !self.in_request_line || self.http2 {
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

    /// Ready when the client has exceeded the idle or the head timeout. On HTTP/2, the connection task
    /// closes idle connections.
    fn poll_read_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.http2 {
            return Poll::Pending;
        }
        let Some(idle_since) = self.conn.idle_since() else {
            return Poll::Pending;
        };
        let begun = self.conn.requests_started();
        self.head = self.head.filter(|(_, at)| *at == begun);
        let end = match self.head {
            Some((first_byte, _)) => first_byte + self.conn.limits.head_read,
            None => idle_since + self.conn.limits.idle,
        };
        poll_deadline(&mut self.read_timer, end, cx)
    }

    fn began_head(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.conn.idle_since().is_none() {
            return;
        }
        let begun = self.conn.requests_started();
        self.head = self.head.filter(|(_, at)| *at == begun);
        if self.head.is_none() {
            self.head = Some((Instant::now(), begun));
            self.in_request_line = true;
        }
        self.scan_for_fragment(bytes);
    }

    fn failed(&self, error: io::Error) -> Poll<io::Result<()>> {
        self.conn.failed.store(true, Ordering::Relaxed);
        Poll::Ready(Err(error))
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
        match this.socket.poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let came = buf.filled().get(before..).unwrap_or_default();
                this.began_head(came);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => this.failed(error),
            Poll::Pending => {
                ready!(this.poll_read_timeout(cx));
                this.failed(io::ErrorKind::TimedOut.into())
            }
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
        if let Poll::Ready(result) = polled {
            self.stalled = false;
            if result.is_err() {
                self.conn.failed.store(true, Ordering::Relaxed);
            }
            return Poll::Ready(result);
        }
        let sent = self.socket.encrypted_bytes_sent();
        if !self.stalled || sent != self.sent {
            self.stalled = true;
            self.sent = sent;
            let end = Instant::now() + self.conn.limits.write_stall;
            match &mut self.write_timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.write_timer = Some(Box::pin(sleep_until(end))),
            }
        }
        let timer = self.write_timer.as_mut();
        match timer.map(|timer| timer.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => {
                self.conn.failed.store(true, Ordering::Relaxed);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            _ => Poll::Pending,
        }
    }

    /// Sends a response that was held back and turned out to be an ordinary one.
    fn poll_released(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.conn.is_in_hold(Hold::Released) {
            return Poll::Ready(Ok(()));
        }
        let conn = self.conn.clone();
        let mut held = conn.held.lock();
        while !held.is_empty() {
            let polled = self.socket.poll_write(cx, |io| io.write(&held));
            let sent = ready!(self.poll_write_timeout(cx, polled))?;
            held.drain(..sent);
        }
        conn.set_hold(Hold::None);
        Poll::Ready(Ok(()))
    }

    /// Returns whether the bytes were held back. What was held back before is released, because it was not
    /// the last response.
    fn hold(&self, bytes: &[u8]) -> bool {
        self.conn.release_held();
        if self.http2 || !self.conn.is_in_hold(Hold::None) || !may_be_from_parser(bytes) {
            return false;
        }
        *self.conn.held.lock() = bytes.to_vec();
        self.conn.set_hold(Hold::Held);
        true
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.hold(data) {
            return Poll::Ready(Ok(data.len()));
        }
        ready!(self.poll_released(cx))?;
        let polled = self.socket.poll_write(cx, |io| io.write(data));
        self.poll_write_timeout(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper writes a head without a body in one piece
        let first = data.first().filter(|_| data.len() == 1);
        if self.hold(first.map_or(&[], |first| first)) {
            return Poll::Ready(Ok(first.map_or(0, |first| first.len())));
        }
        ready!(self.poll_released(cx))?;
        let polled = self.socket.poll_write(cx, |io| io.write_vectored(data));
        self.poll_write_timeout(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_released(cx))?;
        if !self.conn.is_encrypted() {
            return Poll::Ready(Ok(()));
        }
        let polled = self.socket.poll_flush(cx);
        self.poll_write_timeout(cx, polled)
    }

    /// Only completes what was written: the connection task closes the socket.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Drop for ConnectionIo {
    fn drop(&mut self) {
        if self.conn.reset.load(Ordering::Acquire) {
            // this fails only when the peer has closed the connection already
            let _ = self.socket.tcp().set_zero_linger();
        }
    }
}
