//! Validation of request heads before routing. It rejects requests that two HTTP implementations could
//! interpret differently and features that the node does not support.

use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use crate::host::{Host, normalise_host};
use crate::path::check_target;

/// Maximum length of the request target in bytes.
pub const MAX_TARGET: usize = 8 << 10;
/// Maximum size of the header section in bytes: names, values and four bytes of framing per field.
pub const MAX_HEADER_BYTES: usize = 32 << 10;
/// Maximum number of header fields.
pub const MAX_HEADERS: usize = 100;

/// Why a request was rejected. Its label is the `reason` of `selvage_rejected_requests_total` and the
/// value of the `selvage-error` response header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejection {
    /// The host is missing, malformed or ambiguous.
    BadHost,
    /// The certificate of the TLS connection is not valid for the host.
    Misdirected,
    /// The `transfer-encoding` is anything but a single `chunked`.
    BadFraming,
    /// The method is never supported: CONNECT, TRACE, `OPTIONS *`.
    MethodRefused,
    /// The method is not a common one and the route does not list it.
    MethodUnknown,
    /// The request asks for an upgrade to WebSocket.
    Upgrade,
    /// The request target is longer than [`MAX_TARGET`].
    TargetTooLong,
    /// The path has an invalid byte, invalid percent-encoding or a dot segment, or the query has a control
    /// character.
    BadPath,
    /// The header section exceeds [`MAX_HEADERS`] or [`MAX_HEADER_BYTES`].
    HeadersTooLarge,
    /// The expectation is not `100-continue`.
    Expect,
    /// The request body is larger than the function's limit.
    BodyTooLarge,
    /// The request could not be parsed.
    BadRequest,
    /// Too many calls or outbound requests of functions led to the request.
    Loop,
}

/// Head of a request as parsed.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// HTTP version of the request.
    pub version: Version,
    /// Request method.
    pub method: &'a Method,
    /// Request target.
    pub uri: &'a Uri,
    /// Header fields as received.
    pub headers: &'a HeaderMap,
}

/// Result of a successful validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedHead {
    /// Normalised host.
    pub host: Host,
    /// Host as sent, including the port.
    pub authority: String,
    /// Whether only a route that lists the method may accept the request.
    pub uncommon_method: bool,
}

/// Applies every check that needs no route. When several checks fail, the first one decides the
/// response.
///
/// # Errors
/// Returns the first rejection.
pub fn validate(head: RequestHead<'_>) -> Result<ValidatedHead, Rejection> {
    let (host, authority) = validate_host(head)?;
    validate_framing(head.headers)?;
    let method = head.method;
    if matches!(*method, Method::CONNECT | Method::TRACE) || head.uri.path() == "*" {
        return Err(Rejection::MethodRefused);
    }
    if asks_for_websocket(head) {
        return Err(Rejection::Upgrade);
    }
    let query = head.uri.query();
    if head.uri.path().len() + query.map_or(0, |query| query.len() + 1) > MAX_TARGET {
        return Err(Rejection::TargetTooLong);
    }
    check_target(head.uri.path(), query).map_err(|_| Rejection::BadPath)?;
    let fields = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    if head.headers.len() > MAX_HEADERS || fields.sum::<usize>() > MAX_HEADER_BYTES {
        return Err(Rejection::HeadersTooLarge);
    }
    let continues = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !head.headers.get_all(EXPECT).iter().all(continues) {
        return Err(Rejection::Expect);
    }
    Ok(ValidatedHead {
        host,
        authority,
        uncommon_method: !is_common_method(method),
    })
}

