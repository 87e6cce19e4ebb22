//! Outbound requests over TLS, to an origin with HTTP/2.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use node_shim::counters::CounterTable;
use node_shim::egress::FunctionAuthorities;
use node_shim_core::table::{FunctionKey, Route};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::origin::TestNetwork;
use super::{counted, setup};
use crate::support::h2;
use crate::support::node::{Node, PATIENCE, Setup, served};
use crate::support::outbound::Call;
use crate::support::wire::{Wire, get, once};

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

/// Starts an origin that echoes bodies with their trailers. Returns its address and the version and URI of each request.
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

async fn echo(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let received = request.into_body().collect().await?;
    let trailers = received.trailers().cloned();
    let body = Full::new(received.to_bytes());
    let body = match trailers {
        Some(trailers) => body.with_trailers(ready(Some(Ok(trailers)))).boxed(),
        None => body.boxed(),
    };
    Ok(Response::builder().status(201).body(body).unwrap())
}

/// Returns authorities of a function, as they are in a ConfigMap.
fn of_function(authority: &Authority) -> Option<Arc<FunctionAuthorities>> {
    let authorities = FunctionAuthorities::parse(&authority.pem()).unwrap();
    Some(Arc::new(authorities))
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

#[tokio::test]
async fn trailers_are_exchanged_over_http_2() {
    let authority = authority();
    let (address, _requests) = start(&authority, Origin::Http2);
    let network = TestNetwork::to(address);
    let call = Call {
        https: true,
        post: true,
        ..Call::get("api.example")
    };
    let mut setup = setup(&network, &["https://api.example"]);
    setup.options.egress.roots = Some(roots(&authority));
    let node = setup.start(&call.exchanging_trailers());
    let response = h2::get(node.address(), "/").await;
    assert_eq!(response.status(), 201);
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().unwrap().clone();
    assert_eq!(trailers.get("x-sum").unwrap(), "1");
    assert_eq!(collected.to_bytes(), "api");
    assert_eq!(node.outcomes(1), ["ok 2xx 1"]);
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

/// HE-10: an authority of a function is trusted for that function only, and only while its revision names it: no other one
/// uses a connection that was verified with it.
#[test]
fn he_10_an_authority_of_a_function_is_trusted_for_no_other() {
    let (public, private) = (authority(), authority());
    let call = Call {
        https: true,
        ..Call::get("api.example")
    };
    for kind in [Origin::Http2, Origin::Http1] {
        let (address, _requests) = start(&private, kind);
        let network = TestNetwork::to(address);
        let mut setup = setup(&network, &["https://api.example"]);
        setup.options.egress.roots = Some(roots(&public));
        let counters = CounterTable::new();
        let node = setup.start_empty(counters.clone());
        let function = |name: &str, revision: &str, trusted: Option<&Authority>| {
            let mut setup = Setup {
                authorities: trusted.and_then(of_function),
                ..Setup::default()
            };
            setup.egress = vec!["https://api.example".to_owned()];
            let key = FunctionKey::new("ns", name);
            let revision = setup.revision_of(key, revision, &call.guest(), &counters);
            let route = Route {
                hosts: vec![format!("{name}.example")],
                ..Route::default()
            };
            served(&revision, vec![route])
        };
        let status = |name: &str| {
            let request = format!("GET / HTTP/1.1\r\nhost: {name}.example\r\n\r\n");
            once(node.address(), request).status
        };
        let other = function("b", "r1", None);
        node.publish(vec![function("a", "r1", Some(&private)), other.clone()]);
        // error code 13 is TLS-certificate-error
        assert_eq!([status("a"), status("b"), status("a")], [201, 213, 201]);
        node.publish(vec![function("a", "r2", None), other.clone()]);
        assert_eq!(status("a"), 213, "a connection of r1 was used");
        node.publish(vec![function("a", "r3", Some(&public)), other]);
        assert_eq!(status("a"), 213, "another authority");
        let mut counts = counted(&node);
        counts.sort_unstable();
        assert_eq!(
            counts,
            [
                "requests_total outcome=response 2",
                "requests_total outcome=tls 1",
                "requests_total outcome=tls 1",
                "requests_total outcome=tls 1",
            ]
        );
        assert_eq!(network.connected().len(), 4, "r1 has kept its connection");
        node.is_quiet();
    }
}

/// The authorities of the node are trusted beside those of the function.
#[test]
fn an_authority_of_a_function_replaces_none_of_the_node() {
    let (public, private) = (authority(), authority());
    let (address, _requests) = start(&public, Origin::Http2);
    let network = TestNetwork::to(address);
    let call = Call {
        https: true,
        ..Call::get("api.example")
    };
    let mut setup = setup(&network, &["https://api.example"]);
    setup.options.egress.roots = Some(roots(&public));
    setup.authorities = of_function(&private);
    let node = setup.start(&call.guest());
    assert_eq!(get(node.address(), "/").status, 201);
}
