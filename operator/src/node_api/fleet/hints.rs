//! The leader's hints on their way to the nodes of all replicas.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use node_api::v1;
use tokio::sync::mpsc;

use super::{Fleet, HintRefused};

/// Hints that wait for one relay; a relay that is this far behind gets the status write instead.
const WAITING: usize = 1_024;

/// The relays of the other replicas.
#[derive(Default)]
pub(super) struct Relays(Mutex<Numbered>);

#[derive(Default)]
struct Numbered {
    next: u64,
    senders: BTreeMap<u64, mpsc::Sender<v1::ShareUpdate>>,
}

impl Fleet {
    /// The rollback's fast lane: tells every node, here and by the other replicas, that a candidate's
    /// weight is lower, while the status write is still under way. The pair is burned by this even
    /// when that write fails.
    ///
    /// # Errors
    /// The hint would not lower the weight, or its pair is not newer; nothing was sent.
    pub fn hint(&self, hint: &v1::ShareUpdate) -> Result<(), HintRefused> {
        self.0.tables.hint(hint)?;
        let mut relays = self
            .0
            .relays
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        relays.senders.retain(|_, sender| {
            !matches!(
                sender.try_send(hint.clone()),
                Err(mpsc::error::TrySendError::Closed(_))
            )
        });
        Ok(())
    }

    /// Hints from now on, for one other replica; ends when the receiver is dropped.
    pub(in crate::node_api) fn hints(&self) -> mpsc::Receiver<v1::ShareUpdate> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut relays = self
            .0
            .relays
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let number = relays.next;
        relays.next += 1;
        relays.senders.retain(|_, sender| !sender.is_closed());
        relays.senders.insert(number, sender);
        receiver
    }
}
