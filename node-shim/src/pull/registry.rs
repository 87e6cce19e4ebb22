//! Anonymous reading from an OCI registry: manifests and blobs, by digest, with bounds on size, time
//! and where a redirect may lead.
//!
//! A node has no credential. A registry that wants a token gives an anonymous one or refuses. A
//! redirect, or the address of a token service, comes from a stranger: it is followed to the
//! registry's own host, or by HTTPS to a public address that was checked before it was connected to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, AUTHORIZATION, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use node_shim_core::desired::Failure;
use reqwest::{Client, Response, Url};
use serde::Deserialize;

use super::failure;

const MAX_REDIRECTS: usize = 5;
const MAX_TOKEN_ANSWER: usize = 64 << 10;
const CONNECT: Duration = Duration::from_secs(5);
/// Between two pieces of an answer.
const STALL: Duration = Duration::from_secs(15);
/// A whole answer.
const TOTAL: Duration = Duration::from_secs(120);

/// Reads from registries.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    client: Client,
    insecure: BTreeSet<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl Registry {
    /// `insecure`: registries (`host:port`) that are spoken to in plain HTTP.
    pub(crate) fn new(insecure: impl IntoIterator<Item = String>) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: client(None)?,
            insecure: insecure.into_iter().collect(),
        })
    }

    /// `GET /v2/<name>/<kind>/<digest>` of `repository` = `registry/name`.
    pub(crate) async fn get(
        &self,
        repository: &str,
        kind: &str,
        digest: &str,
        accept: Option<&str>,
    ) -> Result<Response, Failure> {
        let (host, name) = split(repository).ok_or_else(|| {
            failure(
                "PullFailed",
                true,
                format!("{repository:?} is no repository"),
            )
        })?;
        let scheme = if self.insecure.contains(host) {
            "http"
        } else {
            "https"
        };
        let url = Url::parse(&format!("{scheme}://{host}/v2/{name}/{kind}/{digest}"))
            .map_err(|error| failure("PullFailed", true, format!("{repository}: {error}")))?;
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept.and_then(|accept| accept.parse().ok()) {
            headers.insert(ACCEPT, accept);
        }
        let response = self.follow(&url, headers.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return accepted(response);
        }
        let token = self.token(&url, name, &response).await?;
        let bearer = format!("Bearer {token}").parse().map_err(|_| {
            failure(
                "Unauthorized",
                false,
                "the registry's token is not a token".into(),
            )
        })?;
        headers.insert(AUTHORIZATION, bearer);
        accepted(self.follow(&url, headers).await?)
    }

    async fn follow(&self, first: &Url, mut headers: HeaderMap) -> Result<Response, Failure> {
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let client = self.client_for(first, &url).await?;
            let request = client.get(url.clone()).headers(headers.clone());
            let response = request.send().await.map_err(|error| transient(&error))?;
            let redirected = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirected {
                return Ok(response);
            }
            let target = response
                .headers()
                .get(LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| url.join(location).ok())
                .ok_or_else(|| failure("PullFailed", false, "a redirect to nowhere".into()))?;
            if !same_origin(&target, first) {
                headers.remove(AUTHORIZATION);
            }
            url = target;
        }
        Err(failure(
            "PullFailed",
            false,
            format!("more than {MAX_REDIRECTS} redirects"),
        ))
    }

    /// The client that may speak to `url`: for a foreign host one that is bound to addresses that
    /// were checked.
    async fn client_for(&self, first: &Url, url: &Url) -> Result<Client, Failure> {
        if same_origin(url, first) {
            return Ok(self.client.clone());
        }
        let denied = |why: &str| {
            let host = url.host_str().unwrap_or_default();
            failure(
                "PullFailed",
                false,
                format!("redirect to {host} denied: {why}"),
            )
        };
        if url.scheme() != "https" {
            return Err(denied("not HTTPS"));
        }
        let host = url.host_str().ok_or_else(|| denied("no host"))?;
        let port = url.port_or_known_default().unwrap_or(443);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found: Vec<SocketAddr> = tokio::net::lookup_host((bare, port))
            .await
            .map_err(|error| denied(&error.to_string()))?
            .filter(|address| oci::address::is_public(address.ip()))
            .collect();
        if found.is_empty() {
            return Err(denied("no public address"));
        }
        client(Some((host, &found))).map_err(|error| transient(&error))
    }

    async fn token(&self, url: &Url, name: &str, refused: &Response) -> Result<String, Failure> {
        let unauthorized = |why: &str| {
            failure(
                "Unauthorized",
                false,
                format!("the registry wants credentials: {why}"),
            )
        };
        let challenge = refused
            .headers()
            .get(WWW_AUTHENTICATE)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| unauthorized("no challenge"))?;
        let (realm, service) =
            bearer_challenge(challenge).ok_or_else(|| unauthorized("not by bearer token"))?;
        let mut service_url = Url::parse(&realm).map_err(|_| unauthorized("no token service"))?;
        service_url
            .query_pairs_mut()
            .append_pair("scope", &format!("repository:{name}:pull"));
        if let Some(service) = service {
            service_url
                .query_pairs_mut()
                .append_pair("service", &service);
        }
        // judged like a redirect: the registry chose it
        let client = self.client_for(url, &service_url).await?;
        let mut answer = client
            .get(service_url)
            .send()
            .await
            .map_err(|error| transient(&error))?;
        if !answer.status().is_success() {
            return Err(unauthorized("no anonymous token"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| transient(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_TOKEN_ANSWER {
                return Err(unauthorized("the token is too long"));
            }
        }
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| unauthorized("no token in the answer"))?;
        answer
            .token
            .or(answer.access_token)
            .ok_or_else(|| unauthorized("no token in the answer"))
    }
}

