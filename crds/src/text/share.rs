use std::fmt;
use std::str::FromStr;

/// Part of a whole in basis points (1/10,000), written as a percentage with at most two decimals: `5%`, `0.25%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share {
    parts: u32,
}

/// Error of parsing a [`Share`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShareError {
    /// The text is not a percentage.
    Form,
    /// The percentage is above 100 %.
    TooLarge,
}

impl Share {
    /// The whole: 100 %.
    pub const WHOLE: Self = Self { parts: 10_000 };
    /// Nothing: 0 %.
    pub const NONE: Self = Self { parts: 0 };

    /// Creates a share from basis points. Returns `None` above 10,000.
    #[must_use]
    pub const fn from_parts(parts: u32) -> Option<Self> {
        if parts > 10_000 {
            None
        } else {
            Some(Self { parts })
        }
    }

    /// Returns the share in basis points, 0 to 10,000.
    #[must_use]
    pub const fn as_parts(self) -> u32 {
        self.parts
    }

    /// Returns the share as a fraction between 0 and 1.
    #[must_use]
    pub fn as_fraction(self) -> f64 {
        f64::from(self.parts) / 10_000.0
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let number = text.strip_suffix('%').ok_or(ShareError::Form)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(decimals, 2) {
            return Err(ShareError::Form);
        }
        let whole: u32 = whole.parse().map_err(|_| ShareError::Form)?;
        let scale = if decimals.len() == 1 { 10 } else { 1 };
        let hundredths = decimals.parse::<u32>().map_err(|_| ShareError::Form)? * scale;
        Self::from_parts(whole * 100 + hundredths).ok_or(ShareError::TooLarge)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.parts / 100, self.parts % 100);
        if hundredths == 0 {
            write!(f, "{whole}%")
        } else if hundredths % 10 == 0 {
            write!(f, "{whole}.{}%", hundredths / 10)
        } else {
            write!(f, "{whole}.{hundredths:02}%")
        }
    }
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a share is a percentage with at most two decimals, such as 5% or 0.25%",
            Self::TooLarge => "a share is at most 100%",
        })
    }
}

impl std::error::Error for ShareError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_two_decimals() {
        for (text, parts) in [
            ("5%", 500),
            ("0.25%", 25),
            ("0.5%", 50),
            ("100%", 10_000),
            ("0%", 0),
            ("12.34%", 1_234),
        ] {
            assert_eq!(
                text.parse::<Share>().map(Share::as_parts),
                Ok(parts),
                "{text}"
            );
            assert_eq!(text.parse::<Share>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "", "%", "5", "-5%", "5 %", "0.125%", ".5%", "5.%", "1e1%", "Auto",
        ] {
            assert_eq!(text.parse::<Share>(), Err(ShareError::Form), "{text}");
        }
        assert_eq!("100.01%".parse::<Share>(), Err(ShareError::TooLarge));
    }
}
