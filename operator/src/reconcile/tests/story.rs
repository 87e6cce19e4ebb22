//! One function from its first version over a promotion to an aborted rollout, without any wait for time: actions of
//! users take the place of evidence. Leaders come and go meanwhile; the API server and the nodes stay.

use std::sync::atomic::Ordering;

use super::fake::{Fate, Process};
use super::*;

const NODES: [&str; 2] = ["n-1", "n-2"];

/// What a share does to requests: stable, the candidate if it gets any, its weight in hundredths of a percent.
pub(super) type Effect = (String, String, u32);

pub(super) struct Story {
    pub(super) world: World,
    /// Registries that speak plain HTTP.
    insecure: Vec<String>,
    process: Process,
    pub(super) epoch: u64,
    /// The pair that nodes hold; they ignore what is older.
    token: (u64, u64),
    /// Every effect that nodes had, in order.
    pub(super) effects: Vec<Effect>,
}

/// What must be the same whatever happened on the way.
#[derive(Debug, PartialEq)]
pub(super) struct Ending {
    pub(super) effects: Vec<Effect>,
    status: Value,
    /// Name, and whether it was promoted once.
    revisions: Vec<(String, bool)>,
    claims: usize,
}

impl Story {
    pub(super) fn begin(fate: Option<(usize, Fate)>) -> Self {
        Self::start(fate, Vec::new())
    }

    pub(super) fn with(insecure: Vec<String>) -> Self {
        Self::start(None, insecure)
    }

    fn start(fate: Option<(usize, Fate)>, insecure: Vec<String>) -> Self {
        let fake = Fake::default();
        let process = fake.process(fate);
        let world = World::of(fake, process.client.clone(), insecure.clone());
        let story = Self {
            world,
            insecure,
            process,
            epoch: 3,
            token: (0, 0),
            effects: Vec::new(),
        };
        story.catch_up();
        story
    }

    /// Writes of the first leader.
    pub(super) fn writes(&self) -> usize {
        self.process.writes.load(Ordering::SeqCst)
    }

    pub(super) fn object(&self) -> Value {
        self.world.fake.get(&format!("{FUNCTIONS}/f")).unwrap()
    }

    pub(super) fn put(&self, object: Value) {
        self.world.fake.put(&format!("{FUNCTIONS}/f"), object);
    }

    /// Another leader, with nothing but what the API server has.
    pub(super) fn succeed(&mut self) {
        let fake = self.world.fake.clone();
        let client = fake.client();
        self.world = World::of(fake, client, self.insecure.clone());
        self.epoch += 1;
        self.catch_up();
    }

    /// The watches deliver everything; nodes receive it and report.
    fn catch_up(&self) {
        for node in NODES {
            self.world.node(node);
        }
        self.world.catch_up();
        self.world.reconciler.projector.refresh_all();
    }

    fn nodes_follow(&mut self) {
        let key = FunctionKey::new("shop", "f");
        let Some(record) = self.world.tables.newest_record(&key) else {
            return;
        };
        let share = record.split.unwrap();
        let token = share.token.unwrap();
        if (token.epoch, token.serial) > self.token {
            self.token = (token.epoch, token.serial);
            let candidate = Some(share.candidate).filter(|_| share.weight > 0);
            let effect = (share.stable, candidate.unwrap_or_default(), share.weight);
            if self.effects.last() != Some(&effect) {
                self.effects.push(effect);
            }
        }
        let loaded = |revision: &node_api::v1::Definition| node_api::v1::RevisionState {
            function: Some((&key).into()),
            revision: revision.revision.clone(),
            state: node_api::v1::LoadState::Loaded.into(),
            permanent: false,
            applied: Some(node_api::v1::FencingToken {
                epoch: self.token.0,
                serial: self.token.1,
            }),
        };
        for node in NODES {
            let report = node_api::v1::Report {
                revisions: record.definitions.iter().map(loaded).collect(),
                revisions_complete: true,
                ..node_api::v1::Report::default()
            };
            self.world.reconciler.fleet.report_from(node, report);
        }
    }