/// Returns the host, which must be given exactly once or consistently in the header and the target.
fn validate_host(head: RequestHead<'_>) -> Result<(Host, String), Rejection> {
    let bad = Rejection::BadHost;
    let mut named = head.headers.get_all(HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(value), None) => Some(value.to_str().map_err(|_| bad)?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(bad),
    };
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    // the authority form of the target is valid for CONNECT only
    if target.is_some() && head.uri.scheme().is_none() && *head.method != Method::CONNECT {
        return Err(bad);
    }
    // only HTTP/2 may omit the header, because `:authority` replaces it
    let spoken = match (host, target) {
        (Some(host), _) => host,
        (None, Some(target)) if head.version == Version::HTTP_2 => target,
        (None, _) => return Err(bad),
    };
    let normal = normalise_host(spoken).map_err(|_| bad)?;
    if let Some(target) = target
        && normalise_host(target).as_ref() != Ok(&normal)
    {
        return Err(bad);
    }
    Ok((normal, spoken.to_owned()))
}

/// Accepts no transfer coding or a single `chunked`. The parser has checked the lengths.
fn validate_framing(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Rejection::BadFraming),
    }
}

/// Returns whether the client asks for an upgrade to WebSocket. The field alone has no meaning: an upgrade
/// needs HTTP/1.1 and `connection: upgrade` (RFC 9110, section 7.8).
fn asks_for_websocket(head: RequestHead<'_>) -> bool {
    let lists = |name, token| {
        let mut values = head.headers.get_all(name).iter();
        values.any(|value| lists_token(value, token))
    };
    head.version == Version::HTTP_11 && lists(UPGRADE, "websocket") && lists(CONNECTION, "upgrade")
}

fn lists_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|text| {
        text.split(',')
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    })
}

fn is_common_method(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
    )
}

// === impl Rejection ===

impl Rejection {
    /// All rejections in the order of their indices.
    pub const ALL: [Self; 13] = [
        Self::BadHost,
        Self::Misdirected,
        Self::BadFraming,
        Self::MethodRefused,
        Self::MethodUnknown,
        Self::Upgrade,
        Self::TargetTooLong,
        Self::BadPath,
        Self::HeadersTooLarge,
        Self::Expect,
        Self::BodyTooLarge,
        Self::BadRequest,
        Self::Loop,
    ];

