//! Outbound requests over TLS, to an origin with HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::origin::TestNetwork;
use super::{counted, setup};
use crate::support::node::{Node, PATIENCE};
use crate::support::outbound::Call;
use crate::support::wire::{Wire, get};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn roots(authority: &Authority) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    Arc::new(roots)
}

/// What an origin does differently from a good one.
#[derive(Clone, Copy, PartialEq)]
enum Origin {
    Http2,
    Http1,
    OtherName,
    Expired,
}

/// Starts an origin that echoes bodies. Returns its address and the version and URI of each request.
fn start(authority: &Authority, kind: Origin) -> (SocketAddr, Receiver<String>) {
    let name = if kind == Origin::OtherName {
        "other.example"
    } else {
        "api.example"
    };
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    if kind == Origin::Expired {
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = match kind {
        Origin::Http1 => vec![b"http/1.1".to_vec()],
        _ => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let serve = service_fn(move |request: Request<Incoming>| {
                        let line = format!("{:?} {}", request.version(), request.uri());
                        // the test has ended when this fails
                        let _ = seen.send(line);
                        echo(request)
                    });
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        });
    });
    (address, requests)
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let response = Response::builder().status(201).body(Full::new(body));
    Ok(response.unwrap())
}

fn node(address: SocketAddr, roots: Arc<RootCertStore>) -> (Node, Arc<TestNetwork>) {
    let network = TestNetwork::to(address);
    let call = Call {
        https: true,
        post: true,
        path: "/v1",
        ..Call::get("api.example")
    };
    let mut setup = setup(&network, &["https://api.example"]);
    setup.options.egress.roots = Some(roots);
    (setup.start(&call.guest()), network)
}

fn post(node: &Node, body: &str) -> (u16, String) {
    let length = body.len();
    let mut wire = Wire::connect(node.address());
    wire.send(format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    let reply = wire.read().unwrap();
    (reply.status, reply.text())
}

#[test]
fn both_protocols_are_used_over_tls_and_connections_are_kept() {
    let authority = authority();
    for (kind, line) in [
        (Origin::Http2, "HTTP/2.0 https://api.example/v1"),
        (Origin::Http1, "HTTP/1.1 /v1"),
    ] {
        let (address, requests) = start(&authority, kind);
        let (node, network) = node(address, roots(&authority));
        for body in ["first", "second"] {
            assert_eq!(post(&node, body), (201, body.to_owned()), "{line}");
            assert_eq!(requests.recv_timeout(PATIENCE).unwrap(), line);
        }
        assert_eq!(network.connected().len(), 1, "{line}");
        assert_eq!(counted(&node), ["requests_total outcome=response 2"]);
        node.is_quiet();
    }
}

/// HE-10: an unknown authority, another name and an expired certificate are refused. No option accepts them.
#[test]
fn he_10_certificates_are_verified() {
    let known = authority();
    for (kind, trusted) in [
        (Origin::Http2, authority()),
        (Origin::OtherName, authority()),
        (Origin::Expired, authority()),
    ] {
        let signer = if kind == Origin::Http2 {
            &known
        } else {
            &trusted
        };
        let (address, _requests) = start(signer, kind);
        let (node, _network) = node(address, roots(&trusted));
        // error code 13 is TLS-certificate-error
        assert_eq!(get(node.address(), "/").status, 200 + 13);
        assert_eq!(counted(&node), ["requests_total outcome=tls 1"]);
        node.is_quiet();
    }
}
