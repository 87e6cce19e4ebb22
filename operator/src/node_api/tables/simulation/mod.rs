//! Random simulations: two replicas with different delays, and nodes that join, leave and change replicas. In the end
//! every node has what is placed on it, and it never received anything else.

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use node_api::v1::operator_message::Kind;
use proptest::prelude::*;
use prost::Message;

use super::super::test_support::{record, split};
use super::*;
use model::{Model, serial};

const NODES: [&str; 3] = ["node-0", "node-1", "node-2"];
const FUNCTIONS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
enum Step {
    /// Writes a function: weight, and the nodes it is placed on (one bit each; 8 means all, including later ones).
    Write(usize, u32, u8),
    /// Replaces the pod of a node.
    Pod(usize),
    /// Changes only the placement, not the object.
    Move(usize, u8),
    Delete(usize),
    /// Rolls back: sent to the nodes first, written afterwards.
    Hint(usize),
    /// A replica processes this many of its pending events.
    Deliver(usize, usize),
    Connect(usize, usize),
    Disconnect(usize),
    /// A node processes this many messages.
    Drain(usize, usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let function = 0..FUNCTIONS.len();
    let node = 0..NODES.len();
    prop_oneof![
        4 => (function.clone(), 0..100_u32, 0..=8_u8).prop_map(|(f, w, p)| Step::Write(f, w, p)),
        2 => (function.clone(), 0..=8_u8).prop_map(|(f, p)| Step::Move(f, p)),
        1 => function.clone().prop_map(Step::Delete),
        1 => function.prop_map(Step::Hint),
        1 => node.clone().prop_map(Step::Pod),
        4 => (0..2_usize, 1..6_usize).prop_map(|(r, n)| Step::Deliver(r, n)),
        3 => (node.clone(), 0..2_usize).prop_map(|(n, r)| Step::Connect(n, r)),
        2 => node.clone().prop_map(Step::Disconnect),
        3 => (node, 1..4_usize).prop_map(|(n, m)| Step::Drain(n, m)),
        1 => (1..700_u64).prop_map(Step::Wait),
    ]
}

fn placement(bits: u8) -> Placement {
    if bits == 8 {
        return Placement::All;
    }
    let chosen = NODES
        .iter()
        .enumerate()
        .filter(|(n, _)| bits & (1 << n) != 0);
    Placement::nodes(chosen.map(|(_, name)| *name))
}

#[derive(Clone)]
enum Event {
    Upsert(Box<v1::FunctionRecord>, Placement),
    Remove(FunctionKey, u64),
    Address(&'static str, std::net::SocketAddr, u64),
}

#[derive(Default)]
struct Replica {
    tables: Tables,
    taken: usize,
}

#[derive(Default)]
struct World {
    replicas: [Replica; 2],
    events: Vec<Event>,
    /// Existing objects and their placement.
    truth: BTreeMap<String, (v1::FunctionRecord, Placement)>,
    ever_placed: BTreeSet<(String, &'static str)>,
    clock: u64,
    addresses: BTreeMap<String, String>,
    nodes: [Model; 3],
}

/// Whether a node announces that it can forward.
fn forwards(node: usize) -> bool {
    node != 2
}

impl World {
    fn new() -> Self {
        let world = Self {
            clock: 10,
            ..Self::default()
        };
        for replica in &world.replicas {
            replica.tables.synced(10);
        }
        world
    }

    /// Resource versions as in a whole cluster: far apart.
    fn tick(&mut self) -> u64 {
        self.clock += 1_000;
        self.clock
    }

    fn note_placement(&mut self, name: &str, placement: &Placement) {
        for node in NODES {
            if placement.includes(node) {
                self.ever_placed.insert((name.to_owned(), node));
            }
        }
    }

