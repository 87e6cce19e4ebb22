//! How a connection ends. A socket that is closed while data of its client is unread resets the connection,
//! and the client loses the response. Therefore only the sending direction is closed first, and what still
//! arrives is discarded until the client has closed its direction too (RFC 9112, section 9.6).

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node_shim_core::validation::Rejection;
use rustix::net::Shutdown;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Connection, Hold, Socket, parser_response};

/// Maximum time without data of a client that has no reason to send any.
const QUIET_IDLE: Duration = Duration::from_secs(1);
/// Size of the buffer for data that is discarded, in bytes.
const DISCARD_BYTES: usize = 8 << 10;

/// Resolves when the client has reset the connection. A client that only closes its sending direction can
/// still receive responses.
pub(crate) async fn wait_for_reset(socket: &Socket) {
    // an error of the registration ends with the runtime
    let _ = socket.tcp().ready(Interest::ERROR).await;
}

/// Sends the response that was held back when hyper ended the connection. Adds the fields of all responses
/// when hyper ended it because it could not parse a request, and returns the reason.
pub(crate) async fn send_held(
    socket: &Socket,
    conn: &Connection,
    unparsable: bool,
) -> Option<Rejection> {
    if !conn.is_in_hold(Hold::Held) {
        return None;
    }
    let held = std::mem::take(&mut *conn.held.lock());
    let rejection = parser_response::rejection(&held)?;
    let response = if unparsable {
        conn.set_unread();
        parser_response::with_fields(&held, rejection)
    } else {
        held
    };
    let sent = timeout(conn.limits.write_stall, write_all(socket, &response)).await;
    if !matches!(sent, Ok(Ok(()))) {
        conn.failed.store(true, Ordering::Relaxed);
    }
    unparsable.then_some(rejection)
}

async fn write_all(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| socket.poll_write(cx, |io| io.write(bytes))).await?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    poll_fn(|cx| socket.poll_flush(cx)).await
}

/// Closes the sending direction, then discards what the client sends until it closes its own or a limit is
/// reached.
pub(crate) async fn close(socket: &Socket, conn: &Connection) {
    let broken = conn.failed.load(Ordering::Relaxed) || conn.reset.load(Ordering::Acquire);
    let limits = &conn.limits;
    if broken || !announce_end(socket, limits.write_stall).await {
        return;
    }
    // what is discarded need not be decrypted
    let socket = socket.tcp();
    let idle = if conn.unread.load(Ordering::Relaxed) {
        limits.linger_idle
    } else {
        limits.linger_idle.min(QUIET_IDLE)
    };
    let end = Instant::now() + limits.linger;
    let mut left = limits.linger_bytes;
    while left > 0 {
        let deadline = end.min(Instant::now() + idle);
        if !matches!(timeout_at(deadline, socket.readable()).await, Ok(Ok(()))) {
            return;
        }
        match discard(socket) {
            Ok(0) => return,
            Ok(size) => left = left.saturating_sub(size as u64),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Closes the sending direction, with TLS after its announcement. Returns whether that succeeded.
async fn announce_end(socket: &Socket, stall: Duration) -> bool {
    socket.announce_end();
    let sent = timeout(stall, poll_fn(|cx| socket.poll_flush(cx))).await;
    matches!(sent, Ok(Ok(()))) && rustix::net::shutdown(socket.tcp(), Shutdown::Write).is_ok()
}

/// Reads once. The buffer is not part of the future, because many connections may wait at the same time.
fn discard(socket: &TcpStream) -> io::Result<usize> {
    let mut buffer = [0; DISCARD_BYTES];
    socket.try_read(&mut buffer)
}
