use std::fmt;
use std::str::FromStr;

/// Part of a whole in basis points (1/10,000), written as a percentage with at most two decimals: `5%`, `0.25%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percentage {
    parts: u32,
}

/// Error of parsing a [`Percentage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PercentageError {
    /// The text is not a percentage.
    Form,
    /// The percentage is above 100 %.
    TooLarge,
}

impl Percentage {
    /// The whole: 100 %.
    pub const WHOLE: Self = Self { parts: 10_000 };

    /// Creates a percentage from basis points. Returns `None` above 10,000.
    #[must_use]
    pub const fn from_parts(parts: u32) -> Option<Self> {
        if parts > 10_000 {
            None
        } else {
            Some(Self { parts })
        }
    }

    /// Returns the percentage in basis points, 0 to 10,000.
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

impl FromStr for Percentage {
    type Err = PercentageError;

    fn from_str(text: &str) -> Result<Self, PercentageError> {
        let number = text.strip_suffix('%').ok_or(PercentageError::Form)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 3) || !digits(decimals, 2) {
            return Err(PercentageError::Form);
        }
        let whole: u32 = whole.parse().map_err(|_| PercentageError::Form)?;
        let scale = if decimals.len() == 1 { 10 } else { 1 };
        let hundredths = decimals.parse::<u32>().map_err(|_| PercentageError::Form)? * scale;
        Self::from_parts(whole * 100 + hundredths).ok_or(PercentageError::TooLarge)
    }
}

impl fmt::Display for Percentage {
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

impl fmt::Display for PercentageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "the value is a percentage with at most two decimals, such as 5% or 0.25%"
            }
            Self::TooLarge => "the value is at most 100%",
        })
    }
}

impl std::error::Error for PercentageError {}

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
                text.parse::<Percentage>().map(Percentage::as_parts),
                Ok(parts),
                "{text}"
            );
            assert_eq!(text.parse::<Percentage>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "", "%", "5", "-5%", "5 %", "0.125%", ".5%", "5.%", "1e1%", "Auto",
        ] {
            assert_eq!(
                text.parse::<Percentage>(),
                Err(PercentageError::Form),
                "{text}"
            );
        }
        assert_eq!(
            "100.01%".parse::<Percentage>(),
            Err(PercentageError::TooLarge)
        );
    }
}
