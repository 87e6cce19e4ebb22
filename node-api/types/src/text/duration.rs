use std::fmt;
use std::str::FromStr;

/// Duration in whole milliseconds, written like `250ms`, `5s`, `1m30s` or `2h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    millis: u64,
}

/// Error of parsing a [`Duration`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// The text is empty.
    Empty,
    /// The text is not a sequence of numbers with units, largest unit first, each at most once.
    Form,
    /// A number has more than five digits.
    TooLong,
}

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const DIGITS: usize = 5;

impl Duration {
    /// Creates a duration of `millis` milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// Creates a duration of `secs` seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self {
            millis: secs.saturating_mul(1_000),
        }
    }

    /// Returns the duration in milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.millis
    }

    /// Converts to the standard library's type.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.millis)
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text.is_empty() {
            return Err(DurationError::Empty);
        }
        let (mut rest, mut millis, mut next_unit) = (text, 0_u64, 0_usize);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at_checked(digits).ok_or(DurationError::Form)?;
            let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, tail) = tail.split_at_checked(letters).ok_or(DurationError::Form)?;
            if digits > DIGITS {
                return Err(DurationError::TooLong);
            }
            let amount: u64 = number.parse().map_err(|_| DurationError::Form)?;
            let (at, (_, factor)) = (UNITS.iter().enumerate().skip(next_unit))
                .find(|(_, (name, _))| *name == unit)
                .ok_or(DurationError::Form)?;
            millis = millis.saturating_add(amount.saturating_mul(*factor));
            next_unit = at + 1;
            rest = tail;
        }
        Ok(Self { millis })
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis == 0 {
            return f.write_str("0s");
        }
        let mut left = self.millis;
        for (unit, factor) in UNITS {
            if left >= factor {
                write!(f, "{}{unit}", left / factor)?;
                left %= factor;
            }
        }
        Ok(())
    }
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a duration is empty: write one such as 5s",
            Self::Form => "a duration is written like 250ms, 5s, 1m30s or 2h",
            Self::TooLong => "a duration has at most five digits per unit",
        })
    }
}

impl std::error::Error for DurationError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_schema_admits() {
        for (text, millis) in [
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("250ms", 250),
            ("1h2m3s4ms", 3_723_004),
            ("0s", 0),
            ("90m", 5_400_000),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(text.parse(), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "", "5", "s", "-5s", "+5s", "5 s", "1.5h", "5s1m", "5s5s", "5d", "5S", "5µs", "1m٣s",
            "5sm",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
        assert_eq!("100000s".parse::<Duration>(), Err(DurationError::TooLong));
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["5s", "1m30s", "2h", "250ms", "1h2m3s4ms", "0s"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
        assert_eq!("90s".parse::<Duration>().unwrap().to_string(), "1m30s");
    }
}