    fn write(&mut self, name: &str, weight: u32, placement: Placement) {
        let now = self.tick();
        let old = self.truth.get(name).map(|(old, _)| old.clone());
        let uid = old.map_or_else(|| format!("{name}-{now}"), |old| old.uid);
        let written = v1::FunctionRecord {
            uid,
            split: Some(split(name, now, weight)),
            ..record(name, now, now)
        };
        self.put(name, written, placement);
    }

    fn put(&mut self, name: &str, record: v1::FunctionRecord, placement: Placement) {
        self.note_placement(name, &placement);
        self.events
            .push(Event::Upsert(Box::new(record.clone()), placement.clone()));
        self.truth.insert(name.to_owned(), (record, placement));
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Write(function, weight, bits) => {
                self.write(FUNCTIONS[function], weight, placement(bits));
            }
            Step::Move(function, bits) => {
                let name = FUNCTIONS[function];
                if let Some((record, _)) = self.truth.get(name).cloned() {
                    self.put(name, record, placement(bits));
                }
            }
            Step::Delete(function) => {
                if self.truth.remove(FUNCTIONS[function]).is_some() {
                    let version = self.tick();
                    let key = FunctionKey::new("shop", FUNCTIONS[function]);
                    self.events.push(Event::Remove(key, version));
                }
            }
            Step::Hint(function) => {
                let name = FUNCTIONS[function];
                let Some((_, placement)) = self.truth.get(name).cloned() else {
                    return;
                };
                let hint = v1::SplitUpdate {
                    key: Some((&FunctionKey::new("shop", name)).into()),
                    version: 0,
                    split: Some(split(name, self.clock + 1_000, 0)),
                };
                for replica in &self.replicas {
                    // A replica that is behind may refuse the hint; it receives the write.
                    let _ = replica.tables.hint(&hint);
                }
                self.write(name, 0, placement);
            }
            Step::Pod(node) => {
                let version = self.tick();
                let ip = std::net::Ipv4Addr::from_bits(u32::try_from(version).unwrap());
                self.addresses
                    .insert(NODES[node].to_owned(), ip.to_string());
                let address = (ip, 8080).into();
                self.events
                    .push(Event::Address(NODES[node], address, version));
            }
            Step::Deliver(replica, count) => self.deliver(replica, count),
            Step::Connect(node, replica) => self.connect(node, replica),
            Step::Disconnect(node) => self.disconnect(node),
            Step::Drain(node, messages) => {
                for _ in 0..messages {
                    self.drain_one(node);
                }
            }
            // No replica is behind for long, because silent watches are restarted.
            Step::Wait(_) => {
                self.deliver(0, usize::MAX);
                self.deliver(1, usize::MAX);
            }
        }
    }

    fn deliver(&mut self, replica: usize, count: usize) {
        let replica = &mut self.replicas[replica];
        for event in self.events.iter().skip(replica.taken).take(count) {
            match event.clone() {
                Event::Upsert(record, placement @ Placement::All) => {
                    replica.tables.upsert(*record, placement).unwrap();
                }
                Event::Upsert(record, placement) => {
                    replica
                        .tables
                        .upsert_restricted(*record, placement)
                        .unwrap();
                }
                Event::Address(node, address, version) => {
                    replica.tables.set_address(node, Some(address), version);
                }
                Event::Remove(key, version) => replica.tables.remove(&key, version),
            }
            replica.taken += 1;
        }
    }

    fn connect(&mut self, node: usize, replica: usize) {
        self.disconnect(node);
        let model = &mut self.nodes[node];
        model.collecting.clear();
        model.collecting_remote.clear();
        model.forwards = forwards(node);
        let opening = self.replicas[replica]
            .tables
            .open(NODES[node], model.version, forwards(node))
            .unwrap();
        let sent = if opening.snapshot.is_none() {
            model.version
        } else {
            0
        };
        if opening.snapshot.is_none() {
            // The first report of a node that resumes contains its whole state.
            let has = model.functions.keys();
            let has = has.map(|name| FunctionKey::new("shop", name)).collect();
            let remote = model.remote.keys();
            let remote = remote.map(|name| FunctionKey::new("shop", name)).collect();
            let tables = &self.replicas[replica].tables;
            tables.compare(&opening.queue, &has, &remote);
        }
        model.stream = Some((replica, opening, sent));
    }

