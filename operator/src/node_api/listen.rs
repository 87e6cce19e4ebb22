//! Accepts connections until the server stops, performs each TLS handshake in a task of its own, limits their number,
//! and closes them on request.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use crate::failure_log::FailureLog;

/// Deadline of a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which is usually caused by a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Handle of a call to its connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Closes the connection at once, regardless of pending data.
    pub(super) cut: CancellationToken,
}

/// An accepted connection.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

/// Accepts until `stop`: at most `connections` at a time, of which at most `handshakes` are in their handshake.
pub(super) fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: usize,
    handshakes: usize,
    stop: CancellationToken,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let connections = Arc::new(Semaphore::new(connections));
        let handshakes = Arc::new(Semaphore::new(handshakes));
        let mut log = FailureLog::default();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = accept_one(&listener, &connections, &handshakes, &mut log) => accepted,
            };
            let Some((socket, address, permit, handshake)) = accepted else {
                continue;
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                // Neither side can report the error; the node retries with backoff.
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await
                else {
                    tracing::debug!(%address, "TLS handshake failed");
                    return;
                };
                drop(handshake);
                let cut = CancellationToken::new();
                let connection = Connection {
                    stream,
                    cut: Box::pin(cut.clone().cancelled_owned()),
                    peer: Peer { cut },
                    _permit: permit,
                };
                let _ = sender.send(Ok(connection)).await;
            });
        }
    });
    receiver
}

type Accepted = (
    TcpStream,
    SocketAddr,
    OwnedSemaphorePermit,
    OwnedSemaphorePermit,
);

/// Waits for permits before accepting, so that excess connections stay in the kernel's queue.
async fn accept_one(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
    handshakes: &Arc<Semaphore>,
    log: &mut FailureLog,
) -> Option<Accepted> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    let handshake = Arc::clone(handshakes).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, address)) => {
            let _ = socket.set_nodelay(true);
            Some((socket, address, permit, handshake))
        }
        Err(error) => {
            if let Some(failures) = log.failed(&error) {
                tracing::warn!(%error, failures, "the node API cannot accept connections");
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl Connection {
    fn poll_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.poll_unpin(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
