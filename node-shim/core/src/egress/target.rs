//! The target of an outbound request, checked for everything that two programs could read differently.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use node_api_types::FunctionKey;
use node_api_types::egress::{
    EgressEntry, EgressHost, EgressScheme, called_function, function_name, is_function_domain,
    normalise_name,
};

/// Maximum length of a URI in bytes.
const MAX_URI: usize = 8 << 10;

/// Target of an outbound request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundTarget {
    /// Scheme of the request.
    pub scheme: EgressScheme,
    /// Host of the request.
    pub host: TargetHost,
    /// Port of the request; the default port of the scheme if the URI has none.
    pub port: u16,
    /// Path and query, in origin form.
    pub path: PathAndQuery,
}

/// Host of an outbound request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetHost {
    /// A DNS name in lower case and without a trailing dot, never one in the domain of functions.
    Name(String),
    /// A literal address.
    Address(IpAddr),
    /// A function, which is called on this node.
    Function(FunctionKey),
}

/// Why a URI is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The URI has more than 8 KiB.
    #[error("the URI has more than 8192 bytes")]
    TooLong,
    /// The scheme is neither `http` nor `https`.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// The host is missing, or the authority has a user name or an invalid port.
    #[error("the authority is not host[:port]")]
    Authority,
    /// The host is neither a DNS name nor an address.
    #[error(
        "the host is neither a DNS name, nor an IPv4 address of four decimal numbers, nor an IPv6 address in brackets \
         without a zone"
    )]
    Host,
    /// The host is in the domain of functions, and the URI is not that of a function.
    #[error(
        "a function is called as http://<function>.<namespace>.selvage.internal, without a port"
    )]
    Function,
    /// The path does not start with `/`, or has a character that other programs read differently.
    #[error(
        "the path does not start with /, or it has a backslash, a # or a character that is not ASCII"
    )]
    Path,
}

impl OutboundTarget {
    /// Reads the URI of a request.
    ///
    /// # Errors
    /// Fails when the URI is not an absolute URI that every program reads in the same way.
    pub fn new(uri: &Uri) -> Result<Self, TargetError> {
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => EgressScheme::Http,
            Some(scheme) if *scheme == Scheme::HTTPS => EgressScheme::Https,
            _ => return Err(TargetError::Scheme),
        };
        let authority = uri.authority().ok_or(TargetError::Authority)?;
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if scheme.as_str().len() + 3 + authority.as_str().len() + path.len() > MAX_URI {
            return Err(TargetError::TooLong);
        }
        let (host, port) = host_and_port(authority)?;
        let port = port.unwrap_or(scheme.default_port());
        let host = match host {
            TargetHost::Name(name) if is_function_domain(&name) => {
                let called = called_function(&name).ok_or(TargetError::Function)?;
                if (scheme, port) != (EgressScheme::Http, EgressScheme::Http.default_port()) {
                    return Err(TargetError::Function);
                }
                TargetHost::Function(called)
            }
            host => host,
        };
        Ok(Self {
            scheme,
            host,
            port,
            path: checked_path(path)?,
        })
    }

    /// Returns the authority for the `host` field: host and port, without the default port.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Returns the URI in absolute form.
    ///
    /// # Errors
    /// Fails when `http` refuses the URI, which a checked target never causes.
    pub fn absolute(&self) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.as_str())
            .authority(self.authority())
            .path_and_query(self.path.clone())
            .build()
    }

    /// Returns the narrowest entry of `egress.allow` that allows the request.
    #[must_use]
    pub fn entry(&self) -> EgressEntry {
        match &self.host {
            TargetHost::Name(name) => EgressEntry {
                scheme: self.scheme,
                host: EgressHost::Name(name.clone()),
                port: self.port,
            },
            TargetHost::Address(address) => {
                EgressEntry::for_address(self.scheme, *address, self.port)
            }
            TargetHost::Function(function) => EgressEntry::for_function(function.clone()),
        }
    }
}

/// Writes scheme, host and port: what may be logged, because it contains no path and no query.
impl fmt::Display for OutboundTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// Writes the host as in a URL.
impl fmt::Display for TargetHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Function(function) => f.write_str(&function_name(function)),
        }
    }
}

fn host_and_port(authority: &Authority) -> Result<(TargetHost, Option<u16>), TargetError> {
    let text = authority.as_str();
    if text.contains('@') {
        return Err(TargetError::Authority);
    }
    let (host, port) = if let Some(inside) = text.strip_prefix('[') {
        let (inside, after) = inside.split_once(']').ok_or(TargetError::Host)?;
        let address: Ipv6Addr = inside.parse().map_err(|_| TargetError::Host)?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => return Err(TargetError::Authority),
        };
        (TargetHost::Address(address.into()), port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let host = match host.parse::<Ipv4Addr>() {
            Ok(address) => TargetHost::Address(address.into()),
            Err(_) => TargetHost::Name(normalise_name(host).map_err(|_| TargetError::Host)?),
        };
        (host, port)
    };
    let port = port.map(parse_port).transpose()?;
    Ok((host, port))
}

fn parse_port(text: &str) -> Result<u16, TargetError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or(TargetError::Authority)
}

fn checked_path(path: &str) -> Result<PathAndQuery, TargetError> {
    let confusing = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'\\' | b'#');
    if path.bytes().any(confusing) {
        return Err(TargetError::Path);
    }
    let path = match path.bytes().next() {
        None => "/".to_owned(),
        Some(b'/') => path.to_owned(),
        // a query without a path
        Some(b'?') => format!("/{path}"),
        Some(_) => return Err(TargetError::Path),
    };
    PathAndQuery::try_from(path).map_err(|_| TargetError::Path)
}
