//! Errors of entries. Each message says what to write instead.

use std::fmt;
use std::net::Ipv4Addr;

use super::function_name::FUNCTION_DOMAIN;
use super::name::NameError;
use super::{EgressHost, EgressScheme, MAX_ENTRY};
use crate::FunctionKey;

/// Why a text is not an entry of `egress.allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressEntryError {
    /// The entry has more than 320 bytes.
    TooLong,
    /// The entry has no scheme; `fix` is an entry with one.
    NoScheme {
        /// What to write instead.
        fix: String,
    },
    /// The scheme is neither `http` nor `https`.
    Scheme(String),
    /// An entry for a function that is not `function://namespace/name`.
    Function,
    /// The host is in the domain of the names of functions, and is the name of this function if there is one.
    FunctionDomain(Option<FunctionKey>),
    /// The entry has a user name.
    UserInfo,
    /// The entry has a path, a query or a fragment.
    Path {
        /// What to write instead.
        fix: String,
    },
    /// The port is not a number from 1 to 65535.
    Port(String),
    /// The host is not a DNS name.
    Name {
        /// Host as the entry has it, for example `*.pay_example`.
        name: String,
        /// Why the host is not a DNS name.
        error: NameError,
    },
    /// The name has a single label, and nodes use no search domains.
    SingleLabel {
        /// Scheme of the entry.
        scheme: EgressScheme,
        /// Host of the entry, for example `prices`.
        name: String,
    },
    /// A wildcard directly below a top-level domain.
    WideWildcard(String),
    /// An IPv6 address or network that is malformed or not in brackets.
    Ipv6 {
        /// Scheme of the entry.
        scheme: EgressScheme,
    },
    /// An IPv6 address has a zone.
    Zone,
    /// An IPv4 address is written as an IPv6 address.
    Mapped {
        /// Scheme of the entry.
        scheme: EgressScheme,
        /// The IPv4 address.
        v4: Ipv4Addr,
    },
    /// The length of an IPv4 prefix exceeds 32.
    Prefix(String),
    /// The address of a network has bits beyond its prefix.
    HostBits {
        /// Scheme of the entry.
        scheme: EgressScheme,
        /// The network as written.
        written: String,
        /// The network without these bits.
        fix: String,
    },
    /// No function may reach these addresses.
    Never {
        /// The address or network.
        host: String,
        /// Kind of the addresses.
        label: &'static str,
    },
}

impl EgressEntryError {
    pub(super) fn no_scheme(text: &str) -> Self {
        let host = if text.matches(':').count() > 1 && !text.starts_with('[') {
            format!("[{text}]")
        } else {
            text.to_owned()
        };
        Self::NoScheme {
            fix: format!("https://{host}"),
        }
    }

    pub(super) fn path(scheme: EgressScheme, host: &EgressHost) -> Self {
        Self::Path {
            fix: format!("{}://{host}", scheme.as_str()),
        }
    }
}

impl fmt::Display for EgressEntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "an entry has at most {MAX_ENTRY} bytes"),
            Self::NoScheme { fix } => write!(f, "an entry has a scheme; write {fix}"),
            Self::Scheme(scheme) => write!(
                f,
                "{scheme:?} is not a supported scheme; write http://, https:// or function://"
            ),
            Self::Function => f.write_str(
                "an entry for a function has its namespace and its name; write function://namespace/name",
            ),
            Self::FunctionDomain(function) => {
                write!(f, "names below {FUNCTION_DOMAIN} stand for functions; write ")?;
                match function {
                    Some(function) => write!(f, "function://{function}"),
                    None => f.write_str("function://namespace/name"),
                }
            }
            Self::UserInfo => f.write_str("an entry has no user name; write scheme://host[:port]"),
            Self::Path { fix } => write!(f, "an entry has no path; write {fix}"),
            Self::Port(port) => write!(f, "{port:?} is not a port; write a number from 1 to 65535"),
            Self::Name { name, error } => write!(f, "{name:?} is not a DNS name: {error}"),
            Self::SingleLabel { scheme, name } => write!(
                f,
                "{name:?} is a single label, and nodes add no search domains; write the full name, such as {}://{name}.shop.svc.cluster.local",
                scheme.as_str()
            ),
            Self::WideWildcard(name) => write!(
                f,
                "a wildcard needs at least two labels after it; write *.pay.{name} instead of *.{name}"
            ),
            Self::Ipv6 { scheme } => write!(
                f,
                "an IPv6 address or network is written in brackets, such as {}://[fd00::/8]:8080",
                scheme.as_str()
            ),
            Self::Zone => f.write_str("an IPv6 address in an entry has no zone"),
            Self::Mapped { scheme, v4 } => write!(
                f,
                "the address is an IPv4 address; write {}://{v4}",
                scheme.as_str()
            ),
            Self::Prefix(length) => {
                write!(
                    f,
                    "/{length} is not a prefix of IPv4; write a number from 0 to 32"
                )
            }
            Self::HostBits {
                scheme,
                written,
                fix,
            } => write!(
                f,
                "{written} has bits beyond its prefix; write {}://{fix}",
                scheme.as_str()
            ),
            Self::Never { host, label } => {
                write!(
                    f,
                    "no function may reach {host} ({label}); remove the entry"
                )
            }
        }
    }
}

impl std::error::Error for EgressEntryError {}