fn client(bound: Option<(&str, &[SocketAddr])>) -> Result<Client, reqwest::Error> {
    let builder = || {
        let builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .read_timeout(STALL)
            .timeout(TOTAL);
        match bound {
            Some((host, addresses)) => builder.resolve_to_addrs(host, addresses),
            None => builder,
        }
    };
    // an image without CA certificates can still reach plain registries and the operator
    builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())
}

fn accepted(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let reason = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "Unauthorized",
        _ => "PullFailed",
    };
    let mut failed = failure(reason, false, format!("the registry answered {status}"));
    failed.retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value, SystemTime::now()));
    Err(failed)
}

/// Seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    value.parse().map(Duration::from_secs).ok().or_else(|| {
        let date = httpdate(value)?;
        date.duration_since(now).ok()
    })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that is still written.
fn httpdate(value: &str) -> Option<SystemTime> {
    let mut parts = value.strip_suffix(" GMT")?.split(' ').skip(1);
    let day: u64 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]
    .iter()
    .position(|name| *name == month)? as u64
        + 1;
    let year: u64 = parts
        .next()?
        .parse()
        .ok()
        .filter(|year| (1970..10_000).contains(year))?;
    let mut clock = parts
        .next()?
        .split(':')
        .map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // days since the epoch, counted from March so that the leap day comes last
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    let days = days.checked_sub(719_469)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Realm and service of a bearer challenge.
fn bearer_challenge(challenge: &str) -> Option<(String, Option<String>)> {
    let (scheme, parameters) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |wanted: &str| {
        parameters.split(',').find_map(|parameter| {
            let (name, value) = parameter.trim().split_once('=')?;
            name.eq_ignore_ascii_case(wanted)
                .then(|| value.trim_matches('"').to_string())
        })
    };
    Some((value("realm")?, value("service")))
}

fn split(repository: &str) -> Option<(&str, &str)> {
    let (host, name) = repository.split_once('/')?;
    let plain = |text: &str, more: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
    };
    let clean = plain(host, ".-:[]") && plain(name, "._-/") && !name.contains("..");
    clean.then_some((host, name))
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

fn transient(error: &reqwest::Error) -> Failure {
    // without the URL: it may carry a signature
    let mut message = String::from("the registry did not answer");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("the registry did not answer: {cause}");
        source = cause.source();
    }
    if error.is_timeout() {
        message = "the registry did not answer in time".into();
    }
    failure("PullFailed", false, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(httpdate(date), Some(at));
        assert_eq!(
            retry_after(date, at - Duration::from_secs(7)),
            Some(Duration::from_secs(7))
        );
        assert_eq!(retry_after(date, at + Duration::from_secs(7)), None);
        assert_eq!(retry_after("120", at), Some(Duration::from_secs(120)));
        for wrong in [
            "",
            "soon",
            "-1",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 06 Nov 99999 1:1:1 GMT",
        ] {
            assert_eq!(retry_after(wrong, at), None, "{wrong}");
        }
        assert_eq!(
            httpdate("Thu, 29 Feb 2024 00:00:00 GMT"),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_164_800))
        );
    }

    #[test]
    fn challenges_and_repositories_are_taken_apart() {
        assert_eq!(
            bearer_challenge(r#"Bearer realm="https://a/t",service="s",scope="x""#),
            Some(("https://a/t".into(), Some("s".into())))
        );
        assert_eq!(bearer_challenge("Basic realm=\"x\""), None);
        assert_eq!(split("r.io:5000/a/b-c"), Some(("r.io:5000", "a/b-c")));
        for wrong in ["noslash", "/x", "h/", "h/a/../b", "h/a?b", "u@h/a", "h/a b"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }
}
