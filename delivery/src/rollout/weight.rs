//! Weight of a revision: its share of the requests, in basis points (1/10,000).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Share of the requests in basis points (1/10,000), at most [`Weight::FULL`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Weight(u32);

impl Weight {
    /// No requests.
    pub const ZERO: Self = Self(0);
    /// All requests.
    pub const FULL: Self = Self(10_000);

    /// Creates a weight from basis points. Values above 10,000 become 10,000.
    #[must_use]
    pub const fn new(parts: u32) -> Self {
        Self(if parts > 10_000 { 10_000 } else { parts })
    }

    /// Creates a weight from whole percent. Values above 100 become 100.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self::new(percent.saturating_mul(100))
    }

    /// Creates a weight from a share (0 to 1), rounded to the nearest basis point. NaN becomes zero.
    #[must_use]
    pub fn from_share(share: f64) -> Self {
        if share.is_nan() {
            return Self::ZERO;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=10000 before the cast"
        )]
        Self((share.clamp(0.0, 1.0) * 10_000.0).round() as u32)
    }

    /// Returns the weight in basis points.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// Returns the weight as a share (0 to 1).
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// Returns the weight that remains for the other revision.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(10_000 - self.0)
    }

    /// Whether `part` of `whole` is at least this share. It always is if `whole` is 0.
    #[must_use]
    pub fn reached(self, part: u32, whole: u32) -> bool {
        u64::from(part) * 10_000 >= u64::from(whole) * u64::from(self.0)
    }
}

impl fmt::Display for Weight {
    /// Formats as `5 %` or `0.25 %`, with at most two decimals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => write!(f, "{whole} %"),
            p if p.is_multiple_of(10) => write!(f, "{whole}.{} %", p / 10),
            p => write!(f, "{whole}.{p:02} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_rounded_and_formatted() {
        assert_eq!(Weight::percent(5).to_string(), "5 %");
        assert_eq!(Weight::new(25).to_string(), "0.25 %");
        assert_eq!(Weight::new(1250).to_string(), "12.5 %");
        assert_eq!(Weight::new(99_999), Weight::FULL);
        assert_eq!(Weight::from_share(f64::NAN), Weight::ZERO);
        assert_eq!(Weight::from_share(0.333_333), Weight::new(3333));
    }

    #[test]
    fn reached_compares_a_part_with_the_whole() {
        assert!(Weight::new(9500).reached(0, 0));
        assert!(Weight::new(9500).reached(19, 20));
        assert!(!Weight::new(9500).reached(18, 19));
    }
}
