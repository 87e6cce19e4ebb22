//! The data port with TLS: certificates by server name, renewal, protocols, and the end of connections.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use node_shim::tls::Certificates;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::guests;
use crate::support::node::{Node, Setup, eventually};
use crate::support::program::node_shim;
use crate::support::tls::{Identity, TlsWire, client_config};
use crate::support::wire::Wire;

const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\n\r\n";

/// A node with TLS and the folder of its certificates.
struct TlsNode {
    node: Node,
    certificates: Arc<Certificates>,
    folder: tempfile::TempDir,
}

impl TlsNode {
    fn start(wasm: &[u8], identities: &[(&str, &Identity)]) -> Self {
        Self::start_as(Setup::default(), wasm, identities)
    }

    fn start_as(mut setup: Setup, wasm: &[u8], identities: &[(&str, &Identity)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |(name, identity): &(&str, &Identity)| identity.write(folder.path(), name);
        let folders: Vec<PathBuf> = identities.iter().map(write).collect();
        let certificates = Certificates::open(&folders).unwrap();
        setup.certificates = Some(certificates.clone());
        Self {
            node: setup.start(wasm),
            certificates,
            folder,
        }
    }

    fn address(&self) -> SocketAddr {
        self.node.plane.tls_address().unwrap()
    }

    fn connect(&self, server: &str, trusted: &Identity) -> std::io::Result<TlsWire> {
        TlsWire::connect(self.address(), server, client_config(trusted, &[]))
    }

    /// Replaces a certificate and lets the node read it.
    fn renew(&self, name: &str, identity: &Identity) {
        identity.write(self.folder.path(), name);
        self.certificates.refresh(now());
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[test]
fn a_guest_sees_https_over_http_1() {
    let identity = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::MIRROR, &[("a", &identity)]);
    let config = client_config(&identity, &["http/1.1"]);
    let mut wire = TlsWire::connect(node.address(), "a.example", config).unwrap();
    for _ in 0..2 {
        let answer = wire.send(GET).read_response();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("x-forwarded-proto: https\n"), "{answer}");
    }
    assert_eq!(wire.0.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(node.node.outcomes(2), ["ok 2xx 2"]);
}

#[tokio::test]
async fn http_2_is_chosen_in_the_handshake() {
    let identity = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::chunks(100), &[("a", &identity)]);
    let config = client_config(&identity, &["h2", "http/1.1"]);
    let tcp = TcpStream::connect(node.address()).await.unwrap();
    let stream = connect(tcp, config).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let requests = (0..20).map(|_| {
        let request = Request::get("https://a.example/").body(Full::<Bytes>::default());
        let response = sender.send_request(request.unwrap());
        async move {
            let response = response.await.unwrap();
            let kind = (response.status().as_u16(), response.version());
            (
                kind,
                response
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .len(),
            )
        }
    });
    for answer in join_all(requests.collect::<Vec<_>>()).await {
        assert_eq!(answer, ((200, Version::HTTP_2), 100 << 12));
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    assert_eq!(node.node.outcomes(20), ["ok 2xx 20"]);
}

#[test]
fn the_server_name_chooses_the_certificate() {
    let first = Identity::of(&["a.example"]);
    let second = Identity::of(&["b.example", "*.b.example"]);
    let node = TlsNode::start(&guests::ANSWER, &[("a", &first), ("b", &second)]);
    for (server, shown) in [
        ("a.example", &first),
        ("b.example", &second),
        ("x.b.example", &second),
    ] {
        assert!(node.connect(server, shown).is_ok(), "{server}");
    }
    // the default is the first one, and its names do not fit
    for server in ["c.example", "x.y.b.example", "127.0.0.1"] {
        for trusted in [&first, &second] {
            assert!(node.connect(server, trusted).is_err(), "{server}");
        }
    }
    eventually("failed handshakes are counted", || {
        node.node.plane.node_counters().handshake_failures() == 6
    });
}

/// HTTP clients may send requests for several hosts over one connection, but only for those of the certificate.
#[test]
fn a_request_for_a_host_outside_of_the_certificate_is_misdirected() {
    let identity = Identity::of(&["a.example", "*.b.example"]);
    let node = TlsNode::start(&guests::ANSWER, &[("a", &identity)]);
    let mut wire = node.connect("a.example", &identity).unwrap();
    let request = |host: &str| format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    for host in ["a.example", "A.example:8443", "x.b.example"] {
        let answer = wire.send(request(host)).read_response();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    for host in ["c.example", "b.example", "127.0.0.1"] {
        let answer = wire.send(request(host)).read_response();
        assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
        assert!(
            answer.contains("selvage-error: misdirected\r\n"),
            "{answer}"
        );
    }
}

#[test]
fn a_renewed_certificate_is_used_without_a_dropped_connection() {
    let (old, new) = (Identity::of(&["a.example"]), Identity::of(&["a.example"]));
    let node = TlsNode::start(&guests::ANSWER, &[("a", &old)]);
    let mut open = node.connect("a.example", &old).unwrap();
    open.send(GET).read_response();
    node.renew("a", &new);
    let mut renewed = node.connect("a.example", &new).unwrap();
    renewed.send(GET).read_response();
    assert!(node.connect("a.example", &old).is_err());
    open.send(GET).read_response();
}

#[test]
fn a_certificate_that_cannot_be_used_replaces_no_other() {
    let used = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::ANSWER, &[("a", &used)]);
    let mismatched = Identity {
        key: Identity::of(&["a.example"]).key,
        ..Identity::of(&["a.example"])
    };
    let expired = Identity::with(&["a.example"], |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let empty = Identity {
        certificate: String::new(),
        key: String::new(),
    };
    for broken in [&mismatched, &expired, &empty] {
        node.renew("a", broken);
        assert!(node.connect("a.example", &used).is_ok());
    }
    std::fs::remove_dir_all(node.folder.path().join("a")).unwrap();
    node.certificates.refresh(now());
    assert!(node.connect("a.example", &used).is_ok());
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_used_when_it_is() {
    let used = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::ANSWER, &[("a", &used)]);
    let later = Identity::with(&["a.example"], |params| {
        params.not_before = rcgen::date_time_ymd(2100, 1, 1);
        params.not_after = rcgen::date_time_ymd(2200, 1, 1);
    });
    node.renew("a", &later);
    assert!(node.connect("a.example", &used).is_ok());
    node.certificates.refresh(4_102_444_800);
    assert!(node.connect("a.example", &used).is_err());
}

#[test]
fn a_certificate_that_appears_later_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Certificates::open(&[folder.path().join("a")]).unwrap();
    assert_eq!(certificates.missing(), ["a"]);
    let setup = Setup {
        certificates: Some(certificates.clone()),
        ..Setup::default()
    };
    let node = setup.start(&guests::ANSWER);
    let address = node.plane.tls_address().unwrap();
    let identity = Identity::of(&["a.example"]);
    let connect = || TlsWire::connect(address, "a.example", client_config(&identity, &[]));
    assert!(connect().is_err());
    identity.write(folder.path(), "a");
    certificates.refresh(now());
    connect().unwrap().send(GET).read_response();
}

#[test]
fn clients_that_speak_something_else_are_turned_away() {
    let identity = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::ANSWER, &[("a", &identity)]);
    let mut plain = Wire::connect(node.address());
    plain.send(GET);
    // an alert, which is no HTTP
    assert!(plain.read_to_end());
    let other = client_config(&identity, &["imap"]);
    assert!(TlsWire::connect(node.address(), "a.example", other).is_err());
    eventually("failed handshakes are counted", || {
        node.node.plane.node_counters().handshake_failures() == 2
    });
    // the other port has no TLS
    let config = client_config(&identity, &[]);
    assert!(TlsWire::connect(node.node.address(), "a.example", config).is_err());
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    let identity = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::ECHO, &[("a", &identity)]);
    let tcp = TcpStream::connect(node.address()).await.unwrap();
    let stream = connect(tcp, client_config(&identity, &[])).await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body: Vec<u8> = (0..3 << 20)
        .map(|at: u32| at.to_le_bytes()[at as usize % 3])
        .collect();
    let request = Request::post("/").header("host", "a.example");
    let request = request.body(Full::new(Bytes::from(body.clone()))).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let echoed = response.into_body().collect().await.unwrap().to_bytes();
    assert!(echoed == body, "{} bytes", echoed.len());
}

