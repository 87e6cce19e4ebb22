//! Standard output or error of a guest, split into lines in bounded memory.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::{MAX_LINE, RequestLog};

/// Maximum size of one write of a guest in bytes.
const MAX_WRITE: usize = 64 << 10;

/// Output of one instance. The guest may keep its streams for as long as it lives, so each line gets the request that the
/// instance answers at that time.
#[derive(Clone)]
pub(crate) struct InstanceLog {
    shared: Arc<Mutex<InstanceOutput>>,
}

struct InstanceOutput {
    request: RequestLog,
    /// Lines that have no end yet.
    open: Vec<Weak<OpenLine>>,
}

struct OpenLine {
    stream: &'static str,
    text: Mutex<Vec<u8>>,
}

#[derive(Clone)]
pub(crate) struct GuestStream {
    log: InstanceLog,
    name: &'static str,
}

struct LineBuffer {
    log: InstanceLog,
    open: Arc<OpenLine>,
}

impl InstanceLog {
    /// Returns the output of an instance that answers this request.
    pub(crate) fn new(request: RequestLog) -> Self {
        let output = InstanceOutput {
            request,
            open: Vec::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(output)),
        }
    }

    /// Begins the next request.
    pub(crate) fn begin_request(&self, request: RequestLog) {
        self.shared.lock().request = request;
    }

    /// Ends the request: a line without an end belongs to it and not to the next one.
    pub(crate) fn end_request(&self) {
        let open: Vec<_> = {
            let mut output = self.shared.lock();
            output.open.retain(|line| line.strong_count() > 0);
            output.open.iter().filter_map(Weak::upgrade).collect()
        };
        for line in open {
            line.end(self);
        }
    }

    /// Returns an output stream of the guest.
    pub(crate) fn stream(&self, name: &'static str) -> GuestStream {
        GuestStream {
            log: self.clone(),
            name,
        }
    }

    fn open_line(&self, stream: &'static str) -> Arc<OpenLine> {
        let line = Arc::new(OpenLine {
            stream,
            text: Mutex::default(),
        });
        let mut output = self.shared.lock();
        // a guest may open and close streams without end
        if output.open.len() == output.open.capacity() {
            output.open.retain(|line| line.strong_count() > 0);
        }
        output.open.push(Arc::downgrade(&line));
        line
    }

    fn line(&self, stream: &'static str, text: &[u8]) {
        let level = if stream == "stderr" { "error" } else { "info" };
        let request = self.shared.lock().request.clone();
        request.line(level, stream, text);
    }
}

impl OpenLine {
    /// Writes the line if there is one.
    fn end(&self, log: &InstanceLog) {
        let text = std::mem::take(&mut *self.text.lock());
        if !text.is_empty() {
            log.line(self.stream, &text);
        }
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.buffer())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.buffer())
    }
}

impl GuestStream {
    fn buffer(&self) -> LineBuffer {
        LineBuffer {
            open: self.log.open_line(self.name),
            log: self.log.clone(),
        }
    }
}

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) {
        let mut open = self.open.text.lock();
        let emit = |open: &mut Vec<u8>| {
            self.log.line(self.open.stream, open);
            open.clear();
        };
        let mut parts = bytes.split(|b| *b == b'\n').peekable();
        while let Some(part) = parts.next() {
            let mut rest = part;
            // a line that is too long is split
            while open.len() + rest.len() > MAX_LINE {
                let (head, tail) =
                    rest.split_at(MAX_LINE.saturating_sub(open.len()).min(rest.len()));
                open.extend_from_slice(head);
                emit(&mut open);
                rest = tail;
            }
            open.extend_from_slice(rest);
            if parts.peek().is_some() && !open.is_empty() {
                emit(&mut open);
            }
        }
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.open.end(&self.log);
    }
}

#[async_trait]
impl Pollable for LineBuffer {
    async fn ready(&mut self) {}
}

/// The stream of WASI 0.3. Writing never waits, as in WASI 0.2.
impl AsyncWrite for LineBuffer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.get(..MAX_WRITE).unwrap_or(bytes);
        self.push(taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl OutputStream for LineBuffer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}
