//! Entries of `egress.allow`: the outbound HTTP requests that a function may send. The operator validates an entry with
//! the code that nodes read it with.
//!
//! ```
//! use node_api_types::egress::EgressEntry;
//!
//! let entry = EgressEntry::parse("https://*.Pay.example.:8443").unwrap();
//! assert_eq!(entry.to_string(), "https://*.pay.example:8443");
//! assert_eq!(EgressEntry::parse("http://10.1.0.0/16:8080").unwrap().port, 8080);
//! assert!(EgressEntry::parse("function://shop/prices").is_ok());
//! assert_eq!(
//!     EgressEntry::parse("https://api.pay.example/v1").unwrap_err().to_string(),
//!     "an entry has no path; write https://api.pay.example"
//! );
//! ```

mod error;
mod function_name;
mod name;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::FunctionKey;
use crate::address::{Reach, reach};
use function_name::function_key;

pub use error::EgressEntryError;
pub use function_name::{FUNCTION_DOMAIN, called_function, function_name, is_function_domain};
pub use name::{NameError, ends_in_number, normalise_name};

/// Maximum length of an entry, in bytes.
pub const MAX_ENTRY: usize = 320;
/// Maximum number of entries of a function.
pub const MAX_ENTRIES: usize = 64;

/// Scheme of outbound requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EgressScheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS; the certificate of the server is verified.
    Https,
}

/// Hosts that an entry allows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EgressHost {
    /// This DNS name, in lower case and without a trailing dot.
    Name(String),
    /// All names that have one or more labels before this name.
    Subdomains(String),
    /// Literal addresses in this network. A single address is a network of its full length.
    Network(IpNet),
    /// This function, which is called by its name with the scheme `http` and port 80.
    Function(FunctionKey),
}

/// An entry of `egress.allow`: `scheme://host[:port]`, or `function://namespace/name`. The host is a DNS name, a name after
/// one leading `*.`, an IP address or a network in CIDR notation; IPv6 is in brackets, as in `https://[fd00::/8]:8443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EgressEntry {
    /// Scheme of the requests.
    pub scheme: EgressScheme,
    /// Hosts of the requests.
    pub host: EgressHost,
    /// Port of the requests, 1 to 65535. An entry without a port has the default port of its scheme.
    pub port: u16,
}

// === impl EgressScheme ===

impl EgressScheme {
    /// Returns the scheme as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Returns the port of a URL without a port: 80 or 443.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

// === impl EgressEntry ===

impl EgressEntry {
    /// Parses an entry.
    ///
    /// # Errors
    /// Fails when the text is not an entry, or when no request could ever match it.
    pub fn parse(text: &str) -> Result<Self, EgressEntryError> {
        if text.len() > MAX_ENTRY {
            return Err(EgressEntryError::TooLong);
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| EgressEntryError::no_scheme(text))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => EgressScheme::Http,
            "https" => EgressScheme::Https,
            "function" => return function(rest).map(Self::for_function),
            _ => return Err(EgressEntryError::Scheme(scheme.to_owned())),
        };
        if rest.contains('@') {
            return Err(EgressEntryError::UserInfo);
        }
        let (host, port) = if rest.starts_with('[') {
            bracketed(scheme, rest)?
        } else {
            plain(scheme, rest)?
        };
        let port = match port {
            Some(port) => parse_port(scheme, &host, port)?,
            None => scheme.default_port(),
        };
        Ok(Self { scheme, host, port })
    }

    /// Returns the entry that allows calls of this function.
    #[must_use]
    pub const fn for_function(function: FunctionKey) -> Self {
        Self {
            scheme: EgressScheme::Http,
            host: EgressHost::Function(function),
            port: EgressScheme::Http.default_port(),
        }
    }

    /// Returns the entry that allows requests to this host only.
    #[must_use]
    pub fn for_address(scheme: EgressScheme, address: IpAddr, port: u16) -> Self {
        Self {
            scheme,
            host: EgressHost::Network(address.into()),
            port,
        }
    }
}

/// Writes the canonical form, without the default port.
impl fmt::Display for EgressEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let EgressHost::Function(function) = &self.host {
            return write!(f, "function://{function}");
        }
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        if self.port == self.scheme.default_port() {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

/// Writes the host as in a URL, with an IPv6 address in brackets.
impl fmt::Display for EgressHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Subdomains(name) => write!(f, "*.{name}"),
            Self::Function(function) => f.write_str(&function_name(function)),
            Self::Network(network) => {
                let whole = network.prefix_len() == network.max_prefix_len();
                match (network, whole) {
                    (IpNet::V4(net), true) => write!(f, "{}", net.addr()),
                    (IpNet::V4(net), false) => write!(f, "{net}"),
                    (IpNet::V6(net), true) => write!(f, "[{}]", net.addr()),
                    (IpNet::V6(net), false) => write!(f, "[{net}]"),
                }
            }
        }
    }
}

type HostAndPort<'a> = (EgressHost, Option<&'a str>);

