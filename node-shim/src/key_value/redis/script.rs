//! Scripts that the server runs, and their replies.

use std::sync::LazyLock;

use node_shim_core::key_value::redis as rules;
use node_shim_core::key_value::{KeyValueError, MAX_VALUE, Value, Version};
use redis::{RedisResult, Script, Value as Reply};

use super::failure;

pub(super) static READ: LazyLock<Script> = LazyLock::new(|| Script::new(rules::READ));
pub(super) static CURRENT: LazyLock<Script> = LazyLock::new(|| Script::new(rules::CURRENT));
pub(super) static VERSION: LazyLock<Script> = LazyLock::new(|| Script::new(rules::VERSION));
pub(super) static SWAP: LazyLock<Script> = LazyLock::new(|| Script::new(rules::SWAP));
pub(super) static INCREMENT_UNSIGNED: LazyLock<Script> =
    LazyLock::new(|| Script::new(rules::INCREMENT_UNSIGNED));
pub(super) static LIST: LazyLock<Script> = LazyLock::new(|| Script::new(rules::LIST));

/// Result of a script that did not fail.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// The values after the status.
    Ok(Vec<Reply>),
    /// The value was not swapped, because the digest of the present one differs.
    Changed(Option<Version>),
}

/// Returns the elements of a reply that has to be a list.
pub(super) fn elements(reply: Reply) -> Result<Vec<Reply>, KeyValueError> {
    match reply {
        Reply::Array(elements) => Ok(elements),
        _ => Err(failure::INVALID),
    }
}

/// Separates the status of a reply from its values.
pub(super) fn outcome(reply: Reply) -> Result<Outcome, KeyValueError> {
    let mut elements = elements(reply)?.into_iter();
    let status = bytes(elements.next())?;
    match status.as_deref() {
        Some(b"OK") => Ok(Outcome::Ok(elements.collect())),
        Some(b"CHANGED") => Ok(Outcome::Changed(digest(elements.next())?)),
        Some(b"TOO_LARGE") => {
            let length = bytes(elements.next())?.unwrap_or_default();
            let length = std::str::from_utf8(&length).ok();
            let length = length.and_then(|length| length.parse().ok());
            Err(KeyValueError::ValueTooLong(length.unwrap_or(usize::MAX)))
        }
        Some(b"TOO_MUCH") => Err(KeyValueError::ResultTooLarge),
        Some(b"NEGATIVE") => Err(KeyValueError::OutOfRange),
        _ => Err(failure::INVALID),
    }
}

/// Returns the values of a reply of a script that cannot find a change.
pub(super) fn values(reply: Reply) -> Result<Vec<Reply>, KeyValueError> {
    match outcome(reply)? {
        Outcome::Ok(values) => Ok(values),
        Outcome::Changed(_) => Err(failure::INVALID),
    }
}

/// Returns a string of a reply; `None` where there is none.
pub(super) fn bytes(element: Option<Reply>) -> Result<Option<Vec<u8>>, KeyValueError> {
    match element {
        Some(Reply::BulkString(bytes)) => Ok(Some(bytes)),
        Some(Reply::Nil) | None => Ok(None),
        Some(_) => Err(failure::INVALID),
    }
}

/// Returns the value of an entry.
pub(super) fn value(element: Option<Reply>) -> Result<Option<Value>, KeyValueError> {
    match bytes(element)? {
        Some(bytes) if bytes.len() > MAX_VALUE => Err(KeyValueError::ValueTooLong(bytes.len())),
        found => Ok(found.map(Value::from)),
    }
}

/// Returns the version of an entry; `None` for an empty digest, which an absent entry has.
pub(super) fn digest(element: Option<Reply>) -> Result<Option<Version>, KeyValueError> {
    let text = bytes(element)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let mut digest = [0; 20];
    hex::decode_to_slice(&text, &mut digest).map_err(|_| failure::INVALID)?;
    Ok(Some(Version::Digest(digest)))
}

/// Returns the digest of a version as the scripts compare it; empty for `None`.
pub(super) fn digest_text(version: Option<Version>) -> String {
    match version {
        Some(Version::Digest(digest)) => hex::encode(digest),
        // a version of another store, which no digest equals
        Some(Version::Number(number)) => number.to_string(),
        None => String::new(),
    }
}

/// A result that has no value of its own.
pub(super) fn nothing(result: RedisResult<Reply>) -> RedisResult<()> {
    result.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Reply {
        Reply::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn statuses_become_results_and_errors() {
        let reply = |parts: &[&str]| Reply::Array(parts.iter().map(|part| text(part)).collect());
        let hex = "aa".repeat(20);
        let changed = Outcome::Changed(Some(Version::Digest([0xaa; 20])));
        for (parts, expected) in [
            (reply(&["OK", "v"]), Ok(Outcome::Ok(vec![text("v")]))),
            (reply(&["CHANGED", ""]), Ok(Outcome::Changed(None))),
            (reply(&["CHANGED", &hex]), Ok(changed)),
            (reply(&["CHANGED", "zz"]), Err(failure::INVALID)),
            (
                reply(&["TOO_LARGE", "1048577"]),
                Err(KeyValueError::ValueTooLong(1_048_577)),
            ),
            (reply(&["TOO_MUCH", ""]), Err(KeyValueError::ResultTooLarge)),
            (reply(&["NEGATIVE", ""]), Err(KeyValueError::OutOfRange)),
            (reply(&[]), Err(failure::INVALID)),
            (reply(&["?"]), Err(failure::INVALID)),
            (Reply::Int(1), Err(failure::INVALID)),
        ] {
            assert_eq!(outcome(parts), expected);
        }
    }

    #[test]
    fn a_version_is_sent_as_it_came() {
        let hex = "0f".repeat(20);
        let version = digest(Some(text(&hex))).unwrap();
        assert_eq!(digest_text(version), hex);
        assert_eq!(digest_text(None), "");
        assert_eq!(digest_text(Some(Version::Number(7))), "7");
    }
}
