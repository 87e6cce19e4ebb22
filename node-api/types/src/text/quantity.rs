use std::fmt;
use std::str::FromStr;

/// Number of bytes, written like `64Mi`, `1.5Gi`, `500k` or `1048576`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity {
    bytes: u64,
}

/// Error of parsing a [`Quantity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuantityError {
    /// The text is not a number with an optional unit.
    Form,
    /// The number of bytes does not fit into 64 bits.
    TooLarge,
}

// longest first, so that `Ki` is not read as `K` and an `i` left over
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

impl Quantity {
    /// Creates a quantity of `bytes` bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self { bytes }
    }

    /// Returns the number of bytes. A fraction of a byte is rounded up, as Kubernetes does.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.bytes
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
            .unwrap_or((text, 1));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str, most: usize| {
            (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
        };
        if !digits(whole, 12) || !digits(fraction, 3) {
            return Err(QuantityError::Form);
        }
        let whole: u128 = whole.parse().map_err(|_| QuantityError::Form)?;
        let scale = [1, 10, 100, 1_000]
            .get(fraction.len())
            .copied()
            .unwrap_or(1_000_u128);
        let fraction: u128 = fraction.parse().map_err(|_| QuantityError::Form)?;
        let bytes = whole * u128::from(factor) + (fraction * u128::from(factor)).div_ceil(scale);
        match u64::try_from(bytes) {
            Ok(bytes) => Ok(Self { bytes }),
            Err(_) => Err(QuantityError::TooLarge),
        }
    }
}

impl fmt::Display for Quantity {
    /// Largest binary unit that divides the number of bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .take(4)
            .rev()
            .find(|(_, factor)| self.bytes != 0 && self.bytes.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", self.bytes / factor),
            None => write!(f, "{}", self.bytes),
        }
    }
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a size is written like 64Mi, 1.5Gi or 500k",
            Self::TooLarge => "a size has more bytes than can be counted",
        })
    }
}

impl std::error::Error for QuantityError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_binary_and_decimal_units() {
        for (text, bytes) in [
            ("64Mi", 67_108_864),
            ("1.5Gi", 1_610_612_736),
            ("500k", 500_000),
            ("1048576", 1_048_576),
            ("0", 0),
            ("0.001", 1),
            ("4Gi", 4_294_967_296),
            ("2T", 2_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Quantity::from_bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "", "Mi", "-1Mi", "1 Mi", "1mi", "1K", "1e6", "1.", ".5Gi", "1.2345Gi", "1MiB", "0x10",
            "1Ei",
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Form), "{text}");
        }
        assert_eq!(
            "999999999999Ti".parse::<Quantity>(),
            Err(QuantityError::TooLarge)
        );
    }

    #[test]
    fn writes_the_largest_unit() {
        for text in ["64Mi", "1536Mi", "4Gi", "1000", "0", "3Ti"] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), text);
        }
    }
}
