//! Leader election on one `coordination.k8s.io` Lease.
//!
//! A holder is judged by how long the *record has not changed on this process's monotonic clock*; the
//! time stamps in the record are for people and are never compared with anything, so clocks that differ
//! between nodes cannot make two leaders. A lease is still not a fence: every status write carries a
//! `resourceVersion`, every instruction to a node the epoch that is handed out here.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What one replica knows about leadership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Identity in the Lease, `<pod>/<ip>:<port>` of the node API; `None` until it was read.
    pub holder: Option<String>,
    /// The epoch under which this replica decides; `None` while it does not lead.
    pub epoch: Option<u64>,
}

/// How the Lease is kept. Defaults of the command line: 15 s, 10 s, 2 s.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Identity of this replica.
    pub identity: String,
    /// How long an unchanged record belongs to its holder.
    pub duration: Duration,
    /// Within this long a leader must have renewed.
    pub renew_deadline: Duration,
    /// Between two looks.
    pub retry_period: Duration,
}

/// Why the election ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The record could not be renewed in time, or somebody else took it.
    #[error(
        "the lease was lost: {0}. Another replica decides now and nodes go on serving; this one ends and is started again"
    )]
    Lost(String),
}

/// Asks the election for things while it runs.
#[derive(Debug, Clone)]
pub struct LeaseHandle {
    leadership: watch::Receiver<Leadership>,
    raise: mpsc::Sender<(u64, oneshot::Sender<u64>)>,
}

/// The loop that reads, takes and renews the record.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    config: LeaseConfig,
    publish: watch::Sender<Leadership>,
    raise: mpsc::Receiver<(u64, oneshot::Sender<u64>)>,
    seen: Option<LeaseObservation>,
    renewed: Option<Instant>,
}

/// The newest record and since when it has looked like this.
#[derive(Debug, Clone)]
struct LeaseObservation {
    lease: Lease,
    since: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Create,
    Take,
    Renew,
    Wait,
    Lost,
}

// === impl LeaseHandle ===

impl LeaseHandle {
    /// Changes of leadership, for everyone who must know.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Raises the epoch above `floor` and records that in the Lease before it is used, so that a successor
    /// starts above it. Returns the epoch to decide under; `None` when this replica does not lead.
    pub async fn raise_above(&self, floor: u64) -> Option<u64> {
        let (reply, raised) = oneshot::channel();
        self.raise.send((floor, reply)).await.ok()?;
        raised.await.ok()
    }
}

// === impl Election ===

impl Election {
    /// An election that has not looked at the record yet.
    #[must_use]
    pub fn new(client: Client, config: LeaseConfig) -> (Self, LeaseHandle) {
        let (publish, leadership) = watch::channel(Leadership::default());
        let (sender, raise) = mpsc::channel(4);
        let api = Api::namespaced(client, &config.namespace);
        let election = Self {
            api,
            config,
            publish,
            raise,
            seen: None,
            renewed: None,
        };
        (
            election,
            LeaseHandle {
                leadership,
                raise: sender,
            },
        )
    }

