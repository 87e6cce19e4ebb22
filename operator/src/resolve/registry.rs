//! The pull side of the OCI distribution protocol, bounded: bodies are counted while they arrive, redirects
//! are followed by hand and never with credentials, tokens live as long as one resolve.
//!
//! Reference parsing comes from `oci-client`; its transport reads manifests and token answers without a
//! limit and hides `Retry-After`, which a hostile or busy registry makes matter.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use oci_client::Reference;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, Response, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::manifest::{self, Descriptor};
use super::{Credentials, Failure, MAX_MANIFEST, ResolveError};

const MAX_REDIRECTS: usize = 4;
const MAX_TOKEN: usize = 64 * 1024;
const WHOLE_REQUEST: Duration = Duration::from_secs(120);
const BETWEEN_BYTES: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Registry {
    http: Client,
    insecure: BTreeSet<String>,
}

/// One image at one registry.
pub(super) struct Session<'a> {
    registry: &'a Registry,
    base: String,
    host: String,
    repository: String,
    credentials: Option<(&'a str, &'a str)>,
    authorization: Option<String>,
    used_credentials: bool,
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(insecure: BTreeSet<String>) -> Result<Self, reqwest::Error> {
        let builder = || {
            Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(5))
                .read_timeout(BETWEEN_BYTES)
                .timeout(WHOLE_REQUEST)
                .no_proxy()
        };
        let http = builder().build().or_else(|error| {
            tracing::warn!(%error, "no certificate authorities on this system: only plain HTTP registries can be reached");
            builder().tls_certs_only([]).build()
        })?;
        Ok(Self { http, insecure })
    }

    pub(super) fn session<'a>(
        &'a self,
        reference: &Reference,
        credentials: &'a Credentials,
    ) -> Session<'a> {
        let host = reference.resolve_registry().to_owned();
        let scheme = if self.insecure.contains(&host) {
            "http"
        } else {
            "https"
        };
        Session {
            registry: self,
            base: format!("{scheme}://{host}/v2/{}", reference.repository()),
            repository: reference.repository().to_owned(),
            credentials: credentials.get(reference.registry()),
            authorization: None,
            used_credentials: false,
            host,
        }
    }
}

// === impl Session ===

