//! URLs of Redis servers, which Secrets hold. The operator validates a URL with the code that nodes read it with. A URL
//! contains a password, so neither an error nor the `Debug` output shows any part of it.
//!
//! ```
//! use node_api_types::redis_url::RedisUrl;
//!
//! let url = RedisUrl::parse("rediss://cart:s%20ecret@redis.shop.svc.cluster.local:6380/2").unwrap();
//! assert!(url.tls);
//! assert_eq!((url.port, url.database), (6380, 2));
//! assert_eq!(url.password.as_deref(), Some("s ecret"));
//! assert_eq!(format!("{url:?}"), "RedisUrl(..)");
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{Reach, reach};
use crate::egress::normalise_name;

/// Maximum length of a URL, in bytes.
pub const MAX_URL: usize = 2_048;
/// Port of a URL without one.
const DEFAULT_PORT: u16 = 6_379;
/// Name that means the host itself.
pub const LOCALHOST: &str = "localhost";

/// URL of a Redis server: `redis://[user:password@]host[:port][/db]`, or `rediss://…` with TLS.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// User; `None` means the user `default` of the server.
    pub user: Option<String>,
    /// Password of the user.
    pub password: Option<String>,
    /// Host of the server.
    pub host: RedisHost,
    /// Port of the server. Default: 6379.
    pub port: u16,
    /// Number of the database. Default: 0.
    pub database: u16,
}

/// Host of a Redis server.
#[derive(Clone, PartialEq, Eq)]
pub enum RedisHost {
    /// A DNS name in lower case and without a trailing dot.
    Name(String),
    /// An IPv4 address, or an IPv6 address that the URL has in brackets.
    Address(IpAddr),
}

/// Why a text is not the URL of a Redis server. The messages contain no part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisUrlError {
    /// The URL has more than 2,048 bytes.
    TooLong,
    /// The scheme is neither `redis` nor `rediss`.
    Scheme,
    /// The user or the password has a `%` that does not begin an encoded byte, or is not UTF-8.
    Encoding,
    /// The host is neither a DNS name nor an address.
    Host,
    /// The name has a single label, and nodes use no search domains.
    SingleLabel,
    /// The port is not a number from 1 to 65535.
    Port,
    /// The path is not the number of a database.
    Database,
    /// No function may reach the host; with the kind of its address.
    Never(&'static str),
}

impl RedisUrl {
    /// Reads a URL. White space at the end, which files of Secrets often have, is ignored.
    ///
    /// # Errors
    /// Returns the first error.
    pub fn parse(text: &str) -> Result<Self, RedisUrlError> {
        let text = text.trim_ascii_end();
        if text.len() > MAX_URL {
            return Err(RedisUrlError::TooLong);
        }
        let (scheme, rest) = text.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return Err(RedisUrlError::Scheme),
        };
        // a password may contain every character, so the last @ ends it
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            Some((user, password)) => (decoded(user)?, decoded(password)?),
            None => (None, None),
        };
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match database {
            "" => 0,
            digits => number(digits).ok_or(RedisUrlError::Database)?,
        };
        let (host, port) = host_and_port(authority)?;
        Ok(Self {
            tls,
            user,
            password,
            host,
            port,
            database,
        })
    }

    /// Checks what does not depend on the node: a name of one label has no address there, and no function reaches
    /// addresses of some kinds.
    ///
    /// # Errors
    /// Fails when no node of a cluster connects to the host.
    pub fn check_reachable(&self) -> Result<(), RedisUrlError> {
        match &self.host {
            RedisHost::Name(name) if name == LOCALHOST => Err(RedisUrlError::Never("loopback")),
            RedisHost::Name(name) if !name.contains('.') => Err(RedisUrlError::SingleLabel),
            RedisHost::Name(_) => Ok(()),
            RedisHost::Address(address) => match reach(*address) {
                Reach::Public | Reach::Private => Ok(()),
                Reach::Never(label) => Err(RedisUrlError::Never(label)),
            },
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl(..)")
    }
}

impl fmt::Display for RedisUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "it has more than {MAX_URL} bytes"),
            Self::Scheme => f.write_str("it starts with neither redis:// nor rediss://"),
            Self::Encoding => {
                f.write_str("its user or password is not percent-encoded UTF-8; write % as %25")
            }
            Self::Host => f.write_str(
                "its host is neither a DNS name nor an address; write \
                 redis://[user:password@]host[:port][/db]",
            ),
            Self::SingleLabel => f.write_str(
                "its host is a single label, and nodes add no search domains; write the full name, \
                 such as redis.shop.svc.cluster.local",
            ),
            Self::Port => f.write_str("its port is not a number from 1 to 65535"),
            Self::Database => {
                f.write_str("its path is not the number of a database; write redis://host:port/0")
            }
            Self::Never(label) => write!(f, "no function may reach its host ({label})"),
        }
    }
}

impl std::error::Error for RedisUrlError {}