    fn disconnect(&mut self, node: usize) {
        if let Some((replica, opening, _)) = self.nodes[node].stream.take() {
            self.replicas[replica].tables.close(opening.id);
        }
    }

    /// Processes a message; `false` when none was pending.
    fn drain_one(&mut self, node: usize) -> bool {
        let model = &mut self.nodes[node];
        let Some((replica, opening, sent)) = &mut model.stream else {
            return false;
        };
        let tables = &self.replicas[*replica].tables;
        let hints = opening.queue.take_hints();
        // Small batches, so that nodes often leave in the middle.
        let batch = match opening.snapshot {
            Some(_) => tables.next_part(NODES[node], &mut opening.snapshot, 1),
            None => tables.next_batch(&opening.queue, *sent, 1, false),
        };
        if let Some(batch) = &batch {
            *sent = batch.version;
        }
        let some = batch.is_some() || !hints.is_empty();
        for hint in hints {
            model.lower(hint);
        }
        if let Some(batch) = batch {
            let message = v1::OperatorMessage::decode(batch.message).unwrap();
            match message.kind {
                Some(Kind::Batch(batch)) => model.take(batch),
                other => panic!("{other:?}"),
            }
        }
        some
    }

    fn settle(&mut self) {
        for replica in 0..2 {
            self.deliver(replica, usize::MAX);
        }
        for node in 0..NODES.len() {
            if self.nodes[node].stream.is_none() {
                self.connect(node, node % 2);
            }
            while self.drain_one(node) {}
        }
    }

    /// A node that can forward has every function of other nodes, with the nodes, and all addresses once it needs any.
    fn check_remote(&self, node: &str, model: &Model) -> Result<(), TestCaseError> {
        let forwards = node != NODES[2];
        let elsewhere = |placement: &Placement| match placement {
            Placement::Nodes(names) if forwards && !names.contains(node) => {
                Some(names.iter().cloned().collect::<Vec<_>>())
            }
            _ => None,
        };
        let should: BTreeMap<&str, Vec<String>> = self
            .truth
            .iter()
            .filter_map(|(name, (_, placement))| Some((name.as_str(), elsewhere(placement)?)))
            .collect();
        let has: BTreeMap<&str, Vec<String>> = model
            .remote
            .iter()
            .map(|(name, remote)| (name.as_str(), model.sets[&remote.node_set].clone()))
            .collect();
        prop_assert_eq!(&has, &should, "{}", node);
        if !should.is_empty() {
            let others = |all: &BTreeMap<String, String>| {
                let mut all = all.clone();
                all.remove(node);
                all
            };
            prop_assert_eq!(
                others(&model.addresses),
                others(&self.addresses),
                "{}",
                node
            );
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (node, model) in NODES.iter().zip(&self.nodes) {
            let should: BTreeMap<&str, u64> = self
                .truth
                .iter()
                .filter(|(_, (_, placement))| placement.includes(node))
                .map(|(name, (record, _))| (name.as_str(), serial(record)))
                .collect();
            let has: BTreeMap<&str, u64> = model
                .functions
                .iter()
                .map(|(name, record)| (name.as_str(), serial(record)))
                .collect();
            prop_assert_eq!(has, should, "{}", node);
            self.check_remote(node, model)?;
            for name in &model.heard_of {
                prop_assert!(
                    self.ever_placed.contains(&(name.clone(), *node)),
                    "{} received {}",
                    node,
                    name
                );
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_node_ends_with_the_functions_placed_on_it(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                let wait = match step {
                    Step::Wait(seconds) => Duration::from_secs(seconds),
                    _ => Duration::ZERO,
                };
                world.run(step);
                tokio::time::advance(wait).await;
            }
            world.settle();
            world.check()
        })?;
    }
}