impl Session<'_> {
    /// Whether credentials were accepted on the way.
    pub(super) fn authenticated(&self) -> bool {
        self.used_credentials
    }

    /// The manifest of a tag or digest.
    pub(super) async fn manifest(&mut self, reference: &str) -> Result<Bytes, ResolveError> {
        let url = format!("{}/manifests/{reference}", self.base);
        let response = self.get(&url, &manifest::accept()).await?;
        read(response, MAX_MANIFEST, "the manifest").await
    }

    /// A blob, hashed while it arrives.
    pub(super) async fn blob(&mut self, layer: &Descriptor) -> Result<Bytes, ResolveError> {
        let url = format!("{}/blobs/{}", self.base, layer.digest);
        let response = self.get(&url, "*/*").await?;
        let limit = usize::try_from(layer.size).unwrap_or(usize::MAX);
        let bytes = read(response, limit, "the component layer").await?;
        let got = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        if bytes.len() != limit || got != layer.digest {
            let message = format!(
                "the layer {} came as {} bytes of {got}, {limit} were declared",
                layer.digest,
                bytes.len()
            );
            return Err(ResolveError::new(Failure::DigestMismatch, message));
        }
        Ok(bytes)
    }

    async fn get(&mut self, url: &str, accept: &str) -> Result<Response, ResolveError> {
        let response = self.follow(url, accept).await?;
        if response.status() != StatusCode::UNAUTHORIZED || self.authorization.is_some() {
            return self.judge(response);
        }
        let challenge = response
            .headers()
            .get(WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok());
        let challenge = challenge.map(ToOwned::to_owned).unwrap_or_default();
        self.authorization = Some(self.authorize(&challenge).await?);
        let response = self.follow(url, accept).await?;
        self.judge(response)
    }

    /// Sends with credentials to the registry itself, and on to where it points without them.
    async fn follow(&self, url: &str, accept: &str) -> Result<Response, ResolveError> {
        let mut target = Url::parse(url).map_err(|error| failed(format!("{url}: {error}")))?;
        for _ in 0..MAX_REDIRECTS {
            let mut request = self
                .registry
                .http
                .get(target.clone())
                .header(ACCEPT, accept);
            let own = target.as_str().starts_with(&self.base);
            if let Some(authorization) = self.authorization.as_ref().filter(|_| own) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request
                .send()
                .await
                .map_err(|error| unreachable(&self.host, &error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let next = target
                .join(location)
                .map_err(|_| failed(format!("{} redirects to no address", self.host)))?;
            self.may_follow(&next)?;
            target = next;
        }
        Err(failed(format!(
            "{} redirects more than {MAX_REDIRECTS} times",
            self.host
        )))
    }

    /// A registry may send us to its storage, not into this cluster's or this machine's insides.
    fn may_follow(&self, next: &Url) -> Result<(), ResolveError> {
        let host = next.host_str().unwrap_or_default();
        let authority = next
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let same = authority == self.host;
        let scheme = next.scheme() == "https" || self.registry.insecure.contains(&authority);
        if scheme && (same || !is_inside(next)) {
            return Ok(());
        }
        Err(failed(format!(
            "{} redirects to {authority}, which is not allowed",
            self.host
        )))
    }

    /// Answers a challenge: Basic at once, Bearer by way of the token service it names.
    async fn authorize(&mut self, challenge: &str) -> Result<String, ResolveError> {
        let unauthorized = |message: String| ResolveError::new(Failure::Unauthorized, message);
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            let (user, password) = self.credentials.ok_or_else(|| {
                unauthorized(format!(
                    "{} wants credentials and no pull secret has any for it",
                    self.host
                ))
            })?;
            self.used_credentials = true;
            return Ok(basic(user, password));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized(format!(
                "{} asks for an authentication that is not known",
                self.host
            )));
        }
        let realm = parameter(parameters, "realm").unwrap_or_default();
        let mut url = Url::parse(&realm)
            .map_err(|_| unauthorized(format!("{} names no token service", self.host)))?;
        self.may_follow(&url)?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = parameter(parameters, "service") {
                query.append_pair("service", &service);
            }
            query.append_pair("scope", &format!("repository:{}:pull", self.repository));
        }
        let mut request = self.registry.http.get(url);
        if let Some((user, password)) = self.credentials {
            request = request.header(AUTHORIZATION, basic(user, password));
            self.used_credentials = true;
        }
        let response = request
            .send()
            .await
            .map_err(|error| unreachable(&self.host, &error))?;
        let response = self.judge(response)?;
        let body = read(response, MAX_TOKEN, "the token").await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| {
            unauthorized(format!("{}'s token service answered no token", self.host))
        })?;
        let token = answer.token.or(answer.access_token);
        token
            .map(|token| format!("Bearer {token}"))
            .ok_or_else(|| unauthorized(format!("{} gave no token", self.host)))
    }

    fn judge(&self, response: Response) -> Result<Response, ResolveError> {
        let status = response.status();
        let failure = match status {
            _ if status.is_success() => return Ok(response),
            StatusCode::NOT_FOUND => Failure::NotFound,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Unauthorized,
            _ => Failure::PullFailed,
        };
        let retry_after = retry_after(response.headers());
        let what = match failure {
            Failure::NotFound => format!(
                "{} does not have {} in this version (404)",
                self.host, self.repository
            ),
            Failure::Unauthorized => format!(
                "{} refuses {} ({})",
                self.host,
                self.repository,
                status.as_u16()
            ),
            _ => format!("{} answered {}", self.host, status.as_u16()),
        };
        Err(ResolveError {
            failure,
            message: what,
            retry_after,
        })
    }
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

fn failed(message: String) -> ResolveError {
    ResolveError::new(Failure::PullFailed, message)
}

fn unreachable(host: &str, error: &reqwest::Error) -> ResolveError {
    let what = if error.is_timeout() {
        "did not answer in time"
    } else if error.is_connect() {
        "cannot be reached"
    } else {
        "broke the connection off"
    };
    failed(format!("{host} {what}"))
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
    )
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// The value of one parameter in a challenge: `realm="https://…",service="…"`.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    parameters.split(',').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// Literal addresses that a public registry has no reason to name.
fn is_inside(url: &Url) -> bool {
    use std::net::IpAddr;
    let host = url.host_str().unwrap_or_default();
    let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() else {
        return host == "localhost" || host.ends_with(".svc") || host.ends_with(".cluster.local");
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

async fn read(mut response: Response, limit: usize, what: &str) -> Result<Bytes, ResolveError> {
    let too_large = || {
        ResolveError::new(
            Failure::PullFailed,
            format!("{what} is larger than {limit} bytes"),
        )
    };
    let declared = response.content_length().unwrap_or(0);
    if declared > limit as u64 {
        return Err(too_large());
    }
    let mut body = BytesMut::with_capacity(usize::try_from(declared).unwrap_or(0).min(limit));
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(too_large()),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(_) => {
                return Err(failed(format!(
                    "the connection ended in the middle of {what}"
                )));
            }
        }
    }
}