/// Returns a text without percent-encoding; `None` for an empty one.
fn decoded(text: &str) -> Result<Option<String>, RedisUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).ok_or(RedisUrlError::Encoding)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(RedisUrlError::Encoding);
        }
        let byte = u8::from_str_radix(digits, 16).map_err(|_| RedisUrlError::Encoding)?;
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let text = String::from_utf8(bytes).map_err(|_| RedisUrlError::Encoding)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn host_and_port(authority: &str) -> Result<(RedisHost, u16), RedisUrlError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(RedisUrlError::Host)?;
        let address: Ipv6Addr = address.parse().map_err(|_| RedisUrlError::Host)?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or(RedisUrlError::Port)?),
        };
        (RedisHost::Address(address.into()), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        (name_or_address(host)?, port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) => number(digits)
            .filter(|port| *port != 0)
            .ok_or(RedisUrlError::Port)?,
    };
    Ok((host, port))
}

fn name_or_address(host: &str) -> Result<RedisHost, RedisUrlError> {
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(RedisHost::Address(address.into()));
    }
    let name = normalise_name(host).map_err(|_| RedisUrlError::Host)?;
    Ok(RedisHost::Name(name))
}

/// Reads a number that consists of digits only.
fn number(digits: &str) -> Option<u16> {
    let all = digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RedisUrl, RedisUrlError> {
        RedisUrl::parse(text)
    }

    fn plain(host: RedisHost) -> RedisUrl {
        RedisUrl {
            tls: false,
            user: None,
            password: None,
            host,
            port: 6_379,
            database: 0,
        }
    }

    #[test]
    fn all_parts_are_read() {
        let name = |name: &str| RedisHost::Name(name.to_owned());
        let text = |text: &str| Some(text.to_owned());
        let table = [
            ("redis://r.shop.", plain(name("r.shop"))),
            (
                "redis://R.Shop:6380/15\n",
                RedisUrl {
                    port: 6_380,
                    database: 15,
                    ..plain(name("r.shop"))
                },
            ),
            (
                "rediss://u:p@r.shop/",
                RedisUrl {
                    tls: true,
                    user: text("u"),
                    password: text("p"),
                    ..plain(name("r.shop"))
                },
            ),
            (
                "redis://:p%40%2f:/@@10.1.2.3",
                RedisUrl {
                    password: text("p@/:/@"),
                    ..plain(RedisHost::Address([10, 1, 2, 3].into()))
                },
            ),
            (
                "redis://[fd00::1]:7000",
                RedisUrl {
                    port: 7_000,
                    ..plain(RedisHost::Address("fd00::1".parse().unwrap()))
                },
            ),
        ];
        for (text, expected) in table {
            assert!(parse(text) == Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors_name_the_part_and_show_nothing_of_the_url() {
        let long = format!("redis://:{}@hunter2.example", "x".repeat(2_048));
        let table = [
            ("", RedisUrlError::Scheme),
            ("hunter2", RedisUrlError::Scheme),
            ("http://hunter2.example", RedisUrlError::Scheme),
            ("REDIS://hunter2.example", RedisUrlError::Scheme),
            ("redis://u:hunter2%@r.shop", RedisUrlError::Encoding),
            ("redis://u:hunter2%+1@r.shop", RedisUrlError::Encoding),
            ("redis://u:hunter2%ff@r.shop", RedisUrlError::Encoding),
            ("redis://u:hunter2@", RedisUrlError::Host),
            ("redis://u:hunter2@r_x.shop", RedisUrlError::Host),
            ("redis://u:hunter2@[::g]", RedisUrlError::Host),
            ("redis://u:hunter2@010.1.1.1", RedisUrlError::Host),
            ("redis://u:hunter2@r.shop:", RedisUrlError::Port),
            ("redis://u:hunter2@r.shop:0", RedisUrlError::Port),
            ("redis://u:hunter2@r.shop:+1", RedisUrlError::Port),
            ("redis://u:hunter2@r.shop:65536", RedisUrlError::Port),
            ("redis://u:hunter2@[::1]1", RedisUrlError::Port),
            ("redis://u:hunter2@r.shop/x", RedisUrlError::Database),
            ("redis://u:hunter2@r.shop/0?a=b", RedisUrlError::Database),
            (long.as_str(), RedisUrlError::TooLong),
        ];
        for (text, error) in table {
            assert!(parse(text) == Err(error), "{text}: {:?}", parse(text).err());
            assert!(!error.to_string().contains("hunter2"), "{text}");
        }
        let url = parse("redis://u:hunter2@r.shop").unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    /// HE-1: the operator explains what nodes would refuse.
    #[test]
    fn hosts_that_no_function_reaches_are_refused_before_a_node_connects() {
        let table = [
            ("redis://r.shop", Ok(())),
            ("redis://10.1.2.3", Ok(())),
            ("redis://1.1.1.1", Ok(())),
            ("redis://redis", Err(RedisUrlError::SingleLabel)),
            ("redis://localhost", Err(RedisUrlError::Never("loopback"))),
            ("redis://127.0.0.1", Err(RedisUrlError::Never("loopback"))),
            ("redis://[::1]", Err(RedisUrlError::Never("loopback"))),
            (
                "redis://169.254.169.254",
                Err(RedisUrlError::Never("link_local")),
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).unwrap().check_reachable(), expected, "{text}");
        }
    }
}
