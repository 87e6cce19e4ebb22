//! Key-value stores of functions (`wasi:keyvalue`): their limits and errors, the store in the memory of a node, and the
//! decisions about stores in Redis: what is answered from memory, which replies are accepted, when to connect again.
//!
//! A bucket is what a component opens by a label. It belongs to a namespace: all functions of the namespace that have
//! the label share its entries, and no other namespace can reach them.

mod error;
mod memory;
mod namespace;
mod read_cache;
mod reconnect;
pub mod redis;
mod reply_guard;

use std::sync::Arc;
use std::time::Duration;

pub use error::{KeyValueError, SwapError};
pub use memory::{Evictions, MemoryLimits, MemoryStore};
pub use read_cache::{ReadCache, ReadStart};
pub use reconnect::Reconnect;
pub use reply_guard::{InvalidReply, ReplyGuard};

/// Maximum length of a key, in bytes.
pub const MAX_KEY: usize = 1 << 10;
/// Maximum length of a value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;
/// Maximum number of operations of one request. An operation on several keys counts once for each of them.
pub const MAX_OPERATIONS: u32 = 1_000;
/// Maximum size of all values that one operation returns, in bytes.
pub const MAX_RESULT: usize = 16 << 20;
/// Maximum number of keys that one call of `list-keys` returns.
pub const PAGE_KEYS: usize = 1_000;
/// Size of the keys after which a page of `list-keys` ends, in bytes.
pub const PAGE_BYTES: usize = 64 << 10;
/// Maximum time that one operation waits for its store.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// Value of an entry.
pub type Value = Arc<[u8]>;

/// Identity of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketId {
    /// Namespace of the functions that share the bucket.
    pub namespace: Arc<str>,
    /// Label by which components open the bucket.
    pub label: Arc<str>,
}

/// Version of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// Number of the write. Every write gives the entry a number that no entry of the store had before.
    Number(u64),
    /// SHA-1 digest of the value, in a store that other programs write to.
    Digest([u8; 20]),
}

/// A value and the version of its entry.
#[derive(Clone, PartialEq, Eq)]
pub struct VersionedValue {
    /// Value of the entry.
    pub value: Value,
    /// Version of the entry.
    pub version: Version,
}

/// Part of the keys of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys in the order in which their entries were created.
    pub keys: Vec<Arc<str>>,
    /// Position after which the next page starts; `None` after the last page.
    pub next: Option<u64>,
}

/// Checks the length of a key.
///
/// # Errors
/// Fails when the key is longer than [`MAX_KEY`].
pub fn check_key(key: &str) -> Result<(), KeyValueError> {
    if key.len() > MAX_KEY {
        return Err(KeyValueError::KeyTooLong(key.len()));
    }
    Ok(())
}

/// Checks the length of a value.
///
/// # Errors
/// Fails when the value is longer than [`MAX_VALUE`].
pub fn check_value(value: &[u8]) -> Result<(), KeyValueError> {
    if value.len() > MAX_VALUE {
        return Err(KeyValueError::ValueTooLong(value.len()));
    }
    Ok(())
}

/// Adds `delta` to the number that an entry holds as decimal text. An absent entry counts as 0.
///
/// # Errors
/// Fails when the value is no such number, or when the sum is below `lowest` or does not fit into 64 bits.
pub fn add_to_text(value: Option<&[u8]>, delta: i64, lowest: i64) -> Result<i64, KeyValueError> {
    let number = match value {
        None => 0,
        Some(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .ok_or(KeyValueError::NotANumber)?,
    };
    number
        .checked_add(delta)
        .filter(|sum| *sum >= lowest)
        .ok_or(KeyValueError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_at_their_limits() {
        assert_eq!(check_key(&"k".repeat(1024)), Ok(()));
        assert_eq!(
            check_key(&"k".repeat(1025)),
            Err(KeyValueError::KeyTooLong(1025))
        );
        assert_eq!(check_value(&vec![0; 1 << 20]), Ok(()));
        assert_eq!(
            check_value(&vec![0; (1 << 20) + 1]),
            Err(KeyValueError::ValueTooLong((1 << 20) + 1))
        );
    }

    #[test]
    fn numbers_are_decimal_text_within_64_bits() {
        let lowest = i64::MIN;
        assert_eq!(add_to_text(None, 5, 0), Ok(5));
        assert_eq!(add_to_text(Some(b"41"), 1, 0), Ok(42));
        assert_eq!(add_to_text(Some(b"1"), -2, lowest), Ok(-1));
        assert_eq!(
            add_to_text(Some(b"1"), -2, 0),
            Err(KeyValueError::OutOfRange)
        );
        let most = i64::MAX.to_string();
        assert_eq!(
            add_to_text(Some(most.as_bytes()), 1, lowest),
            Err(KeyValueError::OutOfRange)
        );
        for text in ["", "x", "1.5", " 1", "9223372036854775808", "\u{661}"] {
            assert_eq!(
                add_to_text(Some(text.as_bytes()), 1, lowest),
                Err(KeyValueError::NotANumber),
                "{text:?}"
            );
        }
        assert_eq!(
            add_to_text(Some(b"\xff"), 1, lowest),
            Err(KeyValueError::NotANumber)
        );
    }
}
