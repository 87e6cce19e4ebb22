//! Bounds of what a Redis server sends, checked before a parser sees it. The user of a namespace chooses the server, so
//! it may be hostile: a parser reserves memory for as many elements as a reply announces.

/// Maximum number of elements that the arrays of a reply announce together.
const MAX_ELEMENTS: u64 = 2_048;
/// Maximum length of a line: a number, a status, or the text of an error. In bytes.
const MAX_LINE: usize = 4 << 10;
/// Maximum length of a value that a reply announces, in bytes. Values are shorter; see `MAX_VALUE`.
const MAX_BULK: u64 = 2 << 20;

/// Why a reply is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReply {
    /// The reply has more bytes than the operations that wait for it may return.
    #[error("the reply is larger than the operation allows")]
    TooLarge,
    /// The reply announces more elements or longer parts than any operation returns.
    #[error("the reply announces too many elements, or a part that is too long")]
    Announced,
    /// The bytes are not a reply of protocol version 2.
    #[error("the bytes are no reply of Redis")]
    NotAReply,
}

/// Checks the bytes of replies of protocol version 2 (RESP2) in the order in which they arrive, in parts of any size.
#[derive(Debug, Default)]
pub struct ReplyGuard {
    state: State,
    /// Number of elements that are still expected of the present reply.
    elements: u64,
    /// Number of bytes that may still arrive.
    allowed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the type of an element.
    #[default]
    Start,
    /// In the line after the type.
    Line {
        kind: u8,
        length: usize,
        /// Number in the line; `None` after another character than a digit.
        number: Option<u64>,
        negative: bool,
    },
    /// In a value and the end of line after it.
    Bulk(u64),
}

impl ReplyGuard {
    /// Allows the bytes of one more reply, but at most `limit` in all.
    pub fn allow(&mut self, bytes: u64, limit: u64) {
        self.allowed = self.allowed.saturating_add(bytes).min(limit);
    }

    /// Checks the next bytes.
    ///
    /// # Errors
    /// Fails when there are more bytes than are allowed, or when they announce more than any operation returns. The
    /// connection must not be used afterwards.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), InvalidReply> {
        let left = self.allowed.checked_sub(bytes.len() as u64);
        self.allowed = left.ok_or(InvalidReply::TooLarge)?;
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            if let State::Bulk(left) = self.state {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                rest = rest.get(here..).unwrap_or_default();
                self.state = match left - here as u64 {
                    0 => State::Start,
                    left => State::Bulk(left),
                };
                continue;
            }
            self.state = self.after(*first)?;
            rest = after;
        }
        Ok(())
    }

    /// Returns the state after one byte that is not part of a value.
    fn after(&mut self, byte: u8) -> Result<State, InvalidReply> {
        let (kind, length, number, negative) = match self.state {
            State::Line {
                kind,
                length,
                number,
                negative,
            } => (kind, length, number, negative),
            State::Start | State::Bulk(_) => return self.start(byte),
        };
        if length == MAX_LINE {
            return Err(InvalidReply::Announced);
        }
        let line = |number, negative| State::Line {
            kind,
            length: length + 1,
            number,
            negative,
        };
        Ok(match byte {
            b'\n' => self.end_of_line(kind, number, negative)?,
            b'\r' => line(number, negative),
            b'-' if length == 0 => line(number, true),
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                let number = number.and_then(|number| number.checked_mul(10)?.checked_add(digit));
                line(number, negative)
            }
            _ => line(None, negative),
        })
    }

    fn start(&mut self, byte: u8) -> Result<State, InvalidReply> {
        if !matches!(byte, b'+' | b'-' | b':' | b'$' | b'*') {
            return Err(InvalidReply::NotAReply);
        }
        self.elements = self.elements.saturating_sub(1);
        Ok(State::Line {
            kind: byte,
            length: 0,
            number: Some(0),
            negative: false,
        })
    }

    fn end_of_line(
        &mut self,
        kind: u8,
        number: Option<u64>,
        negative: bool,
    ) -> Result<State, InvalidReply> {
        if !matches!(kind, b'$' | b'*') || negative {
            return Ok(State::Start);
        }
        let number = number.ok_or(InvalidReply::NotAReply)?;
        if kind == b'$' {
            if number > MAX_BULK {
                return Err(InvalidReply::Announced);
            }
            return Ok(State::Bulk(number + 2));
        }
        self.elements = self.elements.saturating_add(number);
        if self.elements > MAX_ELEMENTS {
            return Err(InvalidReply::Announced);
        }
        Ok(State::Start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the bytes at once, and in parts of each size.
    fn check(bytes: &[u8]) -> Result<(), InvalidReply> {
        let in_parts = |size: usize| {
            let mut guard = ReplyGuard::default();
            guard.allow(1 << 20, 1 << 20);
            bytes.chunks(size).try_for_each(|part| guard.check(part))
        };
        let whole = in_parts(bytes.len().max(1));
        for size in 1..bytes.len().min(8) {
            assert_eq!(in_parts(size), whole, "in parts of {size} bytes");
        }
        whole
    }

    #[test]
    fn replies_of_the_server_pass() {
        for reply in [
            "",
            "+OK\r\n",
            "-ERR no -1 such $9999999999 *9999 thing\r\n",
            ":-42\r\n:18446744073709551615\r\n",
            "$5\r\n*9999\r\n$-1\r\n",
            "$0\r\n\r\n*0\r\n*-1\r\n",
            "*3\r\n$2\r\nOK\r\n*2\r\n:1\r\n:2\r\n$-1\r\n+PONG\r\n",
            "*2048\r\n",
        ] {
            assert_eq!(check(reply.as_bytes()), Ok(()), "{reply:?}");
        }
        let many = "*2\r\n:1\r\n:2\r\n".repeat(3_000);
        assert_eq!(
            check(many.as_bytes()),
            Ok(()),
            "elements of one reply count"
        );
    }

    /// HE-11: each of these makes a parser reserve memory that no reply needs.
    #[test]
    fn announcements_of_a_hostile_server_are_refused() {
        let line = format!("+{}\r\n", "x".repeat(5_000));
        for (reply, error) in [
            ("*1000000000\r\n", InvalidReply::Announced),
            ("*3\r\n*2047\r\n", InvalidReply::Announced),
            ("$536870912\r\n", InvalidReply::Announced),
            (line.as_str(), InvalidReply::Announced),
            ("*99999999999999999999999\r\n", InvalidReply::NotAReply),
            ("*x\r\n", InvalidReply::NotAReply),
            ("%1\r\n", InvalidReply::NotAReply),
            (">2\r\n", InvalidReply::NotAReply),
            ("HTTP/1.1 200 OK\r\n", InvalidReply::NotAReply),
        ] {
            assert_eq!(check(reply.as_bytes()), Err(error), "{reply:?}");
        }
    }

    #[test]
    fn more_bytes_than_the_operations_may_return_are_refused() {
        let mut guard = ReplyGuard::default();
        assert_eq!(guard.check(b"+OK\r\n"), Err(InvalidReply::TooLarge));
        let mut guard = ReplyGuard::default();
        guard.allow(5, 8);
        guard.allow(5, 8);
        assert_eq!(guard.check(b"+OK\r\n"), Ok(()));
        assert_eq!(guard.check(b"+OK\r\n"), Err(InvalidReply::TooLarge));
    }
}