async fn connect(tcp: TcpStream, config: Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let name = ServerName::try_from("a.example").unwrap();
    TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

/// HH-13: as without TLS, a response before the end of an upload arrives. The connection ends as announced, or it can be used
/// again: the guest may still read the body when its response starts before it has ended.
#[test]
fn hh_13_a_response_before_the_end_of_a_large_upload_arrives() {
    let identity = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::ANSWER, &[("a", &identity)]);
    let mut wire = node.connect("a.example", &identity).unwrap();
    let size = 8 << 20;
    let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {size}\r\n\r\n");
    wire.send(head).send(vec![b'#'; size]);
    let answer = wire.read_response();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    if answer.contains("connection: close\r\n") {
        assert_eq!(wire.read_to_end().unwrap(), b"");
    } else {
        wire.send("TRACE / HTTP/1.1\r\nhost: a.example\r\n\r\n");
        let second = wire.read_response();
        assert!(second.starts_with("HTTP/1.1 405 "), "{second}");
    }
}

/// HH-14: a client that announces the end of its direction receives the response.
#[test]
fn hh_14_a_half_closed_connection_is_answered() {
    let identity = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::chunks(3 << 8), &[("a", &identity)]);
    let mut wire = node.connect("a.example", &identity).unwrap();
    wire.send(GET);
    wire.0.conn.send_close_notify();
    wire.0.flush().unwrap();
    let all = wire.read_to_end().unwrap();
    assert!(all.len() > 3 << 20 && all.ends_with(b"\r\n0\r\n\r\n"));
    assert_eq!(node.node.outcomes(1), ["ok 2xx 1"]);
}

