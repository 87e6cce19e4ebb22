//! Hosts that the administrator of the cluster denies to all functions.

use std::fmt;
use std::str::FromStr;

use node_api_types::egress::{NameError, is_function_domain, normalise_name};

/// A host that no function may send requests to, or all hosts below a name: `db.corp.example` or `*.corp.example`, which does
/// not match `corp.example` itself.
///
/// ```
/// use node_shim_core::egress::DeniedHost;
///
/// let denied: DeniedHost = "*.Corp.example.".parse()?;
/// assert_eq!(denied.to_string(), "*.corp.example");
/// # Ok::<(), node_shim_core::egress::DeniedHostError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedHost {
    /// Name in lower case and without a trailing dot.
    name: String,
    /// Whether the names below are denied instead of the name itself.
    is_wildcard: bool,
}

/// Hosts that no function may send requests to. The default is empty and denies nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedHosts(Vec<DeniedHost>);

/// Why a text is not a host that can be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeniedHostError {
    /// The text is not a DNS name with at most one wildcard in front.
    #[error("expected a DNS name like db.corp.example or *.corp.example: {0}")]
    Name(NameError),
    /// The text is an address.
    #[error(
        "expected a DNS name like db.corp.example or *.corp.example: deny an address as a network"
    )]
    Address,
    /// The name is in the domain of functions, whose calls need a grant of the called function.
    #[error(
        "names below selvage.internal stand for functions, which admit their callers themselves"
    )]
    Function,
}

impl FromStr for DeniedHost {
    type Err = DeniedHostError;

    fn from_str(text: &str) -> Result<Self, DeniedHostError> {
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let name = normalise_name(name).map_err(|error| match error {
            NameError::Number => DeniedHostError::Address,
            error => DeniedHostError::Name(error),
        })?;
        if is_function_domain(&name) {
            return Err(DeniedHostError::Function);
        }
        Ok(Self { name, is_wildcard })
    }
}

impl fmt::Display for DeniedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wildcard = if self.is_wildcard { "*." } else { "" };
        write!(f, "{wildcard}{}", self.name)
    }
}

impl DeniedHost {
    fn matches(&self, host: &str) -> bool {
        if !self.is_wildcard {
            return self.name == host;
        }
        host.strip_suffix(self.name.as_str())
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty())
    }
}

impl DeniedHosts {
    /// Returns a list of these hosts.
    #[must_use]
    pub const fn new(hosts: Vec<DeniedHost>) -> Self {
        Self(hosts)
    }

    /// Returns the entry that denies a host. The host is in lower case and without a trailing dot.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&DeniedHost> {
        self.0.iter().find(|denied| denied.matches(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_denies_itself_and_a_wildcard_what_is_below() {
        let parse = |text: &&str| text.parse().unwrap();
        let hosts = ["db.corp.example", "*.Internal.example.", "*.metadata"];
        let denied = DeniedHosts::new(hosts.iter().map(parse).collect());
        for (host, by) in [
            ("db.corp.example", Some("db.corp.example")),
            ("a.db.corp.example", None),
            ("corp.example", None),
            ("a.internal.example", Some("*.internal.example")),
            ("a.b.internal.example", Some("*.internal.example")),
            ("internal.example", None),
            ("notinternal.example", None),
            (".internal.example", None),
            ("a.internal.example.org", None),
            ("a.metadata", Some("*.metadata")),
            ("metadata", None),
        ] {
            let found = denied.find(host).map(ToString::to_string);
            assert_eq!(found.as_deref(), by, "{host}");
        }
        assert_eq!(DeniedHosts::default().find("db.corp.example"), None);
    }

    #[test]
    fn what_denies_no_host_is_refused() {
        let refused = |text: &str| text.parse::<DeniedHost>().unwrap_err().to_string();
        for text in [
            "",
            "*",
            "*.",
            "a.*.example",
            "*.*.example",
            "a_b.example",
            "https://a.example",
            "a.example:443",
        ] {
            let message = refused(text);
            assert!(
                message.contains("like db.corp.example or *.corp.example"),
                "{text}: {message}"
            );
        }
        for text in ["10.0.0.1", "0x7f.1", "*.10"] {
            assert!(refused(text).contains("as a network"), "{text}");
        }
        for text in ["*.selvage.internal", "prices.shop.selvage.internal"] {
            assert!(refused(text).contains("stand for functions"), "{text}");
        }
    }
}
