//! Accept loop: bounds connections, backs off after errors, and hands each connection to an event loop, which serves it
//! (`serving`). It has a thread of its own, so that a guest that computes on one event loop does not keep connections
//! from the others.

mod serving;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::data_plane::{DataPlanePhase, DataPlaneState, EventLoops, Listeners, wait_for_phase};
use crate::keyed_limit::KeyedLimit;
use crate::tls::TlsPort;

/// Time between two lines of the log about refused connections.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);

const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Accepts connections from the time that the data plane is open until it drains, then closes the listeners and drops
/// `closed`. Returns when the data plane has stopped. Idle instances expire meanwhile.
pub(crate) async fn run(
    plane: Arc<DataPlaneState>,
    loops: EventLoops,
    listeners: Listeners,
    closed: oneshot::Sender<()>,
) {
    let mut phases = plane.watch_phase();
    let idle = plane.idle.clone();
    let expiring = tokio::spawn(async move { idle.run().await });
    wait_for_phase(&mut phases, DataPlanePhase::Serving).await;
    let acceptor = Acceptor::new(plane, loops);
    tokio::select! {
        () = wait_for_phase(&mut phases, DataPlanePhase::Draining) => {}
        () = acceptor.run(listeners) => {}
    }
    drop(closed);
    wait_for_phase(&mut phases, DataPlanePhase::Stopped).await;
    expiring.abort();
}

/// Accepts connections on all ports, which share the limits on their number.
struct Acceptor {
    plane: Arc<DataPlaneState>,
    loops: EventLoops,
    permits: Arc<Semaphore>,
    peers: Arc<KeyedLimit<IpAddr>>,
}

impl Acceptor {
    fn new(plane: Arc<DataPlaneState>, loops: EventLoops) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(plane.options.max_connections)),
            peers: KeyedLimit::new(),
            plane,
            loops,
        }
    }

    async fn run(&self, listeners: Listeners) {
        let Listeners { http, https } = listeners;
        let encrypted = async {
            if let Some((listener, certificates)) = https {
                match TlsPort::new(certificates, self.plane.clone()) {
                    Ok(port) => self.accept(listener, Some(Arc::new(port))).await,
                    Err(error) => tracing::error!(%error, "TLS cannot be used"),
                }
            }
        };
        tokio::join!(self.accept(http, None), encrypted);
    }

    /// Accepts connections. Errors delay the next connection. Returns only when the listener cannot be used or all event
    /// loops have ended.
    async fn accept(&self, listener: std::net::TcpListener, tls: Option<Arc<TlsPort>>) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the listener cannot be used");
                return;
            }
        };
        let plane = &self.plane;
        let mut pause = BACKOFF.0;
        let mut refusals = RefusalLog::default();
        loop {
            // without a permit, new connections wait in the kernel's backlog
            let Ok(permit) = self.permits.clone().acquire_owned().await else {
                return;
            };
            let accepted = listener.accept().await;
            // the event loop that serves the socket watches it from then on
            let released = accepted.and_then(|(stream, from)| Ok((stream.into_std()?, from)));
            let (socket, address) = match released {
                Ok(accepted) => accepted,
                Err(error) => {
                    plane.node_counters.accept_failed();
                    tracing::warn!(%error, pause = ?pause, "accept failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BACKOFF.1);
                    continue;
                }
            };
            pause = BACKOFF.0;
            let peer = canonical(address);
            let unlimited = plane.options.trusts(peer) || plane.table().is_peer(peer);
            let peer_connection = if unlimited {
                None
            } else {
                let limit = plane.options.max_per_peer;
                let place = self.peers.try_acquire(network_of(peer), limit);
                if place.is_none() {
                    plane.node_counters.connection_refused();
                    refusals.log(peer, limit);
                    continue;
                }
                place
            };
            let Some(assigned) = self.loops.assign() else {
                return;
            };
            let (event_loop, tls) = (assigned.event_loop().clone(), tls.clone());
            let serve = {
                let event_loop = event_loop.clone();
                async move {
                    match TcpStream::from_std(socket) {
                        Ok(stream) => serving::serve(&event_loop, stream, tls, peer).await,
                        Err(error) => tracing::warn!(%error, "a connection cannot be served"),
                    }
                    drop((permit, peer_connection, assigned));
                }
            };
            event_loop.spawn(plane.connections.track_future(serve));
        }
    }
}

/// Log of refused connections, at most one line a minute: a proxy that is not known as one opens many.
#[derive(Default)]
struct RefusalLog(Option<Instant>);

impl RefusalLog {
    fn log(&mut self, peer: IpAddr, limit: u32) {
        let now = Instant::now();
        if self.0.is_some_and(|last| now - last < REFUSAL_LOG_INTERVAL) {
            return;
        }
        self.0 = Some(now);
        tracing::warn!(
            %peer,
            "connections are refused: {limit} connections of one address are open, which is the limit; if it is a proxy, \
             add it to nodeShim.trustedProxies, which have no limit"
        );
    }
}

/// Returns the peer's address, with IPv4-mapped addresses as IPv4.
fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// Returns the address under which the connections of a peer are counted. With IPv6, that is the address of its
/// network of 64 bits, because one client can use all addresses of such a network.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_peers_are_counted_by_their_network() {
        for (peer, counted) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"),
            ("2001:db8:1:3::", "2001:db8:1:3::"),
            ("::1", "::"),
        ] {
            let peer = canonical(SocketAddr::new(peer.parse().unwrap(), 1));
            assert_eq!(network_of(peer), counted.parse::<IpAddr>().unwrap());
        }
    }
}
