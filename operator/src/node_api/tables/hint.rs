//! Hints: messages that send a rollback to the nodes in parallel to the status write.

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
    /// The hint would not lower a candidate's weight.
    #[error("it would not lower the candidate's weight")]
    NotLower,
    /// The fencing token is not higher than that of the nodes.
    #[error("the fencing token is not newer")]
    OldToken,
}

impl Tables {
    /// Sends the nodes of this replica the lower weight of a candidate at once, and keeps it: a later record with a
    /// lower fencing token does not undo it.
    ///
    /// # Errors
    /// The hint is refused; nothing was sent.
    pub(in crate::node_api) fn hint(&self, hint: &v1::SplitUpdate) -> Result<(), HintRefused> {
        self.lock().hint(hint, Instant::now())
    }
}

impl State {
    fn hint(&mut self, hint: &v1::SplitUpdate, now: Instant) -> Result<(), HintRefused> {
        let key = hint
            .key
            .as_ref()
            .map(FunctionKey::from)
            .ok_or(HintRefused::UnknownFunction)?;
        let old = self
            .functions
            .get(&key)
            .ok_or(HintRefused::UnknownFunction)?;
        let split = hint.split.as_ref().ok_or(HintRefused::NotLower)?;
        let held = old.record.split.clone().unwrap_or_default();
        if !lowers(&held, split) {
            return Err(HintRefused::NotLower);
        }
        let token = split.token.map(FencingToken::from);
        if token <= token_of(&old.record) {
            return Err(HintRefused::OldToken);
        }
        let mut record = old.record.clone();
        record.split = Some(split.clone());
        let placement = old.placement.clone();
        let entry = Entry::new(record, placement).map_err(|_| HintRefused::NotLower)?;
        let entry = entry.with_remote_of(old);
        for stream in self.streams.values() {
            if entry.placement.includes(stream.node()) {
                stream.push_hint(&key, hint.clone());
                // A node that is still receiving a snapshot may not have the function yet when the hint arrives.
                stream.push(&key, Change::Split);
            }
        }
        let version = self.advance(0);
        self.log
            .note(&key, version, Placement::nowhere(), false, now);
        self.functions.insert(key, entry);
        Ok(())
    }
}

/// Whether stable is the same, the candidate is the same or absent, and no wave has more weight than before.
fn lowers(held: &v1::TrafficSplit, hinted: &v1::TrafficSplit) -> bool {
    let candidate = hinted.candidate.is_empty() || hinted.candidate == held.candidate;
    let wave = |split: &v1::TrafficSplit, name: &str| {
        let found = split.waves.iter().find(|wave| wave.wave == name);
        found.map_or(split.weight, |wave| wave.weight)
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
