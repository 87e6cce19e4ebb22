//! HTTP to registries and to the hosts that they name: redirects, addresses, timeouts, bounded answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use node_api_types::address;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, Url};
use tokio::time::Instant;

use crate::Error;
use crate::auth::Authorization;

const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time between two chunks of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum time of a whole answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(120);
/// Number of bytes that the body of an answer must deliver within [`PROGRESS_TIMEOUT`], unless it ends before. A registry that
/// sends single bytes would otherwise occupy its place for the time of a whole answer.
const PROGRESS: usize = 64 << 10;
/// Maximum time of waiting for the next [`PROGRESS`] bytes of a body.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(15);

const NOT_PUBLIC: &str = "it has no public address";

/// Two HTTP clients: the user chose the registry, and the registry chooses every other host.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    registry: Client,
    foreign: Client,
}

// === impl Transport ===

impl Transport {
    /// Creates the clients. `resolver` looks up the hosts that registries name.
    pub(crate) fn new(resolver: Arc<dyn Resolve>) -> Result<Self, reqwest::Error> {
        Ok(Self {
            registry: client(None)?,
            foreign: client(Some(Arc::new(PublicOnly(resolver))))?,
        })
    }

    /// Sends a request to the registry and follows its redirects. `authorization` is sent only to the registry's own
    /// origin.
    pub(crate) async fn get(
        &self,
        url: &Url,
        accept: &str,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Error> {
        let mut authorization = authorization;
        let mut target = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(url, &target, accept, authorization).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| target.join(location).ok());
            target = next.ok_or_else(|| denied(url, &target, "its redirect has no address"))?;
            if target.origin() != url.origin() {
                authorization = None;
            }
        }
        Err(denied(url, &target, "it is one redirect too many"))
    }

    /// Sends one request to `target`, which `registry` named. Redirects are not followed.
    pub(crate) async fn send(
        &self,
        registry: &Url,
        target: &Url,
        accept: &str,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Error> {
        let client = self.client(registry, target)?;
        let mut request = client.get(target.clone()).header(ACCEPT, accept);
        if let Some(authorization) = authorization {
            request = authorization.apply(request);
        }
        let response = request.send().await;
        response.map_err(|error| failed(&error, registry, target))
    }

    /// Returns the client that may connect to `target`.
    fn client(&self, registry: &Url, target: &Url) -> Result<&Client, Error> {
        if target.origin() == registry.origin() {
            return Ok(&self.registry);
        }
        if target.scheme() != "https" {
            let why = "it is neither the registry itself nor HTTPS";
            return Err(denied(registry, target, why));
        }
        // Literal addresses are not looked up, so the resolver does not check them.
        let literal = target.host_str().unwrap_or_default();
        match literal.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !address::is_public(address) => {
                Err(denied(registry, target, NOT_PUBLIC))
            }
            _ => Ok(&self.foreign),
        }
    }
}

fn client(resolver: Option<Arc<PublicOnly>>) -> Result<Client, reqwest::Error> {
    let builder = || {
        let builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(TOTAL_TIMEOUT);
        match resolver.clone() {
            Some(resolver) => builder.https_only(true).dns_resolver(resolver),
            None => builder,
        }
    };
    builder().build().or_else(|error| {
        tracing::warn!(%error, "no certificate authorities on this system: only registries over plain HTTP can be reached");
        builder().tls_certs_only([]).build()
    })
}

/// Converts an error before the start of an answer.
fn failed(error: &reqwest::Error, registry: &Url, target: &Url) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.is::<NotPublic>() {
        return denied(registry, target, NOT_PUBLIC);
    }
    let host = host(target);
    if error.is_timeout() {
        return Error::Timeout { host };
    }
    // Report only the innermost cause: the others may contain the URL, which may carry a signature.
    let cause = if error.is_builder() {
        "the request has an invalid header".to_owned()
    } else {
        cause.to_string()
    };
    Error::Unreachable { host, cause }
}

