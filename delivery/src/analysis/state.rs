//! Persisted form of the analysis: a short text from which a restarted operator continues.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Serialize;

use crate::samples::{Baseline, Tracker};

use super::backstop::{Backstop, PersistedBackstop};
use super::sequential::{self, Test};
use super::{Analysis, AnalysisPlan, WHOLE};

/// Maximum length of the text, in characters.
pub const STATE_MAX: usize = 4096;
/// Maximum number of bytes before they are encoded as text.
const BYTES_MAX: usize = STATE_MAX / 4 * 3;
/// Number of bytes before the analysis (the version) and between it and the baselines (their number).
const FRAME: usize = 4;
/// Version of the format. Raise it with every change of what is persisted, because the encoding does not describe itself.
const VERSION: u8 = 5;

/// The persisted parts, in their order.
type Parts = (Analysis, Option<PersistedBackstop>, Vec<(String, Baseline)>);

/// Reason why a persisted text cannot be used. The rollout then starts without evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another version of the operator wrote the text.
    #[error("the evidence was written by an unknown version ({0})")]
    Version(u8),
    /// No version of the operator writes such a text.
    #[error("the evidence is damaged")]
    Damaged,
}

impl Analysis {
    /// Encodes the analysis as text of at most [`STATE_MAX`] characters. The evidence is encoded without loss. Baselines
    /// follow as far as they fit, in the order of node names.
    #[must_use]
    pub fn encode(&self) -> String {
        let backstop = self.backstop.as_ref().map(Backstop::persisted);
        let mut left = BYTES_MAX.saturating_sub(FRAME + size(self) + size(&backstop));
        let all: Vec<(&String, &Baseline)> = self.tracker.baselines().collect();
        // either all boots of a process or none: a boot that is missing next to an older one would seem to have just started
        let fitting = all.chunk_by(|a, b| a.0 == b.0).take_while(|boots| {
            let rest = left.checked_sub(boots.iter().map(size).sum());
            left = rest.unwrap_or(0);
            rest.is_some()
        });
        let baselines: Vec<&(&String, &Baseline)> = fitting.flatten().collect();
        // writing to memory cannot fail
        let bytes =
            postcard::to_extend(&(self, backstop, baselines), vec![VERSION]).unwrap_or_default();
        STANDARD_NO_PAD.encode(bytes)
    }

    /// Decodes the text of [`Self::encode`]. `plan` must be the plan that the analysis was started with.
    ///
    /// # Errors
    /// [`StateError`] if the text is damaged or of an unknown version.
    pub fn decode(plan: &AnalysisPlan, text: &str) -> Result<Self, StateError> {
        let bytes = STANDARD_NO_PAD
            .decode(text)
            .map_err(|_| StateError::Damaged)?;
        let (version, bytes) = bytes.split_first().ok_or(StateError::Damaged)?;
        if *version != VERSION {
            return Err(StateError::Version(*version));
        }
        let ((analysis, backstop, baselines), rest): (Parts, _) =
            postcard::take_from_bytes(bytes).map_err(|_| StateError::Damaged)?;
        let mut analysis = Self {
            plan: plan.clone(),
            tracker: Tracker::resume(baselines),
            ..analysis
        };
        let sound = rest.is_empty() && analysis.restore();
        let Some(persisted) = backstop.filter(|_| sound) else {
            return sound.then_some(analysis).ok_or(StateError::Damaged);
        };
        let tests = &analysis.tests;
        analysis.backstop = Backstop::resume(plan, tests, persisted);
        let complete = analysis.backstop.is_some();
        complete.then_some(analysis).ok_or(StateError::Damaged)
    }

    /// Adds the parts that follow from the plan. Returns `false` if the text does not match the plan.
    fn restore(&mut self) -> bool {
        let (plan, step) = (&self.plan, &self.step);
        let mut sound = step.weight <= WHOLE && step.next.is_none_or(|next| next <= WHOLE);
        for test in &mut self.tests {
            let dispersion = test.process.settings().dispersion;
            let fresh = Test::new(plan, test.event, test.part, 0.5, dispersion);
            sound &= (0.0..=1.0).contains(&test.part);
            sound &= test.process.restore(*fresh.process.settings());
            sound &= match (&mut test.slo, fresh.slo) {
                (Some(slo), Some(fresh)) => {
                    slo.relative.restore(*fresh.relative.settings())
                        && slo.stable.restore(*fresh.stable.settings())
                }
                (slo, _) => slo.is_none(),
            };
        }
        for pass in &mut self.pass {
            let Some(next) = step.next else { return false };
            let dispersion = pass.process.settings().dispersion;
            let settings = sequential::pass_settings(plan, pass.event.metric, next, dispersion);
            sound &= pass.process.restore(settings);
        }
        sound
    }
}

fn size(value: &impl Serialize) -> usize {
    postcard::to_allocvec(value).map_or(BYTES_MAX, |bytes| bytes.len())
}