/// Reads `namespace/name`.
fn function(text: &str) -> Result<FunctionKey, EgressEntryError> {
    let (namespace, rest) = text.split_once('/').ok_or(EgressEntryError::Function)?;
    let (name, tail) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let key = function_key(namespace, name).ok_or(EgressEntryError::Function)?;
    if tail.is_empty() {
        Ok(key)
    } else {
        Err(EgressEntryError::Path {
            fix: EgressEntry::for_function(key).to_string(),
        })
    }
}

/// Reads `[address or network][:port]`.
fn bracketed(scheme: EgressScheme, rest: &str) -> Result<HostAndPort<'_>, EgressEntryError> {
    let inside = rest.strip_prefix('[').unwrap_or(rest);
    let (inside, after) = inside
        .split_once(']')
        .ok_or(EgressEntryError::Ipv6 { scheme })?;
    if inside.contains('%') {
        return Err(EgressEntryError::Zone);
    }
    let network = if inside.contains('/') {
        inside.parse::<Ipv6Net>().ok()
    } else {
        inside.parse::<Ipv6Addr>().ok().map(Ipv6Net::from)
    };
    let network = network.ok_or(EgressEntryError::Ipv6 { scheme })?;
    if let Some(v4) = network.addr().to_ipv4_mapped()
        && network.prefix_len() >= 96
    {
        return Err(EgressEntryError::Mapped { scheme, v4 });
    }
    let host = reachable(scheme, network.into())?;
    match after.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if after.is_empty() => Ok((host, None)),
        None => Err(EgressEntryError::path(scheme, &host)),
    }
}

/// Reads a name, an IPv4 address or an IPv4 network, and `[:port]`.
fn plain(scheme: EgressScheme, rest: &str) -> Result<HostAndPort<'_>, EgressEntryError> {
    if rest.matches(':').count() > 1 && !rest.contains(['/', '?', '#']) {
        return Err(EgressEntryError::Ipv6 { scheme });
    }
    let (text, port) = match rest.split_once(':') {
        Some((text, port)) => (text, Some(port)),
        None => (rest, None),
    };
    let host = if let Ok(network) = text.parse::<Ipv4Net>() {
        reachable(scheme, network.into())?
    } else if let Ok(address) = text.parse::<Ipv4Addr>() {
        reachable(scheme, IpAddr::from(address).into())?
    } else if let Some((address, rest)) = text.split_once('/')
        && let Ok(address) = address.parse::<Ipv4Addr>()
    {
        let digits = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
        return Err(if digits {
            EgressEntryError::Prefix(rest.to_owned())
        } else {
            EgressEntryError::path(scheme, &EgressHost::Network(IpAddr::from(address).into()))
        });
    } else {
        named(scheme, text)?
    };
    Ok((host, port))
}

/// Checks that requests can reach the network.
fn reachable(scheme: EgressScheme, network: IpNet) -> Result<EgressHost, EgressEntryError> {
    let whole = network.trunc();
    if whole != network {
        let written = EgressHost::Network(network).to_string();
        let fix = EgressHost::Network(whole).to_string();
        return Err(EgressEntryError::HostBits {
            scheme,
            written,
            fix,
        });
    }
    let ends = (reach(network.network()), reach(network.broadcast()));
    match ends {
        (Reach::Never(label), Reach::Never(other)) if label == other => {
            Err(EgressEntryError::Never {
                host: EgressHost::Network(network).to_string(),
                label,
            })
        }
        _ => Ok(EgressHost::Network(network)),
    }
}

fn named(scheme: EgressScheme, text: &str) -> Result<EgressHost, EgressEntryError> {
    let (wildcard, written) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (written, tail) = match written.find(['/', '?', '#']) {
        Some(at) => written.split_at(at),
        None => (written, ""),
    };
    let name = normalise_name(written).map_err(|error| EgressEntryError::Name {
        name: text.to_owned(),
        error,
    })?;
    if is_function_domain(&name) {
        let called = called_function(&name).filter(|_| !wildcard);
        return Err(EgressEntryError::FunctionDomain(called));
    }
    let single = !name.contains('.');
    let host = match (wildcard, single) {
        (true, true) => return Err(EgressEntryError::WideWildcard(name)),
        (false, true) => return Err(EgressEntryError::SingleLabel { scheme, name }),
        (true, false) => EgressHost::Subdomains(name),
        (false, false) => EgressHost::Name(name),
    };
    if tail.is_empty() {
        Ok(host)
    } else {
        Err(EgressEntryError::path(scheme, &host))
    }
}

fn parse_port(
    scheme: EgressScheme,
    host: &EgressHost,
    text: &str,
) -> Result<u16, EgressEntryError> {
    let digits = text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.contains(['/', '?', '#']) {
        return Err(EgressEntryError::path(scheme, host));
    }
    text.parse()
        .ok()
        .filter(|port| digits && *port > 0)
        .ok_or_else(|| EgressEntryError::Port(text.to_owned()))
}