fn denied(registry: &Url, target: &Url, why: &'static str) -> Error {
    Error::Denied {
        host: host(registry),
        target: host(target),
        why,
    }
}

pub(crate) fn parse(url: &str) -> Result<Url, Error> {
    Url::parse(url).map_err(|error| Error::Unreachable {
        host: url.to_owned(),
        cause: error.to_string(),
    })
}

/// Host and port for messages.
pub(crate) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Streams the body of an answer, which has to make progress.
pub(crate) fn body(
    response: Response,
    what: &'static str,
) -> BoxStream<'static, Result<Bytes, Error>> {
    let from = host(response.url());
    let host = from.clone();
    let failed = move |error: reqwest::Error| {
        let host = host.clone();
        if error.is_timeout() {
            Error::Timeout { host }
        } else {
            Error::Interrupted { host, what }
        }
    };
    let chunks = response.bytes_stream().map_err(failed).boxed();
    progressing(chunks, Error::TooSlow { host: from, what }).boxed()
}

/// The same chunks. Ends with `too_slow` when waiting for the next [`PROGRESS`] bytes has taken [`PROGRESS_TIMEOUT`]. The
/// time that the reader takes between two chunks does not count.
fn progressing(
    chunks: impl Stream<Item = Result<Bytes, Error>> + Unpin,
    too_slow: Error,
) -> impl Stream<Item = Result<Bytes, Error>> {
    let start = Some((chunks, too_slow, 0, PROGRESS_TIMEOUT));
    futures::stream::unfold(start, |state| async move {
        let (mut chunks, too_slow, received, left) = state?;
        let asked = Instant::now();
        let Ok(next) = tokio::time::timeout(left, chunks.next()).await else {
            return Some((Err(too_slow), None));
        };
        let chunk = match next? {
            Ok(chunk) => chunk,
            Err(error) => return Some((Err(error), None)),
        };
        let received = received + chunk.len();
        let next = if received >= PROGRESS {
            (0, PROGRESS_TIMEOUT)
        } else {
            (received, left.saturating_sub(asked.elapsed()))
        };
        Some((Ok(chunk), Some((chunks, too_slow, next.0, next.1))))
    })
}

/// Reads the whole body, at most `limit` bytes.
pub(crate) async fn read(
    response: Response,
    limit: u64,
    what: &'static str,
) -> Result<Vec<u8>, Error> {
    let host = host(response.url());
    let mut chunks = body(response, what);
    let mut read = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        if (read.len() + chunk.len()) as u64 > limit {
            return Err(Error::TooLarge { host, what, limit });
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read)
}

/// Parses `Retry-After`: seconds, or a date after `now`.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    date.duration_since(now).ok()
}

/// Resolver of the operating system.
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Returns only the public addresses of a host. The client connects to the checked addresses, so that a second DNS
/// answer cannot lead elsewhere.
struct PublicOnly(Arc<dyn Resolve>);

