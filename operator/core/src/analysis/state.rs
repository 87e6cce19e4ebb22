//! The persisted form: one short text that a restart continues from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Serialize;

use crate::samples::{Baseline, Tracker};

use super::suite::{self, Test};
use super::{Analysis, AnalysisPlan, WHOLE};

/// Number of characters the text has at most.
pub const STATE_MAX: usize = 4096;
/// Number of bytes before they are written as text.
const BYTES_MAX: usize = STATE_MAX / 4 * 3;
/// Bytes before the analysis (its version) and between it and the baselines (how many follow).
const FRAME: usize = 4;
/// The version of the form. Raise it with every change of what is persisted, because the encoding does not describe itself.
const VERSION: u8 = 4;

/// Why a persisted text cannot be continued from. The rollout starts its evidence afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another version of the operator wrote the text.
    #[error("the evidence was written by an unknown version ({0})")]
    Version(u8),
    /// The text is not what any version writes.
    #[error("the evidence is damaged")]
    Damaged,
}

impl Analysis {
    /// Encodes the analysis as text of at most [`STATE_MAX`] characters. Evidence is kept to the last bit. Baselines follow as
    /// far as they fit, in the order of node names.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut left = BYTES_MAX.saturating_sub(FRAME + size(self));
        let baselines: Vec<(&String, &Baseline)> = self
            .tracker
            .baselines()
            .take_while(|one| match left.checked_sub(size(one)) {
                Some(rest) => {
                    left = rest;
                    true
                }
                None => false,
            })
            .collect();
        // nothing here can fail to be written to memory
        let bytes = postcard::to_extend(&(self, baselines), vec![VERSION]).unwrap_or_default();
        STANDARD_NO_PAD.encode(bytes)
    }

    /// Continues from the text of [`Self::encode`]; `plan` must be the plan the analysis was started with.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn decode(plan: &AnalysisPlan, text: &str) -> Result<Self, StateError> {
        let bytes = STANDARD_NO_PAD
            .decode(text)
            .map_err(|_| StateError::Damaged)?;
        let (version, bytes) = bytes.split_first().ok_or(StateError::Damaged)?;
        if *version != VERSION {
            return Err(StateError::Version(*version));
        }
        let ((analysis, baselines), rest): ((Self, Vec<(String, Baseline)>), _) =
            postcard::take_from_bytes(bytes).map_err(|_| StateError::Damaged)?;
        let mut analysis = Self {
            plan: plan.clone(),
            tracker: Tracker::resume(baselines),
            ..analysis
        };
        if rest.is_empty() && analysis.restore() {
            Ok(analysis)
        } else {
            Err(StateError::Damaged)
        }
    }

    /// Completes what was decoded by what follows from the plan. Returns `false` if the two do not fit.
    fn restore(&mut self) -> bool {
        let (plan, step) = (&self.plan, &self.step);
        let mut sound = step.weight <= WHOLE && step.next.is_none_or(|next| next <= WHOLE);
        for test in &mut self.tests {
            let dispersion = test.process.settings().dispersion;
            let fresh = Test::new(plan, test.event, test.part, 0.5, dispersion);
            sound &= (0.0..=1.0).contains(&test.part);
            sound &= test.process.restore(*fresh.process.settings());
            sound &= match (&mut test.promise, fresh.promise) {
                (Some(promise), Some(fresh)) => {
                    promise.relative.restore(*fresh.relative.settings())
                        && promise.stable.restore(*fresh.stable.settings())
                }
                (promise, _) => promise.is_none(),
            };
        }
        for pass in &mut self.pass {
            let Some(next) = step.next else { return false };
            let dispersion = pass.process.settings().dispersion;
            let settings = suite::pass_settings(plan, pass.event.metric, next, dispersion);
            sound &= pass.process.restore(settings);
        }
        if let Some(brake) = &mut self.brake {
            let dispersion = brake.process.settings().dispersion;
            let settings = suite::brake_settings(plan, brake.limit, dispersion);
            sound &= brake.process.restore(settings);
        }
        sound
    }
}

fn size(value: &impl Serialize) -> usize {
    postcard::to_allocvec(value).map_or(BYTES_MAX, |bytes| bytes.len())
}