    /// Runs until `stop`, then gives the record back.
    ///
    /// # Errors
    /// This replica led and no longer does: it must end, whatever it is doing.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LeaseError> {
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => break,
                outcome = self.turn() => outcome,
            };
            if let Err(error) = outcome {
                self.announce(None);
                return Err(error);
            }
            // Half a period of jitter keeps replicas that started together apart.
            let pause = self
                .config
                .retry_period
                .mul_f64(0.75 + 0.5 * fastrand::f64());
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                Some((floor, reply)) = self.raise.recv() => self.raise_epoch(floor, reply).await,
            }
        }
        self.give_back().await;
        Ok(())
    }

    /// One look at the record and what follows from it.
    async fn turn(&mut self) -> Result<(), LeaseError> {
        let started = Instant::now();
        match tokio::time::timeout(self.patience(started), self.look_and_act(started)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease could not be read or written"),
            Err(_) => tracing::warn!("the API server did not answer a lease request in time"),
        }
        if self.is_late(Instant::now()) {
            return Err(LeaseError::Lost(
                "it could not be renewed in time".to_owned(),
            ));
        }
        if self.renewed.is_some() && self.publish.borrow().epoch.is_none() {
            return Err(LeaseError::Lost("another replica holds it".to_owned()));
        }
        Ok(())
    }

    async fn look_and_act(&mut self, started: Instant) -> Result<(), kube::Error> {
        let found = self.api.get_opt(&self.config.name).await?;
        self.observe(found, started);
        let action = decide(
            self.seen.as_ref(),
            &self.config,
            self.renewed.is_some(),
            started,
        );
        // The record is younger than this moment, however long looking at it took before.
        let sent = Instant::now();
        let written = match action {
            Action::Create => {
                self.api
                    .create(&PostParams::default(), &self.record(None, 1))
                    .await?
            }
            Action::Take => self.replace(self.transitions() + 1).await?,
            Action::Renew => self.replace(self.transitions()).await?,
            Action::Wait => {
                self.announce(None);
                return Ok(());
            }
            Action::Lost => {
                self.announce(None);
                return Ok(());
            }
        };
        let epoch = transitions(&written);
        self.observe(Some(written), sent);
        self.renewed = Some(sent);
        if action != Action::Renew {
            tracing::info!(epoch, identity = %self.config.identity, "leading");
        }
        self.announce(Some(epoch));
        Ok(())
    }

    /// Raising is a renewal with a higher number: it is persisted before anybody uses it.
    async fn raise_epoch(&mut self, floor: u64, reply: oneshot::Sender<u64>) {
        if self.renewed.is_none() {
            return;
        }
        let current = self.transitions();
        if current > floor {
            let _ = reply.send(current);
            return;
        }
        let started = Instant::now();
        match tokio::time::timeout(self.patience(started), self.replace(floor + 1)).await {
            Ok(Ok(written)) => {
                let epoch = transitions(&written);
                self.observe(Some(written), started);
                self.renewed = Some(started);
                self.announce(Some(epoch));
                let _ = reply.send(epoch);
            }
            Ok(Err(error)) => tracing::warn!(%error, "the epoch could not be raised"),
            Err(_) => tracing::warn!("the epoch could not be raised in time"),
        }
    }

    async fn give_back(&mut self) {
        self.announce(None);
        if self.renewed.is_none() {
            return;
        }
        let Some(LeaseObservation { mut lease, .. }) = self.seen.clone() else {
            return;
        };
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
        }
        let params = PostParams::default();
        let write = self.api.replace(&self.config.name, &params, &lease);
        match tokio::time::timeout(self.config.retry_period, write).await {
            Ok(Ok(_)) => tracing::info!("gave the lease back"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease was not given back; it runs out by itself")
            }
            Err(_) => tracing::warn!("the lease was not given back in time; it runs out by itself"),
        }
    }

    async fn replace(&self, transitions: u64) -> Result<Lease, kube::Error> {
        let previous = self.seen.as_ref().map(|seen| &seen.lease);
        let record = self.record(previous, transitions);
        self.api
            .replace(&self.config.name, &PostParams::default(), &record)
            .await
    }

    /// The record as this replica writes it; the old one's `resourceVersion` is the precondition.
    fn record(&self, previous: Option<&Lease>, transitions: u64) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = previous.and_then(|lease| lease.spec.as_ref());
        let kept =
            spec.filter(|spec| spec.holder_identity.as_deref() == Some(&self.config.identity));
        Lease {
            metadata: previous.map_or_else(
                || ObjectMeta {
                    name: Some(self.config.name.clone()),
                    ..ObjectMeta::default()
                },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.config.identity.clone()),
                lease_duration_seconds: i32::try_from(self.config.duration.as_secs()).ok(),
                acquire_time: kept
                    .and_then(|spec| spec.acquire_time.clone())
                    .or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: i32::try_from(transitions).ok(),
                ..LeaseSpec::default()
            }),
        }
    }

    fn observe(&mut self, found: Option<Lease>, now: Instant) {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        self.seen = found.map(|lease| match self.seen.take() {
            Some(seen) if version(&seen.lease) == version(&lease) => seen,
            _ => LeaseObservation { lease, since: now },
        });
    }

    fn announce(&self, epoch: Option<u64>) {
        let holder = self
            .seen
            .as_ref()
            .and_then(|seen| holder(&seen.lease))
            .map(ToOwned::to_owned);
        self.publish.send_if_modified(|current| {
            let next = Leadership { holder, epoch };
            let changed = *current != next;
            *current = next;
            changed
        });
    }

    fn transitions(&self) -> u64 {
        self.seen
            .as_ref()
            .map_or(0, |seen| transitions(&seen.lease))
    }

    /// A leader may wait for an answer until it would be late, anybody else for one deadline.
    fn patience(&self, now: Instant) -> Duration {
        let limit = self
            .config
            .renew_deadline
            .saturating_sub(self.config.retry_period);
        self.renewed
            .map_or(limit, |at| (at + limit).saturating_duration_since(now))
    }

    fn is_late(&self, now: Instant) -> bool {
        let limit = self
            .config
            .renew_deadline
            .saturating_sub(self.config.retry_period);
        self.renewed
            .is_some_and(|at| now.duration_since(at) >= limit)
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

fn transitions(lease: &Lease) -> u64 {
    let count = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or(0);
    u64::try_from(count).unwrap_or(0)
}

/// What to do about the record as it was seen; reads no clock.
fn decide(seen: Option<&LeaseObservation>, config: &LeaseConfig, leading: bool, now: Instant) -> Action {
    let Some(seen) = seen else {
        // A deleted record may have been created again by somebody else meanwhile: start over as nobody.
        return if leading {
            Action::Lost
        } else {
            Action::Create
        };
    };
    match holder(&seen.lease) {
        Some(holder) if holder == config.identity && leading => Action::Renew,
        _ if leading => Action::Lost,
        None => Action::Take,
        // The same pod with a new process: the old one has ended, and its epoch must not be used again.
        Some(holder) if holder == config.identity => Action::Take,
        Some(_) if now.duration_since(seen.since) >= config.duration => Action::Take,
        Some(_) => Action::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LeaseConfig {
        LeaseConfig {
            namespace: "selvage-system".into(),
            name: "selvage-operator".into(),
            identity: "a/10.0.0.1:9443".into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    fn seen(holder: &str, since: Instant) -> LeaseObservation {
        let spec = LeaseSpec {
            holder_identity: Some(holder.into()),
            // An hour ahead of everybody: must not matter.
            renew_time: Some(MicroTime(
                Timestamp::now() + jiff::SignedDuration::from_hours(1),
            )),
            ..LeaseSpec::default()
        };
        LeaseObservation {
            lease: Lease {
                spec: Some(spec),
                ..Lease::default()
            },
            since,
        }
    }

    /// FC-17: a lease is judged by the own monotonic clock, whatever times are written in it.
    #[test]
    fn an_unchanged_record_is_taken_after_its_duration_and_not_before() {
        let start = Instant::now();
        let other = seen("b/10.0.0.2:9443", start);
        let at = |seconds| {
            decide(
                Some(&other),
                &config(),
                false,
                start + Duration::from_secs(seconds),
            )
        };
        assert_eq!(at(0), Action::Wait);
        assert_eq!(at(14), Action::Wait);
        assert_eq!(at(15), Action::Take);
    }

    /// FC-6: who holds the record no more has lost, and nobody takes what another renews.
    #[test]
    fn every_state_of_the_record_has_one_answer() {
        let now = Instant::now();
        let me = seen("a/10.0.0.1:9443", now);
        let nobody = seen("", now);
        let other = seen("b/10.0.0.2:9443", now);
        assert_eq!(decide(None, &config(), false, now), Action::Create);
        assert_eq!(decide(None, &config(), true, now), Action::Lost);
        assert_eq!(decide(Some(&me), &config(), true, now), Action::Renew);
        assert_eq!(decide(Some(&me), &config(), false, now), Action::Take);
        assert_eq!(decide(Some(&nobody), &config(), false, now), Action::Take);
        assert_eq!(decide(Some(&nobody), &config(), true, now), Action::Lost);
        assert_eq!(decide(Some(&other), &config(), true, now), Action::Lost);
    }
}
