//! A DNS client for the names of outbound requests: no search domains, no hosts file, bounded answers and cache.

mod cache;
mod message;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use domain::base::Rtype;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use super::network::ResolveError;
use cache::Cache;
use message::{Answer, Query};

const PORT: u16 = 53;
/// Maximum number of servers that are asked, in the order of the configuration.
const MAX_SERVERS: usize = 3;
/// Time after which the next server is asked, and number of rounds.
const ATTEMPT: Duration = Duration::from_millis(900);
const ROUNDS: usize = 2;
/// Maximum size of an answer over UDP in bytes, and of one over TCP.
const MAX_DATAGRAM: usize = 4 << 10;
const MAX_MESSAGE: usize = 16 << 10;
/// Bounds of the time for which an answer is used, and the time for which the absence of a name is remembered.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// Client of the DNS servers of a node.
#[derive(Debug)]
pub(super) struct Resolver {
    servers: Vec<SocketAddr>,
    cache: Mutex<Cache>,
}

/// Addresses of one family, and how long they may be used. No addresses mean that the name has none.
type Found = (Vec<IpAddr>, Duration);

impl Resolver {
    /// Returns a client of the `nameserver` lines of a `resolv.conf`.
    pub(super) fn from_configuration(text: &str) -> Self {
        let server = |line: &str| {
            let mut words = line.split_whitespace();
            let address = words.next().filter(|word| *word == "nameserver");
            address.and(words.next())?.parse::<IpAddr>().ok()
        };
        let servers = text.lines().filter_map(server);
        let servers = servers.map(|address| SocketAddr::new(address, PORT));
        Self::new(servers.take(MAX_SERVERS).collect())
    }

    fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            cache: Mutex::default(),
        }
    }

    /// Returns the addresses of a fully qualified name without a trailing dot, IPv4 first.
    pub(super) async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Some(found) = self.cache.lock().get(name, Instant::now()) {
            return found;
        }
        let v4 = self.lookup_family(name, Rtype::A);
        let v6 = self.lookup_family(name, Rtype::AAAA);
        let (addresses, ttl) = match futures::join!(v4, v6) {
            (Ok((mut v4, first)), Ok((v6, second))) => {
                let ttl = match (v4.is_empty(), v6.is_empty()) {
                    (false, false) => first.min(second),
                    (false, true) => first,
                    (true, false) => second,
                    (true, true) => NEGATIVE_TTL,
                };
                v4.extend(v6);
                (v4, ttl)
            }
            // one family is enough, but the other one is asked for again soon
            (Ok((found, _)), Err(_)) | (Err(_), Ok((found, _))) if !found.is_empty() => {
                (found, TTL.0)
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        let found = if addresses.is_empty() {
            Err(ResolveError::NotFound)
        } else {
            Ok(addresses)
        };
        let mut cache = self.cache.lock();
        cache.insert(name, found.clone(), Instant::now(), ttl);
        found
    }

    /// Asks the servers by turns until one answers.
    async fn lookup_family(&self, name: &str, kind: Rtype) -> Result<Found, ResolveError> {
        let mut failure = ResolveError::Failed("the node has no DNS servers".to_owned());
        for server in self
            .servers
            .iter()
            .cycle()
            .take(self.servers.len() * ROUNDS)
        {
            let query = Query::new(name, kind)
                .ok_or_else(|| ResolveError::Failed("the name is too long".to_owned()))?;
            match timeout(ATTEMPT, exchange(*server, &query)).await {
                Ok(Ok(Answer::Found(addresses, ttl))) => {
                    return Ok((addresses, ttl.clamp(TTL.0, TTL.1)));
                }
                Ok(Ok(Answer::Absent)) => return Ok((Vec::new(), NEGATIVE_TTL)),
                Ok(Ok(Answer::Truncated)) => {
                    failure = ResolveError::Failed("the answer is truncated".to_owned());
                }
                Ok(Ok(Answer::Failed(code))) => failure = ResolveError::Failed(code),
                Ok(Err(error)) => failure = ResolveError::Failed(error.to_string()),
                Err(_) => failure = ResolveError::Timeout,
            }
        }
        Err(failure)
    }
}

/// Asks one server, again over TCP when its answer does not fit into a datagram.
async fn exchange(server: SocketAddr, query: &Query) -> io::Result<Answer> {
    match over_udp(server, query).await? {
        Answer::Truncated => over_tcp(server, query).await,
        answer => Ok(answer),
    }
}

async fn over_udp(server: SocketAddr, query: &Query) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    // the kernel chooses another port for every query, and drops datagrams of other servers
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query.bytes()).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // what does not answer the query is forged or late
        if let Some(answer) = query.read(buffer.get(..length).unwrap_or_default()) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Query) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.bytes().len()).unwrap_or(u16::MAX);
    let mut message = length.to_be_bytes().to_vec();
    message.extend_from_slice(query.bytes());
    stream.write_all(&message).await?;
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_MESSAGE {
        return Ok(Answer::Failed("the answer is too large".to_owned()));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    query.read(&answer).ok_or_else(invalid)
}