    /// Returns the label. Both rejections of a method share one.
    pub fn label(self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::Misdirected => "misdirected",
            Self::BadFraming => "bad_framing",
            Self::MethodRefused | Self::MethodUnknown => "method",
            Self::Upgrade => "upgrade",
            Self::TargetTooLong => "target_too_long",
            Self::BadPath => "bad_path",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Expect => "expect",
            Self::BodyTooLarge => "body_too_large",
            Self::BadRequest => "bad_request",
            Self::Loop => "loop",
        }
    }

    /// Returns the status code of the response.
    pub fn status(self) -> u16 {
        match self {
            Self::BadHost | Self::BadFraming | Self::BadPath | Self::BadRequest => 400,
            Self::Misdirected => 421,
            Self::MethodRefused => 405,
            Self::MethodUnknown | Self::Upgrade => 501,
            Self::TargetTooLong => 414,
            Self::HeadersTooLarge => 431,
            Self::Expect => 417,
            Self::BodyTooLarge => 413,
            Self::Loop => 508,
        }
    }

    /// Returns whether an HTTP/1 connection has to be closed, because the start of the next request is
    /// no longer certain.
    pub fn closes_connection(self) -> bool {
        matches!(
            self,
            Self::BadHost | Self::BadFraming | Self::Expect | Self::BodyTooLarge | Self::BadRequest
        )
    }

    /// Returns the position in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Rejection);

    fn validate_request(
        version: Version,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> Result<ValidatedHead, Rejection> {
        let mut builder = Request::builder().version(version).method(method).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = builder.body(()).unwrap();
        validate(RequestHead {
            version,
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
        })
    }

    /// HH-1, HH-6: the table of rejections.
    #[test]
    fn invalid_requests_are_rejected_with_their_reason() {
        use Rejection::*;
        let long_path = format!("/{}", "a".repeat(MAX_TARGET));
        let long_value = "a".repeat(MAX_HEADER_BYTES);
        let host = ("host", "h.example");
        let h1: &[Row<'_>] = &[
            ("GET", "/", &[], BadHost),
            ("GET", "/", &[("host", "")], BadHost),
            ("GET", "/", &[host, host], BadHost),
            ("GET", "/", &[("host", "u@h.example")], BadHost),
            ("GET", "/", &[("host", "a,b")], BadHost),
            ("GET", "/", &[("host", "h.example:99999")], BadHost),
            ("GET", "http://other.example/", &[host], BadHost),
            ("GET", "http://u@h.example/", &[host], BadHost),
            ("GET", "h.example:80", &[host], BadHost),
            ("GET", "http://h.example/", &[], BadHost),
            (
                "POST",
                "/",
                &[host, ("transfer-encoding", "gzip, chunked")],
                BadFraming,
            ),
            (
                "POST",
                "/",
                &[
                    host,
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                BadFraming,
            ),
            (
                "POST",
                "/",
                &[host, ("transfer-encoding", "identity")],
                BadFraming,
            ),
            ("CONNECT", "h.example:80", &[host], MethodRefused),
            ("TRACE", "/", &[host], MethodRefused),
            ("OPTIONS", "*", &[host], MethodRefused),
            (
                "GET",
                "/",
                &[
                    host,
                    ("connection", "keep-alive, Upgrade"),
                    ("upgrade", "h2c, WebSocket"),
                ],
                Upgrade,
            ),
            ("GET", &long_path, &[host], TargetTooLong),
            ("GET", "/../a", &[host], BadPath),
            ("GET", "/%zz", &[host], BadPath),
            ("GET", "/", &[host, ("x", &long_value)], HeadersTooLarge),
            ("GET", "/", &[host, ("expect", "200-maybe")], Expect),
        ];
        for (method, uri, headers, rejection) in h1 {
            let got = validate_request(Version::HTTP_11, method, uri, headers);
            assert_eq!(got, Err(*rejection), "{method} {uri} {:?}", headers.first());
        }
        let many: Vec<_> = std::iter::once(host)
            .chain(std::iter::repeat_n(("x", "y"), 100))
            .collect();
        assert_eq!(
            validate_request(Version::HTTP_11, "GET", "/", &many),
            Err(HeadersTooLarge)
        );
    }

    /// HH-1: valid requests that are close to rejected ones.
    #[test]
    fn valid_requests_pass() {
        let passed = |version, method, uri, headers: &[(&str, &str)]| {
            validate_request(version, method, uri, headers).unwrap()
        };
        let v1 = Version::HTTP_11;
        let plain = passed(v1, "GET", "/a?b", &[("host", "H.example.:8080")]);
        assert_eq!(plain.host, Host::Name("h.example".into()));
        assert_eq!(plain.authority, "H.example.:8080");
        assert!(!plain.uncommon_method);
        assert!(passed(v1, "LINK", "/", &[("host", "h")]).uncommon_method);
        passed(v1, "GET", "http://h.example:80/", &[("host", "h.example")]);
        passed(
            v1,
            "POST",
            "/",
            &[
                ("host", "h"),
                ("transfer-encoding", "CHUNKED"),
                ("expect", "100-Continue"),
            ],
        );
        passed(v1, "GET", "/", &[("host", "h"), ("upgrade", "h2c")]);
        let websocket = [("host", "h"), ("upgrade", "websocket")];
        passed(v1, "GET", "/", &websocket);
        let listed = [&websocket[..], &[("connection", "upgrade")]].concat();
        passed(Version::HTTP_10, "GET", "/", &listed);
        passed(Version::HTTP_2, "GET", "http://h.example/", &[]);
        passed(
            Version::HTTP_2,
            "GET",
            "http://h.example/",
            &[("host", "h.example")],
        );
        let two = validate_request(
            Version::HTTP_2,
            "GET",
            "http://h.example/",
            &[("host", "other.example")],
        );
        assert_eq!(two, Err(Rejection::BadHost));
    }
}
