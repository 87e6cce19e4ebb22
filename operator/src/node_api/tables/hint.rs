//! Hints: a rollback that is told to the nodes beside the status write.

use node_api::{FencingToken, v1};
use tokio::time::Instant;

use super::super::placement::Placement;
use super::{Change, Entry, FunctionKey, State, Tables, token_of};

/// Why a hint was not sent.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HintRefused {
    /// The function is not in this replica's tables.
    #[error("unknown function")]
    UnknownFunction,
    /// A hint may only lower a candidate's weight.
    #[error("it would not lower the candidate's weight")]
    NotLower,
    /// The pair is not above the one the nodes have.
    #[error("the pair is not newer")]
    OldPair,
}

impl Tables {
    /// Tells the nodes of this replica at once that a candidate's weight is lower, and keeps it: a
    /// record with a smaller pair that comes later does not undo it.
    ///
    /// # Errors
    /// Nothing was sent.
    pub(in crate::node_api) fn hint(&self, hint: &v1::ShareUpdate) -> Result<(), HintRefused> {
        self.lock().hint(hint, Instant::now())
    }
}

impl State {
    fn hint(&mut self, hint: &v1::ShareUpdate, now: Instant) -> Result<(), HintRefused> {
        let key = hint
            .key
            .as_ref()
            .map(FunctionKey::from)
            .ok_or(HintRefused::UnknownFunction)?;
        let old = self
            .functions
            .get(&key)
            .ok_or(HintRefused::UnknownFunction)?;
        let share = hint.share.as_ref().ok_or(HintRefused::NotLower)?;
        let held = old.record.share.clone().unwrap_or_default();
        if !lowers(&held, share) {
            return Err(HintRefused::NotLower);
        }
        let token = share.pair.map(FencingToken::from);
        if token <= token_of(&old.record) {
            return Err(HintRefused::OldPair);
        }
        let mut record = old.record.clone();
        record.share = Some(share.clone());
        let placement = old.placement.clone();
        let entry = Entry::new(record, placement).map_err(|_| HintRefused::NotLower)?;
        for stream in self.streams.values() {
            if entry.placement.includes(stream.node()) {
                stream.push_hint(&key, hint.clone());
                // a node in the middle of a snapshot may not have the function yet when the hint comes
                stream.push(&key, Change::Share);
            }
        }
        let version = self.advance(0);
        self.log
            .note(&key, version, Placement::nowhere(), false, now);
        self.functions.insert(key, entry);
        Ok(())
    }
}

/// Same stable, same candidate or none, and no wave with more than before.
fn lowers(held: &v1::Share, hinted: &v1::Share) -> bool {
    let candidate = hinted.candidate.is_empty() || hinted.candidate == held.candidate;
    let wave = |share: &v1::Share, name: &str| {
        let found = share.waves.iter().find(|wave| wave.wave == name);
        found.map_or(share.weight, |wave| wave.weight)
    };
    let names = held
        .waves
        .iter()
        .chain(&hinted.waves)
        .map(|wave| &wave.wave);
    let mut lower_everywhere = hinted.weight <= held.weight;
    for name in names {
        lower_everywhere &= wave(hinted, name) <= wave(held, name);
    }
    !hinted.stable.is_empty() && hinted.stable == held.stable && candidate && lower_everywhere
}
