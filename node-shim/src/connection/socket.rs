//! Socket of a client, with or without TLS. The bytes of both kinds look the same to [`ConnectionIo`](super::ConnectionIo).

use std::io::{self, IoSlice, Read, Write};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustls::ServerConnection;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// Socket that the connection task shares with hyper.
pub(crate) struct Socket {
    tcp: TcpStream,
    tls: Option<Mutex<Session>>,
}

/// Session of an encrypted connection.
struct Session {
    tls: ServerConnection,
    /// Number of encrypted bytes that were sent.
    sent: u64,
}

impl Socket {
    /// Returns a socket without TLS.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// Returns a socket whose TLS handshake is complete.
    pub(crate) fn encrypted(tcp: TcpStream, tls: ServerConnection) -> Self {
        Self {
            tcp,
            tls: Some(Mutex::new(Session { tls, sent: 0 })),
        }
    }

    /// Returns the socket below TLS, whose bytes are encrypted.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Returns the number of encrypted bytes that were sent; 0 without TLS. A flush that waits makes progress when the
    /// number grows.
    pub(super) fn encrypted_bytes_sent(&self) -> u64 {
        self.tls.as_ref().map_or(0, |session| session.lock().sent)
    }

    /// Reads once. Ready with no bytes when the client has closed its direction.
    ///
    /// # Errors
    /// With TLS, the end of the connection without a `close_notify` is an error, because bytes may be missing.
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let read = match &self.tls {
                None => self.read_plain(buf),
                Some(session) => session.lock().read(&self.tcp, buf),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_read_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    fn read_plain(&self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let room = buf.remaining();
        let size = self.tcp.try_read_buf(buf)?;
        if 0 < size && size < room {
            // The socket is empty. Noting it saves the read that would find out. Only this thread handles
            // the events of the socket, so none was handled since the read.
            let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            let _ = self.tcp.try_io(Interest::READABLE, empty);
        }
        Ok(())
    }

    /// Writes once. With TLS, bytes may stay in a buffer until [`poll_flush`](Self::poll_flush).
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&mut dyn Write) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let written = match &self.tls {
                None => write(&mut RawTcp(&self.tcp)),
                Some(session) => session.lock().write(&self.tcp, &write),
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Sends what is buffered.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(session) = &self.tls else {
            return Poll::Ready(Ok(()));
        };
        loop {
            let flushed = session.lock().flush(&self.tcp);
            match flushed {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Announces that nothing more will be sent. The caller flushes.
    pub(super) fn announce_end(&self) {
        if let Some(session) = &self.tls {
            session.lock().tls.send_close_notify();
        }
    }
}

impl Session {
    /// Reads decrypted bytes. Fails with `WouldBlock` when the rest of a record has not arrived yet.
    fn read(&mut self, tcp: &TcpStream, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        loop {
            match self.tls.reader().read(buf.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(size) => {
                    buf.advance(size);
                    return Ok(());
                }
            }
            self.tls.read_tls(&mut RawTcp(tcp))?;
            let processed = self.tls.process_new_packets();
            // an alert, or the answer to a key update; what does not fit is sent with the next write
            let _ = self.flush(tcp);
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    /// Encrypts bytes after everything before them has been sent, so that the buffer stays small.
    fn write(
        &mut self,
        tcp: &TcpStream,
        write: impl Fn(&mut dyn Write) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.flush(tcp)?;
        let size = write(&mut self.tls.writer())?;
        match self.flush(tcp) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(size),
        }
    }

    fn flush(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut RawTcp(tcp))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => self.sent += sent as u64,
            }
        }
        Ok(())
    }
}

/// Reads and writes without waiting.
struct RawTcp<'a>(&'a TcpStream);

impl Read for RawTcp<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for RawTcp<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.try_write(data)
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
