//! Distributes the leader's hints to the nodes of all replicas.

use std::collections::BTreeMap;

use node_api::v1;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Fleet, HintRefused};

/// Maximum number of hints queued for one relay. A relay that is further behind receives the status write instead.
const WAITING: usize = 1_024;

/// The relays of the other replicas.
#[derive(Default)]
pub(super) struct Relays(Mutex<Numbered>);

#[derive(Default)]
struct Numbered {
    next: u64,
    senders: BTreeMap<u64, mpsc::Sender<v1::SplitUpdate>>,
}

impl Fleet {
    /// Fast path of a rollback: sends every node, directly and through the other replicas, the lower weight of a
    /// candidate while the status write is still in progress. The fencing token is used up even when that write
    /// fails.
    ///
    /// # Errors
    /// The hint would not lower the weight, or its fencing token is not newer; nothing was sent.
    pub fn hint(&self, hint: &v1::SplitUpdate) -> Result<(), HintRefused> {
        self.0.tables.hint(hint)?;
        let mut relays = self.0.relays.0.lock();
        relays.senders.retain(|_, sender| {
            !matches!(
                sender.try_send(hint.clone()),
                Err(mpsc::error::TrySendError::Closed(_))
            )
        });
        Ok(())
    }

    /// Returns all further hints for one other replica; ends when the receiver is dropped.
    pub(in crate::node_api) fn hints(&self) -> mpsc::Receiver<v1::SplitUpdate> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut relays = self.0.relays.0.lock();
        let number = relays.next;
        relays.next += 1;
        relays.senders.retain(|_, sender| !sender.is_closed());
        relays.senders.insert(number, sender);
        receiver
    }
}
