//! The server of a store and the names of its keys.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use node_shim_core::key_value::redis::{RedisUrl, RedisUrlError};
use zeroize::Zeroizing;

use crate::egress::FunctionAuthorities;

/// A Redis server, and the prefix of the keys in it. The URL is a secret: its memory is overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisTarget {
    url: Zeroizing<String>,
    prefix: String,
    /// Authorities that are trusted in addition to those of the node; `None` also without TLS. They belong to the target, so
    /// that functions share no connection that one of them would not have trusted.
    authorities: Option<Arc<FunctionAuthorities>>,
}

/// The URL of a Redis server that cannot be used. The message contains no part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the URL of the Redis server is not valid: {0}")]
pub struct InvalidRedisUrl(RedisUrlError);

impl RedisTarget {
    /// Returns a target with a valid URL.
    ///
    /// # Errors
    /// Fails when the URL cannot be read.
    pub fn new(url: Zeroizing<String>, prefix: String) -> Result<Self, InvalidRedisUrl> {
        RedisUrl::parse(&url).map_err(InvalidRedisUrl)?;
        Ok(Self {
            url,
            prefix,
            authorities: None,
        })
    }

    /// Returns the same server, whose certificate may also be signed by one of these authorities.
    #[must_use]
    pub fn trusting(mut self, authorities: Option<&Arc<FunctionAuthorities>>) -> Self {
        let has_tls = self.url().is_some_and(|url| url.tls);
        self.authorities = authorities.filter(|_| has_tls).cloned();
        self
    }

    pub(super) fn authorities(&self) -> Option<&FunctionAuthorities> {
        self.authorities.as_deref()
    }

    /// Returns the parts of the URL; `None` never happens, because they were read before.
    pub(super) fn url(&self) -> Option<RedisUrl> {
        RedisUrl::parse(&self.url).ok()
    }

    /// Returns the text before every key.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Hash for RedisTarget {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.url.as_str().hash(state);
        self.prefix.hash(state);
        self.authorities.hash(state);
    }
}

impl fmt::Debug for RedisTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTarget")
            .field("url", &"(secret)")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_output_shows_the_url() {
        let target = |url: &str| RedisTarget::new(Zeroizing::new(url.to_owned()), "p:".to_owned());
        let shown = format!("{:?}", target("redis://:hunter2@hunter.example").unwrap());
        assert_eq!(
            shown,
            r#"RedisTarget { url: "(secret)", prefix: "p:", .. }"#
        );
        let error = target("http://:hunter2@hunter.example").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter"));
    }
}
