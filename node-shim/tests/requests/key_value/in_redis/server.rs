//! A `redis-server` of the test, and a client of it that is not the node.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim::egress::{Network, ResolveError};
use tempfile::TempDir;

/// Port of all servers. Each has an address of its own, so that tests that run at the same time need no free port.
const PORT: u16 = 6_379;

/// A server without persistence, which is killed when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    arguments: Vec<String>,
    folder: TempDir,
    process: Option<Child>,
}

impl Server {
    pub(super) fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts a server with its files in a folder.
    pub(super) fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        let mut server = Self {
            address: SocketAddr::new(loopback().into(), PORT),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            folder,
            process: None,
        };
        server.run();
        server
    }

    /// Starts the program and waits until it accepts connections.
    pub(super) fn run(&mut self) {
        let address = self.address.ip().to_string();
        let started = Command::new("redis-server")
            .args(["--bind", &address, "--port", "6379", "--save", ""])
            .args(["--appendonly", "no", "--dir"])
            .arg(self.folder.path())
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .spawn();
        let mut process = started.unwrap_or_else(|error| {
            panic!("redis-server does not run ({error}); install it: apt-get install redis-server")
        });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut log = Vec::new();
        loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("redis-server ended: {log:#?}");
            };
            if line.contains("Ready to accept connections") {
                break;
            }
            log.push(line);
        }
        // a full pipe would stop the server
        std::thread::spawn(move || lines.for_each(drop));
        self.process = Some(process);
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops or continues the process without closing its connections.
    pub(super) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.process.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(super) fn client(&self) -> redis::Connection {
        let client = redis::Client::open(format!("redis://{}", self.address)).unwrap();
        client.get_connection().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns an address that no other server of this test process or of another one has.
fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    // not 127.0.x.x, which other programs use
    let high = high % 0x7f + 0x80;
    Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network in which every address leads to one server. Names have the addresses that they contain.
#[derive(Debug)]
pub(super) struct TestNetwork {
    server: SocketAddr,
}

impl TestNetwork {
    pub(super) fn to(server: SocketAddr) -> Arc<Self> {
        Arc::new(Self { server })
    }
}

impl Network for TestNetwork {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, ResolveError>> {
        let address = match name {
            "r.shop.svc.cluster.local" => "10.1.2.3",
            "metadata.example" => "169.254.169.254",
            "node.example" => "10.1.0.7",
            _ => return async { Err(ResolveError::NotFound) }.boxed(),
        };
        let address = address.parse().unwrap();
        async move { Ok(vec![address]) }.boxed()
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<tokio::net::TcpStream>> {
        tokio::net::TcpStream::connect(self.server).boxed()
    }
}

/// Passes connections on to a server, and loses the answers while it is stalled.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    stalled: Arc<AtomicBool>,
}

impl Proxy {
    pub(super) fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stalled = Arc::new(AtomicBool::new(false));
        let flag = stalled.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let upstream = TcpStream::connect(server).unwrap();
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                std::thread::spawn(move || copy(from, to, &AtomicBool::new(false)));
                let flag = flag.clone();
                std::thread::spawn(move || copy(upstream, client, &flag));
            }
        });
        Self { address, stalled }
    }

    pub(super) fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::SeqCst);
    }
}

/// Copies bytes, and swallows them while `stalled` is set.
fn copy(mut from: TcpStream, mut to: TcpStream, stalled: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if !stalled.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A program that answers every command with the same bytes.
pub(super) fn hostile(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 4_096];
                while matches!(client.read(&mut buffer), Ok(1..))
                    && client.write_all(answer).is_ok()
                {}
            });
        }
    });
    address
}

/// Returns the flags for a server with TLS only, whose certificate is in `folder`.
pub(super) fn tls_flags(folder: &Path) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut flags = vec!["--port".to_owned(), "0".to_owned()];
    for (flag, value) in [
        ("--tls-port", "6379".to_owned()),
        ("--tls-cert-file", file("tls.crt")),
        ("--tls-key-file", file("tls.key")),
        ("--tls-ca-cert-file", file("tls.crt")),
        ("--tls-auth-clients", "no".to_owned()),
    ] {
        flags.extend([flag.to_owned(), value]);
    }
    flags
}
