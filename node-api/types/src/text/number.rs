use std::fmt;
use std::str::FromStr;

/// Non-negative decimal, written as text because Kubernetes APIs avoid floating-point fields: `1`, `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Number {
    value: f64,
}

/// Error of parsing a [`Number`]: the text is not a non-negative decimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberError;

impl Number {
    /// Returns the value, which is finite and not negative.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.value
    }
}

impl FromStr for Number {
    type Err = NumberError;

    fn from_str(text: &str) -> Result<Self, NumberError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str| (1..=6).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) {
            return Err(NumberError);
        }
        text.parse()
            .map(|value| Self { value })
            .map_err(|_| NumberError)
    }
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number is written like \"1\" or \"1.5\"")
    }
}

impl std::error::Error for NumberError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_decimals_only() {
        assert_eq!("1.5".parse::<Number>().map(Number::get), Ok(1.5));
        assert_eq!("0".parse::<Number>().map(Number::get), Ok(0.0));
        for text in [
            "",
            "-1",
            "1e9",
            "NaN",
            "inf",
            ".5",
            "1.",
            "1,5",
            "1.1234567",
        ] {
            assert_eq!(text.parse::<Number>(), Err(NumberError), "{text}");
        }
    }
}