/// A body that ends too early is not announced as complete: the connection is reset or ends without `close_notify`.
#[test]
fn a_response_that_is_cut_does_not_look_complete() {
    let identity = Identity::of(&["a.example"]);
    let node = TlsNode::start(&guests::TRAP_IN_BODY, &[("a", &identity)]);
    let mut wire = node.connect("a.example", &identity).unwrap();
    // HTTP/1.0 has no other end of a body
    wire.send("GET / HTTP/1.0\r\nhost: a.example\r\n\r\n");
    assert!(wire.read_to_end().is_err());
}

/// A client that stops reading is disconnected, also when the bytes wait inside TLS.
#[test]
fn a_client_that_does_not_read_is_disconnected() {
    let identity = Identity::of(&["a.example"]);
    let mut setup = Setup::connections(|limits| limits.write_stall = Duration::from_millis(300));
    setup.limits.idle = Duration::from_secs(20);
    let node = TlsNode::start_as(setup, &guests::ENDLESS, &[("a", &identity)]);
    let mut wire = node.connect("a.example", &identity).unwrap();
    wire.send(GET);
    eventually("the connection ends", || {
        node.node.plane.open_connections() == 0
    });
    node.node.is_quiet();
}

#[test]
fn serve_has_a_port_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::of(&["a.example"]);
    let certificate = identity.write(folder.path(), "a");
    let file = folder.path().join("app.wasm");
    std::fs::write(&file, &**guests::ANSWER).unwrap();
    let start = |certificate: &std::path::Path| -> Child {
        node_shim()
            .args([
                "serve",
                "--addr",
                "127.0.0.1:0",
                "--tls-addr",
                "127.0.0.1:0",
            ])
            .args(["--cpu", "5000", "--tls-certificate"])
            .arg(certificate)
            .arg(&file)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = start(&certificate);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = lines
        .find_map(|line| {
            Some(
                line.unwrap()
                    .strip_prefix("Serving on https://")?
                    .to_owned(),
            )
        })
        .unwrap();
    let config = client_config(&identity, &[]);
    let mut wire = TlsWire::connect(address.parse().unwrap(), "a.example", config).unwrap();
    wire.send(GET).read_response();
    child.kill().unwrap();
    child.wait().unwrap();
    // a certificate that cannot be used is named at once
    let refused = start(&folder.path().join("missing"))
        .wait_with_output()
        .unwrap();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        message.contains("missing: tls.crt: No such file"),
        "{message}"
    );
}
