//! Shares of requests in 1/10,000.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A share of requests in 1/10,000, never above the whole.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Weight(u32);

impl Weight {
    /// Nobody.
    pub const ZERO: Self = Self(0);
    /// Everybody.
    pub const FULL: Self = Self(10_000);

    /// From 1/10,000; more than everybody is everybody.
    #[must_use]
    pub const fn new(parts: u32) -> Self {
        Self(if parts > 10_000 { 10_000 } else { parts })
    }

    /// From whole percent.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self::new(percent.saturating_mul(100))
    }

    /// From a share of one, rounded to the nearest; what is not a number is nobody.
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

    /// In 1/10,000.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// As a share of one.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// What remains for the other arm.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(10_000 - self.0)
    }

    /// Whether `part` of `whole` is at least this share.
    #[must_use]
    pub fn reached(self, part: u32, whole: u32) -> bool {
        u64::from(part) * 10_000 >= u64::from(whole) * u64::from(self.0)
    }
}

impl fmt::Display for Weight {
    /// `5 %`, `0.25 %`: as many decimals as needed, at most two.
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
    fn reads_like_a_person_writes_it() {
        assert_eq!(Weight::percent(5).to_string(), "5 %");
        assert_eq!(Weight::new(25).to_string(), "0.25 %");
        assert_eq!(Weight::new(1250).to_string(), "12.5 %");
        assert_eq!(Weight::new(99_999), Weight::FULL);
        assert_eq!(Weight::from_share(f64::NAN), Weight::ZERO);
        assert_eq!(Weight::from_share(0.333_333), Weight::new(3333));
    }

    #[test]
    fn a_share_of_none_is_reached() {
        assert!(Weight::new(9500).reached(0, 0));
        assert!(Weight::new(9500).reached(19, 20));
        assert!(!Weight::new(9500).reached(18, 19));
    }
}