#[derive(Debug, thiserror::Error)]
#[error("{NOT_PUBLIC}")]
struct NotPublic;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.0.resolve(name);
        Box::pin(async move {
            let public = |found: &SocketAddr| address::is_public(found.ip());
            let found: Vec<SocketAddr> = found.await?.filter(public).collect();
            if found.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let parse = |value: &str, now| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            retry_after(&headers, now)
        };
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seven = Duration::from_secs(7);
        assert_eq!(parse(date, at - seven), Some(seven));
        assert_eq!(parse(date, at + seven), None);
        assert_eq!(parse("120", at), Some(Duration::from_secs(120)));
        for wrong in [
            "",
            "soon",
            "-1",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 06 Nov 99999 1:1:1 GMT",
        ] {
            assert_eq!(parse(wrong, at), None, "{wrong}");
        }
        let leap = SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_164_800);
        let found = parse("Thu, 29 Feb 2024 00:00:00 GMT", leap - seven);
        assert_eq!(found, Some(seven));
    }

    /// Chunks of `size` bytes, one every `period` seconds.
    fn dripping(size: usize, period: u64) -> BoxStream<'static, Result<Bytes, Error>> {
        let period = Duration::from_secs(period);
        let chunks = futures::stream::repeat_with(move || Bytes::from(vec![0; size]));
        let late = move |chunk| async move {
            tokio::time::sleep(period).await;
            Ok(chunk)
        };
        chunks.then(late).boxed()
    }

    fn too_slow() -> Error {
        Error::TooSlow {
            host: "registry.example".to_owned(),
            what: "the component layer",
        }
    }

    /// HS-9: a registry that sends a few bytes at a time loses its place; one that is slow but makes progress does not.
    #[tokio::test(start_paused = true)]
    async fn a_body_without_progress_is_given_up() {
        let start = Instant::now();
        let read: Vec<_> = progressing(dripping(1, 1), too_slow()).collect().await;
        assert!(matches!(read.last(), Some(Err(Error::TooSlow { .. }))));
        assert!(start.elapsed() <= PROGRESS_TIMEOUT, "{:?}", start.elapsed());
        let slow = progressing(dripping(PROGRESS / 10, 1), too_slow());
        let read: Vec<_> = slow.take(1_000).collect().await;
        assert!(read.iter().all(Result::is_ok));
    }

    /// The time that the disk or the processor of the reader takes is not the fault of the registry.
    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_does_not_count() {
        let chunks = futures::stream::iter((0..100).map(|_| Ok(Bytes::from_static(b"x"))));
        let mut body = std::pin::pin!(progressing(chunks, too_slow()));
        let mut read = 0;
        while let Some(chunk) = body.next().await {
            read += chunk.unwrap().len();
            tokio::time::sleep(PROGRESS_TIMEOUT).await;
        }
        assert_eq!(read, 100);
    }

    /// A resolver that returns the same addresses for every name.
    struct Fixed(Vec<IpAddr>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let found = self.0.clone();
            Box::pin(async {
                Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
            })
        }
    }

    fn fixed(addresses: &[&str]) -> Arc<Fixed> {
        let parse = |address: &&str| address.parse().unwrap();
        Arc::new(Fixed(addresses.iter().map(parse).collect()))
    }

    #[tokio::test]
    async fn private_addresses_of_a_host_are_skipped() {
        let name = || "storage.example".parse::<Name>().unwrap();
        let mixed = PublicOnly(fixed(&["10.0.0.1", "1.1.1.1", "fd00:ec2::254"]));
        let found: Vec<_> = mixed.resolve(name()).await.unwrap().collect();
        assert_eq!(found, [SocketAddr::from(([1, 1, 1, 1], 0))]);
        let private = PublicOnly(fixed(&["127.0.0.1", "169.254.169.254", "::1"]));
        let Err(error) = private.resolve(name()).await else {
            panic!("an address");
        };
        assert!(error.is::<NotPublic>(), "{error}");
    }

    /// HS-4: a host that a registry names is denied by the addresses that its name resolves to, not only by literal
    /// ones.
    #[tokio::test]
    async fn foreign_hosts_need_https_and_a_public_address() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = Transport::new(fixed(&["127.0.0.1", "10.0.0.1"])).unwrap();
        let registry = Url::parse("https://registry.example/v2/").unwrap();
        for target in [
            "http://storage.example/",
            "http://registry.example/",
            "https://registry.example:8443/",
            "https://storage.example/",
            "https://localhost/",
            "https://127.0.0.1/",
            "https://0x7f.1/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "file:///etc/passwd",
        ] {
            let target = Url::parse(target).unwrap();
            let error = transport.send(&registry, &target, "*/*", None).await;
            assert!(
                matches!(error, Err(Error::Denied { .. })),
                "{target} {error:?}"
            );
        }
    }
}
