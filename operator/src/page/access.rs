//! Which requests are answered, and the headers of every response.
//!
//! The page has no cookies, so another site cannot use the identity of a visitor. It could still use the network position of the
//! visitor, for example of a `kubectl port-forward`: with a DNS name of its own that resolves to 127.0.0.1 (DNS rebinding), which
//! the check of `Host` refuses, or with requests whose responses it cannot read but that occupy streams, which the checks of
//! `Origin` and `Sec-Fetch-Site` refuse.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Minimum length of a token in bytes. A shorter one could be found by trying.
const MIN_TOKEN: usize = 16;

/// Scripts, styles, images and connections come from the page's own origin; nothing inline is executed; no other page may
/// embed this one; and scripts cannot turn text into HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    ),
];

/// Rules for requests. Clones are cheap.
#[derive(Debug, Clone)]
pub(super) struct Access(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    hosts: Vec<String>,
    token_file: Option<PathBuf>,
}

impl Access {
    /// Host names are compared without regard to case.
    pub(super) fn new(hosts: Vec<String>, token_file: Option<PathBuf>) -> Self {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Self(Arc::new(Rules { hosts, token_file }))
    }

    /// Checks the names in a request.
    fn check_names(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = match headers.get(header::HOST).map(HeaderValue::to_str) {
            Some(Ok(host)) => host,
            _ => "",
        };
        // an absolute URI in the request line takes the place of the header
        let named = uri.authority().map_or(host, |authority| authority.as_str());
        if named != host || !self.is_own(host) {
            return Err(Refusal::Host);
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let own = [format!("http://{host}"), format!("https://{host}")];
            if !own.iter().any(|own| own.as_bytes() == origin.as_bytes()) {
                return Err(Refusal::Origin);
            }
        }
        Ok(())
    }

    fn is_own(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        // An address cannot be rebound: a browser sends it only to pages that were opened by this address.
        name == "localhost" || address.parse::<IpAddr>().is_ok() || self.0.hosts.contains(&name)
    }

    /// Checks a request for data.
    async fn check_data(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        if matches!(site, Some(b"cross-site" | b"same-site")) {
            return Err(Refusal::Origin);
        }
        let Some(path) = &self.0.token_file else {
            return Ok(());
        };
        // Read for each request, so that a Secret that changes needs no restart.
        let file = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
        let expected = match &file {
            Ok(text) => text.trim(),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the token of the page cannot be read");
                return Err(Refusal::NoToken);
            }
        };
        if expected.len() < MIN_TOKEN {
            tracing::error!(path = %path.display(), "the token of the page has fewer than {MIN_TOKEN} characters");
            return Err(Refusal::NoToken);
        }
        let sent = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match sent {
            // The time of comparing hashes depends on the hashes, from which a client cannot infer the token.
            Some((_, sent))
                if Sha256::digest(sent.trim().as_bytes())
                    == Sha256::digest(expected.as_bytes()) =>
            {
                Ok(())
            }
            _ => Err(Refusal::Token),
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Reason why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Host,
    Origin,
    Token,
    NoToken,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                "The page is not served under this host name. Add it to the chart value page.hosts.",
            ),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "Other sites may not request data of this page.",
            ),
            Self::Token => (
                StatusCode::UNAUTHORIZED,
                "The token of the chart value page.token is needed.",
            ),
            Self::NoToken => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The Secret of the chart value page.token is missing, or its token has fewer than 16 characters.",
            ),
        };
        let mut response = failure(status, why);
        if self == Self::Token {
            let challenge = HeaderValue::from_static("Bearer realm=\"selvage\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A response with a sentence for people, as `{"error": "…"}`.
pub(super) fn failure(status: StatusCode, why: &str) -> Response {
    (status, json(&serde_json::json!({ "error": why }))).into_response()
}

/// A response with data.
pub(super) fn json(data: &impl Serialize) -> Response {
    match serde_json::to_vec(data) {
        Ok(text) => {
            let media_type = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, media_type)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "data of the page could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Middleware of all requests: checks the names, and adds the headers to every response.
pub(super) async fn guard(State(access): State<Access>, request: Request, next: Next) -> Response {
    let mut response = match access.check_names(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value);
    }
    let headers = response.headers_mut();
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Middleware of requests for data.
pub(super) async fn guard_data(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Response {
    match access.check_data(request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}
