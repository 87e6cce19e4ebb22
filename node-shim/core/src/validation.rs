//! What is refused before anybody is asked who it is for: requests that two readers could read
//! differently, and what this edge does not carry.

use http::header::{EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use crate::host::{Host, normalise_host};
use crate::path::check_target;

/// Longest request target, bytes.
pub const MAX_TARGET: usize = 8 << 10;
/// Largest header section: names, values and four bytes of framing each.
pub const MAX_HEADER_BYTES: usize = 32 << 10;
/// Most header fields.
pub const MAX_HEADERS: usize = 100;

/// Why the gate refused; the label of `selvage_gate_rejections_total` and of `selvage-error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rejection {
    /// No host, several hosts, or one that is not valid (400).
    BadHost,
    /// The connection does not serve this host (421). No check returns it yet.
    Misdirected,
    /// A transfer coding other than a single `chunked`, or an ambiguous length (400).
    BadFraming,
    /// Never carried: CONNECT, TRACE, `OPTIONS *`.
    MethodRefused,
    /// Neither one of the usual methods nor named by the route.
    MethodUnknown,
    /// A request for an upgrade to WebSocket (501).
    Upgrade,
    /// The request target is longer than [`MAX_TARGET`] (414).
    TargetTooLong,
    /// The path or query is not valid (400); see [`crate::path::PathError`].
    BadPath,
    /// The header section exceeds [`MAX_HEADERS`] or [`MAX_HEADER_BYTES`] (431).
    HeadersTooLarge,
    /// An expectation other than `100-continue` (417).
    Expect,
    /// The announced body is larger than the limit (413).
    BodyTooLarge,
    /// The request has passed through this node before (508). No check returns it yet.
    Loop,
}

/// A parsed request head.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    pub version: Version,
    /// Method of the request.
    pub method: &'a Method,
    /// Target of the request, as the parser read it.
    pub uri: &'a Uri,
    /// All header fields, before any rewriting.
    pub headers: &'a HeaderMap,
}

/// What the gate learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedHead {
    pub host: Host,
    /// As sent, the port included.
    pub authority: String,
    /// Only a route that names this method may take it.
    pub uncommon_method: bool,
}

/// Applies every check that needs no route, in the order that decides which answer wins.
pub fn validate(head: RequestHead<'_>) -> Result<ValidatedHead, Rejection> {
    let (host, authority) = validate_host(head)?;
    validate_framing(head.headers)?;
    let method = head.method;
    if matches!(*method, Method::CONNECT | Method::TRACE) || head.uri.path() == "*" {
        return Err(Rejection::MethodRefused);
    }
    if head
        .headers
        .get_all(UPGRADE)
        .iter()
        .any(|value| lists_token(value, "websocket"))
    {
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

/// One host, said once, or said twice the same.
fn validate_host(head: RequestHead<'_>) -> Result<(Host, String), Rejection> {
    let bad = Rejection::BadHost;
    let mut named = head.headers.get_all(HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(value), None) => Some(value.to_str().map_err(|_| bad)?),
        (None, _) => None,
        (Some(_), Some(_)) => return Err(bad),
    };
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    // a target that is an authority alone belongs to CONNECT
    if target.is_some() && head.uri.scheme().is_none() && *head.method != Method::CONNECT {
        return Err(bad);
    }
    // only HTTP/2 may leave the header out, because its own authority stands for it
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

/// No coding but one `chunked`. Lengths were checked by the parser.
fn validate_framing(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Rejection::BadFraming),
    }
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
    /// All rejections, in the order of their positions.
    pub const ALL: [Self; 12] = [
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
        Self::Loop,
    ];

    /// Value of the metrics label `reason` and of the header `selvage-error`.
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
            Self::Loop => "loop",
        }
    }

    /// HTTP status of the response.
    pub fn status(self) -> u16 {
        match self {
            Self::BadHost | Self::BadFraming | Self::BadPath => 400,
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

    /// Whether what follows on an HTTP/1 connection can no longer be trusted.
    pub fn closes_connection(self) -> bool {
        matches!(
            self,
            Self::BadHost | Self::BadFraming | Self::Expect | Self::BodyTooLarge
        )
    }

    /// Position in `ALL`.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Rejection);

    fn judge(
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

    /// HH-1, HH-6: the table of refusals.
    #[test]
    fn every_row() {
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
            ("GET", "/", &[host, ("upgrade", "h2c, WebSocket")], Upgrade),
            ("GET", &long_path, &[host], TargetTooLong),
            ("GET", "/../a", &[host], BadPath),
            ("GET", "/%zz", &[host], BadPath),
            ("GET", "/", &[host, ("x", &long_value)], HeadersTooLarge),
            ("GET", "/", &[host, ("expect", "200-maybe")], Expect),
        ];
        for (method, uri, headers, rejection) in h1 {
            let got = judge(Version::HTTP_11, method, uri, headers);
            assert_eq!(got, Err(*rejection), "{method} {uri} {:?}", headers.first());
        }
        let many: Vec<_> = std::iter::once(host)
            .chain(std::iter::repeat_n(("x", "y"), 100))
            .collect();
        assert_eq!(
            judge(Version::HTTP_11, "GET", "/", &many),
            Err(HeadersTooLarge)
        );
    }

    /// HH-1: the neighbours of the refusals that are fine.
    #[test]
    fn what_passes() {
        let passed = |version, method, uri, headers: &[(&str, &str)]| {
            judge(version, method, uri, headers).unwrap()
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
        passed(Version::HTTP_2, "GET", "http://h.example/", &[]);
        passed(
            Version::HTTP_2,
            "GET",
            "http://h.example/",
            &[("host", "h.example")],
        );
        let two = judge(
            Version::HTTP_2,
            "GET",
            "http://h.example/",
            &[("host", "other.example")],
        );
        assert_eq!(two, Err(Rejection::BadHost));
    }
}
