//! Stores in Redis: names of keys, the scripts that the server runs, and the size of its replies.
//!
//! What would otherwise need a check between two commands is a script, because a server runs a script as a whole. The
//! scripts check lengths before they return a value, so no reply is larger than a component may receive.

use super::{MAX_KEY, MAX_RESULT, MAX_VALUE};

pub use node_api_types::redis_url::{LOCALHOST, RedisHost, RedisUrl, RedisUrlError};

/// Maximum number of keys that the server looks at for one page of `list-keys`, and the number of times that it does
/// so while it finds none.
pub const SCAN: (usize, usize) = (250, 40);

/// Returns the values of the keys. It fails with `TOO_LARGE` and a length when a value is longer than the first argument,
/// and with `TOO_MUCH` when the values have more bytes together than the second.
pub const READ: &str = r"
local values, total = {}, 0
for at, key in ipairs(KEYS) do
  local length = redis.call('STRLEN', key)
  if length > tonumber(ARGV[1]) then return {'TOO_LARGE', tostring(length)} end
  total = total + length
  if total > tonumber(ARGV[2]) then return {'TOO_MUCH', ''} end
  values[at] = redis.call('GET', key)
end
table.insert(values, 1, 'OK')
return values";

/// Returns the value of a key and its digest. It fails like [`READ`].
pub const CURRENT: &str = r"
local length = redis.call('STRLEN', KEYS[1])
if length > tonumber(ARGV[1]) then return {'TOO_LARGE', tostring(length)} end
local value = redis.call('GET', KEYS[1])
if not value then return {'OK', ''} end
return {'OK', redis.sha1hex(value), value}";

/// Returns the digest of the value of a key, without the value. It fails like [`READ`].
pub const VERSION: &str = r"
local length = redis.call('STRLEN', KEYS[1])
if length > tonumber(ARGV[1]) then return {'TOO_LARGE', tostring(length)} end
local value = redis.call('GET', KEYS[1])
return {'OK', value and redis.sha1hex(value) or ''}";

/// Replaces the value of a key by the third argument if its digest is still the second argument, which is empty for a
/// key without a value. It fails like [`READ`], and with `CHANGED` and the present digest.
pub const SWAP: &str = r"
local length = redis.call('STRLEN', KEYS[1])
if length > tonumber(ARGV[1]) then return {'TOO_LARGE', tostring(length)} end
local value = redis.call('GET', KEYS[1])
local digest = value and redis.sha1hex(value) or ''
if digest ~= ARGV[2] then return {'CHANGED', digest} end
redis.call('SET', KEYS[1], ARGV[3])
return {'OK', ''}";

/// Adds the first argument, which is not negative, to the number of a key and returns the sum as text. It fails with
/// `NEGATIVE`, and changes nothing, when the sum is below zero.
pub const INCREMENT_UNSIGNED: &str = r"
redis.call('INCRBY', KEYS[1], ARGV[1])
local sum = redis.call('GET', KEYS[1])
if string.sub(sum, 1, 1) ~= '-' then return {'OK', sum} end
redis.call('DECRBY', KEYS[1], ARGV[1])
return {'NEGATIVE', ''}";

/// Returns a cursor and keys of values: the arguments are a cursor, a pattern, the maximum length of a key, and the two
/// numbers of [`SCAN`]. Longer keys, which no component can use, are left out.
pub const LIST: &str = r"
local cursor, found = ARGV[1], {}
for _ = 1, tonumber(ARGV[5]) do
  local page = redis.call('SCAN', cursor, 'MATCH', ARGV[2], 'COUNT', ARGV[4], 'TYPE', 'string')
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    if #key <= tonumber(ARGV[3]) then table.insert(found, key) end
  end
  if cursor == '0' or #found > 0 then break end
end
table.insert(found, 1, cursor)
return found";

/// Returns the pattern that matches the keys with a prefix.
#[must_use]
pub fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

/// Returns the maximum size in bytes of the values of a reply with `keys` values.
#[must_use]
pub fn values_size(keys: usize) -> usize {
    keys.saturating_mul(MAX_VALUE).min(MAX_RESULT)
}

/// Returns the key of a component; `None` when the server's key does not begin with the prefix, or is not text or too
/// long.
#[must_use]
pub fn component_key<'a>(key: &'a [u8], prefix: &str) -> Option<&'a str> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix(prefix)?;
    Some(key).filter(|key| key.len() <= MAX_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_matched_literally() {
        for (prefix, expected) in [
            ("", "*"),
            ("shop:", "shop:*"),
            ("a*b?[c-d]^\\", r"a\*b\?\[c-d\]\^\\*"),
            ("\u{fc}:", "\u{fc}:*"),
        ] {
            assert_eq!(pattern(prefix), expected);
        }
    }

    #[test]
    fn keys_that_no_component_wrote_are_left_out() {
        assert_eq!(component_key(b"shop:k", "shop:"), Some("k"));
        assert_eq!(component_key(b"shop:", "shop:"), Some(""));
        assert_eq!(component_key(b"other:k", "shop:"), None);
        assert_eq!(component_key(b"shop:\xff", "shop:"), None);
        let long = "k".repeat(1_025);
        assert_eq!(component_key(long.as_bytes(), ""), None);
        assert_eq!(component_key(long.as_bytes(), "k"), long.get(1..));
    }

    #[test]
    fn a_reply_has_at_most_16_mib_of_values() {
        assert_eq!(values_size(1), 1 << 20);
        assert_eq!(values_size(16), 16 << 20);
        assert_eq!(values_size(1_000), 16 << 20);
    }
}
