//! Servers that guests send requests to, and the network through which they reach them.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim::egress::{Network, ResolveError};
use parking_lot::Mutex;

use crate::support::node::PATIENCE;

/// An address on the public Internet. The network of the tests connects to the origin instead.
pub(super) const PUBLIC: &str = "93.184.216.34";

/// A network in which names have the addresses that the test chose and every address leads to one origin. The checks of
/// addresses are those of production: only the last step, the connection itself, is replaced.
#[derive(Debug)]
pub(super) struct TestNetwork {
    origin: Reaction,
    /// Answers by name, in the order in which they are given; the last one is repeated.
    answers: Mutex<BTreeMap<String, Vec<Vec<IpAddr>>>>,
    connected: Mutex<Vec<SocketAddr>>,
}

/// What happens to a connection attempt.
#[derive(Debug)]
pub(super) enum Reaction {
    Connect(SocketAddr),
    Refuse,
    NeverAnswer,
}

impl TestNetwork {
    pub(super) fn new(origin: Reaction) -> Arc<Self> {
        Arc::new(Self {
            origin,
            answers: Mutex::default(),
            connected: Mutex::default(),
        })
    }

    /// Returns a network in which `api.example` has a public address.
    pub(super) fn to(origin: SocketAddr) -> Arc<Self> {
        let network = Self::new(Reaction::Connect(origin));
        network.name("api.example", &[&[PUBLIC]]);
        network
    }

    /// Sets the answers for a name.
    pub(super) fn name(&self, name: &str, answers: &[&[&str]]) {
        let parse = |list: &&[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
        let answers = answers.iter().map(parse).collect();
        self.answers.lock().insert(name.to_owned(), answers);
    }

    /// Returns the addresses of all connection attempts.
    pub(super) fn connected(&self) -> Vec<String> {
        self.connected
            .lock()
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

impl Network for TestNetwork {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, ResolveError>> {
        let mut answers = self.answers.lock();
        let found = match answers.get_mut(name) {
            Some(list) if list.len() > 1 => Ok(list.remove(0)),
            Some(list) => Ok(list[0].clone()),
            None => Err(ResolveError::NotFound),
        };
        async move { found }.boxed()
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<tokio::net::TcpStream>> {
        self.connected.lock().push(address);
        match &self.origin {
            Reaction::Connect(origin) => tokio::net::TcpStream::connect(*origin).boxed(),
            Reaction::Refuse => async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed(),
            Reaction::NeverAnswer => std::future::pending().boxed(),
        }
    }
}

/// Starts an origin that calls `serve` with each connection in a thread of its own.
pub(crate) fn origin(serve: impl Fn(Exchange) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(Exchange::new(stream)));
        }
    });
    address
}

/// A connection from the node to the origin.
pub(crate) struct Exchange {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Exchange {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Returns the head of the next request; `None` when the connection ends.
    pub(crate) fn head(&mut self) -> Option<String> {
        self.until("\r\n\r\n")
    }

    /// Returns everything up to and including `end`; `None` when the connection ends before.
    pub(super) fn until(&mut self, end: &str) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            if let Some(at) = text.find(end) {
                let found = text[..at + end.len()].to_owned();
                self.received.drain(..found.len());
                return Some(found);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(n) if n > 0 => self.received.extend_from_slice(&chunk[..n]),
                _ => return None,
            }
        }
    }

    /// Returns everything until the node closes the connection.
    pub(crate) fn rest(&mut self) -> String {
        // no text contains this
        let _ = self.until("\0\0\0");
        String::from_utf8_lossy(&self.received).into_owned()
    }

    pub(crate) fn send(&mut self, text: &str) {
        // the node may have closed the connection
        let _ = self.stream.write_all(text.as_bytes());
    }
}
