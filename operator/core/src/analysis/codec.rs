//! Bytes of the persisted state: the smallest writer and reader that keep every bit of a stake.

use jiff::Timestamp;

use super::figures::{ArmSums, Metric};
use super::suite::Event;
use crate::stats::Increment;

/// Sums are shown to people only; fractions come from nodes whose word is limited.
const FRACTIONS: f64 = 16.0;

/// Why a persisted text cannot be continued from. The rollout starts its evidence afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by another version.
    #[error("the evidence was written by an unknown version ({0})")]
    Version(u8),
    /// Not what any version writes.
    #[error("the evidence is damaged")]
    Damaged,
}

#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    /// Seven bits a byte, smallest first.
    pub(super) fn whole(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0]);
    }

    pub(super) fn exact(&mut self, value: f64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn time(&mut self, value: Timestamp) {
        // milliseconds are what snapshots and looks have; every timestamp of ours is after 1970
        self.whole(u64::try_from(value.as_millisecond()).unwrap_or(0));
    }

    pub(super) fn text(&mut self, value: &str) {
        self.whole(value.len() as u64);
        self.0.extend(value.as_bytes());
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn sums(&mut self, sums: ArmSums) {
        self.whole(sums.requests);
        self.whole(sums.errors);
        self.whole(sums.client_errors);
    }

    pub(super) fn increment(&mut self, increment: &Increment) {
        for count in [
            increment.candidate_requests,
            increment.candidate_events,
            increment.stable_requests,
            increment.stable_events,
        ] {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counts are not negative and far below 2^60"
            )]
            self.whole((count * FRACTIONS).round() as u64);
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.byte(match event.metric {
            Metric::Errors => 0,
            Metric::Latency => 1,
            Metric::ClientErrors => 2,
            Metric::SloErrors => 3,
            Metric::SloLatency => 4,
        });
        self.option(event.bucket, |w, bucket| w.whole(bucket as u64));
    }
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn byte(&mut self) -> Result<u8, StateError> {
        let (first, rest) = self.0.split_first().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn flag(&mut self) -> Result<bool, StateError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(StateError::Damaged),
        }
    }

    pub(super) fn whole(&mut self) -> Result<u64, StateError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(StateError::Damaged)
    }

    pub(super) fn small(&mut self) -> Result<u32, StateError> {
        u32::try_from(self.whole()?).map_err(|_| StateError::Damaged)
    }

    /// Length of a list. Nothing of ours is longer than the text that holds it.
    pub(super) fn length(&mut self) -> Result<usize, StateError> {
        let length = usize::try_from(self.whole()?).map_err(|_| StateError::Damaged)?;
        if length > super::STATE_MAX {
            return Err(StateError::Damaged);
        }
        Ok(length)
    }

    pub(super) fn exact(&mut self) -> Result<f64, StateError> {
        let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or(StateError::Damaged)?;
        self.0 = rest;
        Ok(f64::from_le_bytes(*bytes))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StateError> {
        let millis = i64::try_from(self.whole()?).map_err(|_| StateError::Damaged)?;
        Timestamp::from_millisecond(millis).map_err(|_| StateError::Damaged)
    }

    pub(super) fn text(&mut self) -> Result<String, StateError> {
        let length = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(StateError::Damaged)?;
        self.0 = rest;
        String::from_utf8(bytes.to_vec()).map_err(|_| StateError::Damaged)
    }

    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StateError>,
    ) -> Result<Option<T>, StateError> {
        self.flag()?.then(|| read(self)).transpose()
    }

    pub(super) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        let length = self.length()?;
        (0..length).map(|_| read(self)).collect()
    }

    pub(super) fn sums(&mut self) -> Result<ArmSums, StateError> {
        Ok(ArmSums {
            requests: self.whole()?,
            errors: self.whole()?,
            client_errors: self.whole()?,
        })
    }

    pub(super) fn increment(&mut self) -> Result<Increment, StateError> {
        let mut count = || Ok(self.whole()? as f64 / FRACTIONS);
        Ok(Increment::new(count()?, count()?, count()?, count()?))
    }

    pub(super) fn event(&mut self) -> Result<Event, StateError> {
        let metric = match self.byte()? {
            0 => Metric::Errors,
            1 => Metric::Latency,
            2 => Metric::ClientErrors,
            3 => Metric::SloErrors,
            4 => Metric::SloLatency,
            _ => return Err(StateError::Damaged),
        };
        let bucket = self.option(Self::length)?;
        Ok(Event::new(metric, bucket))
    }
}
