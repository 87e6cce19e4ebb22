//! HTTP/1.1 client that sends exactly the given bytes and reports responses in detail.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use super::node::PATIENCE;

pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// Whether the body is complete according to its framing.
    pub(crate) whole: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the status and the `selvage-error` header.
    pub(crate) fn status_and_error(&self) -> (u16, &str) {
        (self.status, self.header("selvage-error").unwrap_or(""))
    }
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // a closed connection is detected when reading
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// Sends bytes and returns whether that failed because the connection is closed.
    pub(crate) fn send_fails(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_err()
    }

    /// Closes the connection by a reset.
    pub(crate) fn reset(self) {
        let at_once = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&self.stream, at_once).unwrap();
    }

    pub(crate) fn shutdown_write(&mut self) -> &mut Self {
        self.stream.shutdown(Shutdown::Write).unwrap();
        self
    }

    /// Reads the next response; `None` when the connection ends before it starts.
    pub(crate) fn read(&mut self) -> Option<Reply> {
        self.read_answer(false)
    }

    /// Reads the next response to a HEAD request.
    pub(crate) fn read_head_only(&mut self) -> Option<Reply> {
        self.read_answer(true)
    }

    fn read_answer(&mut self, head_only: bool) -> Option<Reply> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if !self.fill() {
                assert!(
                    self.buffer.is_empty(),
                    "the connection ended in a response head: {:?}",
                    self.buffer
                );
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        if status == 100 {
            return self.read_answer(head_only);
        }
        let mut reply = Reply {
            status,
            headers: lines.map(field).collect(),
            body: Vec::new(),
            trailers: Vec::new(),
            whole: true,
        };
        if !head_only && status != 204 && status != 304 {
            self.read_body(&mut reply);
        }
        Some(reply)
    }

    fn read_body(&mut self, reply: &mut Reply) {
        if reply.header("transfer-encoding") == Some("chunked") {
            reply.whole = self.read_chunks(reply);
        } else if let Some(length) = reply.header("content-length").map(|l| l.parse().unwrap()) {
            reply.whole = self.take(length, &mut reply.body);
        } else {
            reply.whole = self.read_to_end();
            reply.body.append(&mut self.buffer);
        }
    }

    fn read_chunks(&mut self, reply: &mut Reply) -> bool {
        loop {
            let Some(size) = self.line() else {
                return false;
            };
            let size = usize::from_str_radix(&size, 16).unwrap();
            if size == 0 {
                while let Some(line) = self.line() {
                    if line.is_empty() {
                        return true;
                    }
                    reply.trailers.push(field(&line));
                }
                return false;
            }
            if !self.take(size, &mut reply.body) || self.line().is_none() {
                return false;
            }
        }
    }

    /// Reads one chunk of a body; an empty one is the last.
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        let size = self.line().expect("a chunk");
        let mut chunk = Vec::new();
        self.take(usize::from_str_radix(&size, 16).unwrap(), &mut chunk);
        assert_eq!(self.line().as_deref(), Some(""));
        chunk
    }

    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    fn take(&mut self, length: usize, into: &mut Vec<u8>) -> bool {
        while self.buffer.len() < length {
            if !self.fill() {
                into.append(&mut self.buffer);
                return false;
            }
        }
        into.extend(self.buffer.drain(..length));
        true
    }

    /// Returns whether the peer closed the connection gracefully and not by a reset.
    pub(crate) fn read_to_end(&mut self) -> bool {
        loop {
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(0) => return true,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error) => {
                    assert_ne!(
                        error.kind(),
                        ErrorKind::WouldBlock,
                        "the connection stays open"
                    );
                    return false;
                }
            }
        }
    }

    /// Returns whether the node sends nothing and does not close the connection for this time.
    pub(crate) fn is_quiet_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        peeked
            .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    /// Returns whether the connection is closed after the data read so far.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 << 10];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            Err(error) => {
                assert_ne!(
                    error.kind(),
                    ErrorKind::WouldBlock,
                    "no data arrived in time"
                );
                false
            }
        }
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap();
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

/// Sends one request on a new connection.
pub(crate) fn once(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    Wire::connect(address)
        .send(bytes)
        .read()
        .expect("a response")
}

/// Sends a GET request on a new connection.
pub(crate) fn get(address: SocketAddr, path: &str) -> Reply {
    once(
        address,
        format!("GET {path} HTTP/1.1\r\nhost: h.example\r\n\r\n"),
    )
}

impl Wire {
    /// Returns a second handle of the connection, to write while the first one reads.
    pub(crate) fn again(&self) -> Self {
        Self {
            stream: self.stream.try_clone().unwrap(),
            buffer: Vec::new(),
        }
    }

    /// Discards the handle at the end of a chain of sends.
    pub(crate) fn is_sent(&mut self) {}
}
