//! Request bodies that are not read to their end. Closing the connection at once would reset it, and the
//! client would lose its response.

use std::sync::Arc;

use http::Version;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use crate::connection::{Connection, RequestGuard};

/// Maximum size in bytes of a rest that is discarded so that the connection can be used again. A larger
/// rest, or one of unknown size, ends the connection.
const REUSE_BYTES: u64 = 256 << 10;

/// What happens to the unread rest of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnreadBody {
    /// There is no rest, or the stream of an HTTP/2 connection is reset without an error.
    None,
    /// The rest is discarded, and the connection is used again.
    Discarded,
    /// The connection is closed after the response.
    Closes,
}

impl UnreadBody {
    /// Returns what happens to `rest` unread bytes of a body; `None` stands for an unknown number.
    pub(crate) fn of(version: Version, rest: Option<u64>) -> Self {
        match rest {
            Some(0) => Self::None,
            _ if version == Version::HTTP_2 => Self::None,
            Some(rest) if rest <= REUSE_BYTES => Self::Discarded,
            _ => Self::Closes,
        }
    }
}

/// Returns the number of unread bytes of a body; `None` when it is unknown, or when the client waits for
/// `100 Continue` (`continues`) and may never send the body.
pub(crate) fn unread_bytes(body: &Incoming, continues: bool) -> Option<u64> {
    if body.is_end_stream() {
        return Some(0);
    }
    body.size_hint().exact().filter(|_| !continues)
}

/// Takes over a body whose rest stays unread.
pub(crate) fn abandon(body: Incoming, conn: &Arc<Connection>, unread: UnreadBody) {
    match (unread, Handle::try_current()) {
        (UnreadBody::None, _) => {}
        (UnreadBody::Discarded, Ok(runtime)) => {
            // counts as a request in progress from now on, so that its bytes are not taken for a head
            let rest = conn.begin_rest();
            runtime.spawn(discard(body, conn.clone(), rest));
        }
        // without a runtime, the process ends
        (UnreadBody::Discarded | UnreadBody::Closes, _) => conn.set_unread(),
    }
}

/// Reads the rest of a body within the limits of the connection.
async fn discard(mut body: Incoming, conn: Arc<Connection>, _rest: RequestGuard) {
    let limits = &conn.limits;
    let end = Instant::now() + limits.linger;
    let mut left = limits.linger_bytes;
    loop {
        let deadline = end.min(Instant::now() + limits.linger_idle);
        match timeout_at(deadline, body.frame()).await {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                match left.checked_sub(size) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
            Ok(Some(Err(_))) | Err(_) => break,
        }
    }
    conn.set_unread();
}
