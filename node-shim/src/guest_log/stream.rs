//! Standard output or error of a guest, split into lines in bounded memory.

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::{MAX_LINE, RequestLog};

/// Maximum size of one write of a guest in bytes.
const MAX_WRITE: usize = 64 << 10;

#[derive(Clone)]
pub(crate) struct GuestStream {
    sink: RequestLog,
    name: &'static str,
}

struct LineBuffer {
    stream: GuestStream,
    open: Vec<u8>,
}

impl GuestStream {
    pub(super) fn new(sink: RequestLog, name: &'static str) -> Self {
        Self { sink, name }
    }

    fn line(&self, text: &[u8]) {
        let level = if self.name == "stderr" {
            "error"
        } else {
            "info"
        };
        self.sink.line(level, self.name, text);
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    /// Used only by other versions of the interface, which the node does not offer.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(LineBuffer {
            stream: self.clone(),
            open: Vec::new(),
        })
    }
}

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) {
        let mut parts = bytes.split(|b| *b == b'\n').peekable();
        while let Some(part) = parts.next() {
            let mut rest = part;
            // a line that is too long is split
            while self.open.len() + rest.len() > MAX_LINE {
                let (head, tail) =
                    rest.split_at(MAX_LINE.saturating_sub(self.open.len()).min(rest.len()));
                self.open.extend_from_slice(head);
                self.emit();
                rest = tail;
            }
            self.open.extend_from_slice(rest);
            if parts.peek().is_some() && !self.open.is_empty() {
                self.emit();
            }
        }
    }

    fn emit(&mut self) {
        self.stream.line(&self.open);
        self.open.clear();
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        if !self.open.is_empty() {
            self.emit();
        }
    }
}

#[async_trait]
impl Pollable for LineBuffer {
    async fn ready(&mut self) {}
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
