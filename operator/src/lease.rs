//! Leader election on one `coordination.k8s.io` Lease.
//!
//! A replica takes over when the *record has not changed for its duration on this replica's monotonic clock*. The
//! time stamps in the record are informational and are never compared, so clock skew between nodes cannot produce two
//! leaders. A lease is not a fence: every status write carries a `resourceVersion`, and every instruction to a node
//! carries the epoch that this module hands out.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::failure_log::FailureLog;

/// Leadership as this replica sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Identity in the Lease, `<pod>/<ip>:<port>` of the node API; `None` until the Lease was read.
    pub holder: Option<String>,
    /// Epoch under which this replica decides; `None` while it does not lead.
    pub epoch: Option<u64>,
}

/// Settings of the election. The command line defaults to 15 s, 10 s and 2 s.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Identity of this replica.
    pub identity: String,
    /// Time after which a Lease that has not changed may be taken over.
    pub duration: Duration,
    /// Time after which a leader that could not renew its Lease stops deciding: at most one retry period
    /// earlier, at most a quarter of a retry period later.
    pub renew_deadline: Duration,
    /// Interval between two reads of the Lease.
    pub retry_period: Duration,
}

/// Why the election ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The record could not be renewed in time, or another replica took it.
    #[error(
        "the lease was lost: {0}. Another replica decides now and nodes keep serving; this replica exits and is restarted"
    )]
    Lost(String),
}

/// Handle to a running election.
#[derive(Debug, Clone)]
pub struct LeaseHandle {
    leadership: watch::Receiver<Leadership>,
    raise: mpsc::Sender<(u64, oneshot::Sender<u64>)>,
}

/// The election: a loop that reads, takes and renews the record.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    config: LeaseConfig,
    publish: watch::Sender<Leadership>,
    raise: mpsc::Receiver<(u64, oneshot::Sender<u64>)>,
    seen: Option<LeaseObservation>,
    renewed: Option<Instant>,
    log: FailureLog,
}

/// The newest record, and the time at which it was first observed.
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
    /// Receiver of changes of leadership.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Raises the epoch above `floor` and records it in the Lease before it is used, so that a successor starts above
    /// it. Returns the epoch to decide under; `None` when this replica does not lead.
    pub async fn raise_above(&self, floor: u64) -> Option<u64> {
        let (reply, raised) = oneshot::channel();
        self.raise.send((floor, reply)).await.ok()?;
        raised.await.ok()
    }
}

// === impl Election ===

impl Election {
    /// Creates an election that has not read the record yet, and its handle.
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
            log: FailureLog::default(),
        };
        (
            election,
            LeaseHandle {
                leadership,
                raise: sender,
            },
        )
    }

    /// Runs until `stop` is cancelled, then releases the Lease.
    ///
    /// # Errors
    /// This replica led and no longer does; the process must exit.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), LeaseError> {
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => break,
                outcome = self.tick() => outcome,
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
        self.release().await;
        Ok(())
    }

    /// Reads the record once and acts on it.
    async fn tick(&mut self) -> Result<(), LeaseError> {
        let started = Instant::now();
        match tokio::time::timeout(self.request_timeout(started), self.read_and_act(started)).await
        {
            Ok(Ok(())) => {
                self.log.succeeded();
            }
            Ok(Err(error)) => self.failed(&error),
            Err(_) => self.failed("the API server did not answer in time"),
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

    fn failed(&mut self, error: impl fmt::Display) {
        if let Some(failures) = self.log.failed(&error) {
            tracing::warn!(%error, failures, "the lease could not be read or written");
        }
    }

    async fn read_and_act(&mut self, started: Instant) -> Result<(), kube::Error> {
        let found = self.api.get_opt(&self.config.name).await?;
        self.observe(found, started);
        let action = decide(
            self.seen.as_ref(),
            &self.config,
            self.renewed.is_some(),
            started,
        );
        // Count the renewal from here: the record is written after this moment, however long the read took.
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

    /// Renews the Lease with a higher epoch, so that the epoch is persisted before it is used.
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
        match tokio::time::timeout(self.request_timeout(started), self.replace(floor + 1)).await {
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

    async fn release(&mut self) {
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
            Ok(Ok(_)) => tracing::info!("released the lease"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the lease could not be released; it expires by itself")
            }
            Err(_) => {
                tracing::warn!("the lease could not be released in time; it expires by itself")
            }
        }
    }

    async fn replace(&self, transitions: u64) -> Result<Lease, kube::Error> {
        let previous = self.seen.as_ref().map(|seen| &seen.lease);
        let record = self.record(previous, transitions);
        self.api
            .replace(&self.config.name, &PostParams::default(), &record)
            .await
    }

    /// Builds the record of this replica; the `resourceVersion` of `previous` is the precondition.
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

    /// Deadline of a request: a leader may wait until its renewal would be late, another replica for one renew
    /// deadline.
    fn request_timeout(&self, now: Instant) -> Duration {
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

/// Decides what to do about the observed record. Reads no clock.
fn decide(
    seen: Option<&LeaseObservation>,
    config: &LeaseConfig,
    leading: bool,
    now: Instant,
) -> Action {
    let Some(seen) = seen else {
        // Another replica may have created the deleted record again: give up leadership and start over.
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
        // Same pod, new process: the old process has ended, and its epoch must not be used again.
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
            // One hour ahead of every clock: must not matter.
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

    /// FC-17: the lease expires by the local monotonic clock, whatever times the record contains.
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

    /// FC-6: a leader that no longer holds the record has lost, and no replica takes a record that another one
    /// renews.
    #[test]
    fn every_state_of_the_record_leads_to_one_action() {
        let now = Instant::now();
        let me = seen("a/10.0.0.1:9443", now);
        let unheld = seen("", now);
        let other = seen("b/10.0.0.2:9443", now);
        assert_eq!(decide(None, &config(), false, now), Action::Create);
        assert_eq!(decide(None, &config(), true, now), Action::Lost);
        assert_eq!(decide(Some(&me), &config(), true, now), Action::Renew);
        assert_eq!(decide(Some(&me), &config(), false, now), Action::Take);
        assert_eq!(decide(Some(&unheld), &config(), false, now), Action::Take);
        assert_eq!(decide(Some(&unheld), &config(), true, now), Action::Lost);
        assert_eq!(decide(Some(&other), &config(), true, now), Action::Lost);
    }
}
