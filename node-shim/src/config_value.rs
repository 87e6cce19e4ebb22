//! Values of environment variables and configuration entries, which may be secret.

use zeroize::Zeroizing;

/// Value of an environment variable or a configuration entry.
#[derive(Clone, PartialEq, Eq)]
pub enum ConfigValue {
    /// Value from the revision's definition.
    Plain(String),
    /// Value from a Secret. Its `Debug` output is redacted, and its memory is overwritten when dropped.
    Secret(Zeroizing<String>),
}

impl From<String> for ConfigValue {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

impl AsRef<str> for ConfigValue {
    fn as_ref(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Secret(text) => text,
        }
    }
}

impl std::fmt::Debug for ConfigValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(text) => text.fmt(f),
            Self::Secret(_) => f.write_str("(secret)"),
        }
    }
}
