//! FE-1: a Prometheus with a TLS fault yields an error, never an empty result.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::prometheus::Registry;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use operator_core::samples::Snapshot;

use super::super::{Access, Matchers, MeasureError, Meter, Prometheus};
use super::{batch, failures};

const EMPTY: &str = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;

/// A server with this certificate that answers every request with an empty result.
async fn serve(certificate: CertificateDer<'static>, key: &KeyPair) -> SocketAddr {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate disconnects.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
            let answer = format!("{head}: {}\r\n\r\n{EMPTY}", EMPTY.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    address
}

/// Queries a server with a certificate for `name` until `end`, trusted or not; returns also the number of counted
/// failures.
async fn asked(
    name: &str,
    end: (i32, u8),
    is_trusted: bool,
) -> (Result<Vec<Snapshot>, MeasureError>, f64) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut params = params_of(name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(end.0, end.1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(certificate.pem().as_bytes()).unwrap();
    let access = Access {
        ca_file: is_trusted.then(|| ca.path().to_owned()),
        ..Access::default()
    };
    let address = serve(certificate.into(), &key).await;
    let registry = Registry::new();
    let meter = Meter::new(&registry).unwrap();
    let url = format!("https://{address}");
    let (interval, targets) = (Duration::from_secs(2), Matchers::default());
    let prometheus = Prometheus::new(&url, access, interval, targets, meter).unwrap();
    let answer = batch(&prometheus).await.map(|samples| samples.snapshots);
    (answer, failures(&registry, "no_answer"))
}

#[tokio::test]
async fn an_invalid_certificate_is_reported_and_counted() {
    for (name, end, is_trusted, message) in [
        (
            "127.0.0.1",
            (2099, 1),
            false,
            "its certificate comes from an issuer that is not trusted",
        ),
        (
            "prometheus.monitoring",
            (2099, 1),
            true,
            "its certificate is for another name than that in the URL",
        ),
        ("127.0.0.1", (2021, 1), true, "its certificate has expired"),
    ] {
        let (answer, counted) = asked(name, end, is_trusted).await;
        assert_eq!(answer, Err(MeasureError::NoAnswer(message.to_owned())));
        assert_eq!(counted, 1.0, "{message}");
    }
    // The same server is queried successfully when its certificate is valid.
    let (answer, counted) = asked("127.0.0.1", (2099, 1), true).await;
    assert_eq!((answer, counted), (Ok(Vec::new()), 0.0));
}

/// A certificate authority that is rotated is trusted without a restart, and one that is missing is named.
#[tokio::test]
async fn the_file_of_authorities_is_read_for_each_query() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = KeyPair::generate().unwrap();
    let certificate = params_of("127.0.0.1").self_signed(&key).unwrap();
    let pem = certificate.pem();
    let address = serve(certificate.into(), &key).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    let access = Access {
        ca_file: Some(file.clone()),
        ..Access::default()
    };
    let meter = Meter::new(&Registry::new()).unwrap();
    let (interval, targets) = (Duration::from_secs(2), Matchers::default());
    let url = format!("https://{address}");
    let prometheus = Prometheus::new(&url, access, interval, targets, meter).unwrap();
    let other = KeyPair::generate().unwrap();
    let other = params_of("127.0.0.1").self_signed(&other).unwrap().pem();
    for (content, expected) in [
        (None, "cannot be read from "),
        (Some(""), "it contains no certificate in PEM format"),
        (Some(other.as_str()), "an issuer that is not trusted"),
        (Some(pem.as_str()), ""),
        (Some(other.as_str()), "an issuer that is not trusted"),
    ] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let error = batch(&prometheus).await.err();
        let error = error.map_or(String::new(), |error| error.to_string());
        assert!(error.contains(expected), "{expected:?} in {error:?}");
        assert_eq!(error.is_empty(), expected.is_empty(), "{error}");
    }
}

fn params_of(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

#[tokio::test]
async fn a_server_without_tls_under_an_https_url_is_reported() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
    });
    let meter = Meter::new(&Registry::new()).unwrap();
    let (interval, targets) = (Duration::from_secs(2), Matchers::default());
    let access = Access::default();
    let prometheus = Prometheus::new(&url, access, interval, targets, meter).unwrap();
    let error = batch(&prometheus).await.unwrap_err();
    let message = "no answer (it does not speak TLS, but the URL is https)";
    assert_eq!(error.to_string(), message);
}