    /// One reconcile, which its process may not survive.
    pub(super) async fn turn(&mut self) {
        self.catch_up();
        self.nodes_follow();
        let key = ObjectKey::new("shop", "f");
        let mut dead = self.process.dead.clone();
        let reconcile = reconcile(&self.world.reconciler, &key, self.epoch);
        let is_killed = tokio::select! {
            // An error is tried again, in its time.
            ended = reconcile => {
                if let Err(ReconcileError::Waits(until)) = ended {
                    tokio::time::sleep_until(until).await;
                }
                false
            }
            _ = dead.wait_for(|dead| *dead) => true,
        };
        if is_killed {
            self.process = self.world.fake.process(None);
            self.succeed();
        }
    }

    /// Turns until `what` holds of the status and two more change nothing.
    pub(super) async fn until(&mut self, what: impl Fn(&Value) -> bool) {
        let mut quiet = 0;
        for _ in 0..40 {
            let before = self.object();
            self.turn().await;
            let after = self.object();
            quiet = if before == after { quiet + 1 } else { 0 };
            if quiet >= 2 && what(&after["status"]) {
                return;
            }
        }
        panic!("never: {:#}", self.object()["status"]);
    }

    pub(super) fn edit(&self, generation: i64, env: &str) {
        let mut object = self.object();
        object["spec"]["env"] = json!([{ "name": "A", "value": env }]);
        object["metadata"]["generation"] = json!(generation);
        self.put(object);
    }

    /// A action for the candidate.
    pub(super) fn act(&self, action: &str) {
        let mut object = self.object();
        let candidate = object["status"]["candidate"]["revision"].clone();
        object["metadata"]["annotations"] = json!({ format!("selvage.dev/{action}"): candidate });
        self.put(object);
    }

    pub(super) async fn first_version(&mut self) {
        let steps = json!({ "rollout": { "canary": { "steps": [{ "weight": "5%" }] } } });
        self.world.apply("f", "2026-01-01T00:00:00Z", &steps);
        self.until(|status| status["phase"] == "Ready").await;
    }

    pub(super) async fn second_on_trial(&mut self) {
        self.first_version().await;
        self.edit(2, "2");
        self.until(|status| status["rollout"]["state"] == "Stepping")
            .await;
    }

    pub(super) async fn second_bakes(&mut self) {
        self.second_on_trial().await;
        self.act("promote-full");
        self.until(|status| status["rollout"]["state"] == "Baking")
            .await;
    }

    pub(super) async fn second_promoted(&mut self) {
        self.second_bakes().await;
        self.act("promote");
        self.until(|status| status["phase"] == "Ready").await;
        let stable = self.object()["status"]["stable"]["revision"].clone();
        let path = format!("{REVISIONS}/{}", stable.as_str().unwrap());
        let promoted = self.world.fake.get(&path).unwrap()["status"]["promotedAt"].clone();
        assert!(
            promoted.is_string(),
            "what else would bring it back, were the status lost?"
        );
    }

    pub(super) async fn whole(mut self) -> Self {
        self.second_promoted().await;
        self.edit(3, "3");
        self.until(|status| status["rollout"]["state"] == "Stepping")
            .await;
        self.act("abort");
        self.until(|status| status["phase"] == "RolledBack").await;
        self
    }

    pub(super) fn ending(&self) -> Ending {
        let status = self.object()["status"].clone();
        let pick = |value: &Value, fields: &[&str]| -> Value {
            fields.iter().map(|field| value[*field].clone()).collect()
        };
        let each = |list: &Value, fields: &[&str]| -> Value {
            let list = list.as_array().into_iter().flatten();
            list.map(|entry| pick(entry, fields)).collect()
        };
        let status = json!({
            "top": pick(&status, &["phase", "observedGeneration", "traffic"]),
            "stable": status["stable"]["revision"],
            "candidate": status["candidate"]["revision"],
            "state": status["rollout"]["state"],
            "history": each(&status["history"], &["revision", "outcome", "reason"]),
            // How far nodes are is written a little later, in its own time.
            "conditions": each(&status["conditions"], &["type", "status", "reason"])
                .as_array().into_iter().flatten().filter(|condition| condition[0] != "Distributed").collect::<Vec<_>>(),
        });
        let revisions = self.world.fake.under(REVISIONS).into_iter();
        let revisions = revisions.map(|revision| {
            let name = revision["metadata"]["name"].as_str().unwrap().to_owned();
            (name, revision["status"]["promotedAt"].is_string())
        });
        Ending {
            effects: self.effects.clone(),
            status,
            revisions: revisions.collect(),
            claims: self.world.fake.under(CLAIMS).len(),
        }
    }
}
