//! A node in simulations.

use std::collections::{BTreeMap, BTreeSet};

use node_api::v1;

use super::super::{Opening, token_of};

/// A node that follows the rules of the contract. The last one cannot forward.
#[derive(Default)]
pub(super) struct Model {
    pub(super) functions: BTreeMap<String, v1::FunctionRecord>,
    pub(super) remote: BTreeMap<String, v1::RemoteFunction>,
    pub(super) forwards: bool,
    pub(super) sets: BTreeMap<u64, Vec<String>>,
    pub(super) addresses: BTreeMap<String, String>,
    pub(super) collecting_remote: Vec<v1::RemoteFunction>,
    pub(super) version: u64,
    pub(super) collecting: Vec<v1::FunctionRecord>,
    pub(super) stream: Option<(usize, Opening, u64)>,
    pub(super) heard_of: BTreeSet<String>,
}

fn name_of(key: Option<&v1::FunctionKey>) -> String {
    key.unwrap().name.clone()
}

fn serial_of(token: Option<v1::FencingToken>) -> u64 {
    token.map_or(0, |token| token.serial)
}

pub(super) fn serial(record: &v1::FunctionRecord) -> u64 {
    token_of(record).unwrap().serial
}

impl Model {
    fn offer(&mut self, record: v1::FunctionRecord) {
        let name = name_of(record.key.as_ref());
        self.heard_of.insert(name.clone());
        let newer = self.functions.get(&name).is_none_or(|have| {
            if have.uid == record.uid {
                serial(&record) >= serial(have)
            } else {
                record.version >= have.version
            }
        });
        if newer {
            self.remote.remove(&name);
            self.functions.insert(name, record);
        }
    }

    fn offer_remote(&mut self, remote: v1::RemoteFunction) {
        let name = name_of(remote.key.as_ref());
        assert!(
            self.sets.contains_key(&remote.node_set),
            "in the same batch"
        );
        let have = self.functions.get(&name);
        if have.is_some_and(|have| remote.version < have.version) {
            return;
        }
        let have = self.remote.get(&name);
        let newer = have.is_none_or(|have| {
            if have.uid == remote.uid {
                serial_of(remote.accepted) >= serial_of(have.accepted)
            } else {
                remote.version >= have.version
            }
        });
        if newer {
            self.functions.remove(&name);
            self.remote.insert(name, remote);
        }
    }

    fn learn_addresses(&mut self, batch: &v1::Batch) {
        if batch.addresses_complete {
            self.addresses.clear();
        }
        for address in &batch.addresses {
            let (node, ip) = (address.node.clone(), address.address.clone());
            if ip.is_empty() {
                self.addresses.remove(&node);
            } else {
                self.addresses.insert(node, ip);
            }
        }
    }

    pub(super) fn lower(&mut self, update: v1::SplitUpdate) {
        let name = name_of(update.key.as_ref());
        self.heard_of.insert(name.clone());
        if let Some(have) = self.functions.get_mut(&name) {
            let offered = update.split.as_ref().and_then(|split| split.token);
            let held = have.split.as_ref().and_then(|split| split.token);
            if offered.map(|p| (p.epoch, p.serial)) >= held.map(|p| (p.epoch, p.serial)) {
                have.split = update.split;
                have.version = have.version.max(update.version);
            }
        }
    }

    pub(super) fn take(&mut self, batch: v1::Batch) {
        use v1::SnapshotPhase::{Begin, Continue, End, None, Whole};
        self.learn_addresses(&batch);
        for set in &batch.node_sets {
            self.sets.insert(set.id, set.nodes.clone());
        }
        match batch.snapshot() {
            None => {
                for record in batch.functions {
                    self.offer(record);
                }
                for remote in batch.remote {
                    self.offer_remote(remote);
                }
            }
            Begin => {
                self.collecting = batch.functions;
                self.collecting_remote = batch.remote;
                return;
            }
            Continue => {
                self.collecting.extend(batch.functions);
                self.collecting_remote.extend(batch.remote);
                return;
            }
            phase @ (End | Whole) => {
                let mut all = batch.functions;
                let mut remote = batch.remote;
                if phase == End {
                    all.append(&mut self.collecting);
                    remote.append(&mut self.collecting_remote);
                }
                let named: BTreeSet<String> = all
                    .iter()
                    .map(|record| name_of(record.key.as_ref()))
                    .chain(remote.iter().map(|remote| name_of(remote.key.as_ref())))
                    .collect();
                for remote in remote {
                    self.offer_remote(remote);
                }
                self.remote
                    .retain(|name, have| named.contains(name) || have.version > batch.version);
                for record in all {
                    self.offer(record);
                }
                self.functions
                    .retain(|name, have| named.contains(name) || have.version > batch.version);
            }
        }
        for update in batch.splits {
            self.lower(update);
        }
        for removal in batch.removals {
            let name = name_of(removal.key.as_ref());
            if !self.forwards {
                self.heard_of.insert(name.clone());
            }
            if self
                .functions
                .get(&name)
                .is_some_and(|have| removal.version >= have.version)
            {
                self.functions.remove(&name);
            }
            if self
                .remote
                .get(&name)
                .is_some_and(|have| removal.version >= have.version)
            {
                self.remote.remove(&name);
            }
        }
        self.version = self.version.max(batch.version);
    }
}
