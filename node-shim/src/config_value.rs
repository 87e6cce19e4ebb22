//! What a guest is told by name: plain text, or text that is never shown.

use zeroize::Zeroizing;

/// The value of a variable.
#[derive(Clone, PartialEq, Eq)]
pub enum ConfigValue {
    /// Written in the definition.
    Plain(String),
    /// From a Secret: never printed, and overwritten at its end.
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
