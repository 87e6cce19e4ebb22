//! DNS names of outbound requests.

use std::fmt;

/// Maximum length of a name, in bytes.
const MAX_NAME: usize = 253;
/// Maximum length of a label, in bytes.
const MAX_LABEL: usize = 63;

/// Why a text is not a DNS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The name or one of its labels is empty.
    Empty,
    /// The name has more than 253 bytes, or a label more than 63.
    TooLong,
    /// A character other than letters, digits, `-` and `.`, or a label that starts or ends with `-`.
    Character,
    /// The name has a `*`.
    Wildcard,
    /// The last label is a number, so that some programs read the name as an IPv4 address.
    Number,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it has an empty label",
            Self::TooLong => "a name has at most 253 bytes, and each label at most 63",
            Self::Character => {
                "a label has letters, digits and '-', and neither starts nor ends with '-'; write \
                 an internationalised name in its form that starts with xn--"
            }
            Self::Wildcard => "a wildcard is the whole first label, as in *.pay.example",
            Self::Number => {
                "its last label is a number, but it is not an address of four decimal numbers"
            }
        })
    }
}

impl std::error::Error for NameError {}

/// Returns a DNS name in lower case and without its trailing dot.
///
/// # Errors
/// Fails when the text is not a name, or when its last label is a number.
pub fn normalise_name(text: &str) -> Result<String, NameError> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(NameError::Empty);
        }
        if label.contains('*') {
            return Err(NameError::Wildcard);
        }
        if label.len() > MAX_LABEL {
            return Err(NameError::TooLong);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if !label.bytes().all(allowed) || label.starts_with('-') || label.ends_with('-') {
            return Err(NameError::Character);
        }
    }
    if ends_in_number(name) {
        return Err(NameError::Number);
    }
    Ok(name.to_ascii_lowercase())
}

/// Returns whether the last label of a name is a decimal, octal or hexadecimal number. Programs that accept the old
/// notations of IPv4 addresses read such a name as an address.
#[must_use]
pub fn ends_in_number(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hex || (!last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
}
