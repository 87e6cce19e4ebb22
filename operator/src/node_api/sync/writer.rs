//! Sends a node everything it needs: the Welcome, the table, and hints ahead of everything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use node_api::v1;
use node_api::v1::operator_message::Kind;
use tokio::sync::mpsc;
use tonic::Status;

use super::super::calls::Calls;
use super::super::metrics::Meter;
use super::super::tables::{ReadyBatch, SnapshotParts, StreamQueue};
use super::{End, Progress, encode};

/// Interval at which a node without changes receives the newest version, so that its position does not leave the
/// change log.
const VERSION_ALONE: Duration = Duration::from_secs(5);

pub(super) struct Writer<'a> {
    pub(super) calls: &'a Arc<Calls>,
    pub(super) node: &'a str,
    pub(super) queue: &'a StreamQueue,
    pub(super) sender: &'a mpsc::Sender<Result<Bytes, Status>>,
    pub(super) progress: &'a Progress,
    /// Table version that the node has after everything sent so far.
    pub(super) version: u64,
    /// Whether the node receives functions of other nodes.
    pub(super) remote: bool,
}

/// What to send next.
enum Pending {
    Hints,
    Changes,
    Version,
    Counters,
}

impl Writer<'_> {
    pub(super) async fn run(&mut self, snapshot: Option<SnapshotParts>) -> End {
        match self.write(snapshot).await {
            Ok(()) => End::Left,
            Err(end) => end,
        }
    }

    async fn write(&mut self, mut snapshot: Option<SnapshotParts>) -> Result<(), End> {
        let settings = &self.calls.settings;
        let welcome = v1::Welcome {
            protocol_version: node_api::PROTOCOL_VERSION,
            node_labels: self
                .calls
                .tables
                .node_labels(self.node)
                .into_iter()
                .collect(),
            unsupervised_ttl: millis(settings.unsupervised_ttl),
            report_interval: millis(settings.report_interval),
            resumed: snapshot.is_none(),
            hop_key: self.calls.tls.hop_key().map(|key| v1::HopKey { key }),
            remote: self.remote,
        };
        self.send(encode(Kind::Welcome(welcome))).await?;
        while snapshot.is_some() {
            let tables = &self.calls.tables;
            let part = tables.next_part(self.node, &mut snapshot, settings.part_bytes);
            let Some(part) = part else { break };
            // The node acknowledges the snapshot when it has applied the last part.
            self.send_batch(part).await?;
            self.send_hints().await?;
        }
        loop {
            self.drained().await?;
            match self.next().await {
                Pending::Hints => self.send_hints().await?,
                Pending::Version => self.send_changes(true).await?,
                Pending::Changes => {
                    // Collect changes for a moment, but let a hint through.
                    let delay = tokio::time::sleep(settings.batch_delay);
                    tokio::pin!(delay);
                    loop {
                        tokio::select! {
                            () = &mut delay => break,
                            () = self.queue.hinted() => self.send_hints().await?,
                        }
                    }
                    self.send_changes(false).await?;
                }
                Pending::Counters => {
                    let wanted = Kind::CountersWanted(v1::CountersWanted {});
                    self.send(encode(wanted)).await?;
                }
            }
        }
    }

    /// Waits until the last message was accepted. No new message is built before, because it would be outdated when
    /// it is sent.
    async fn drained(&self) -> Result<(), End> {
        let drain = self.calls.settings.drain;
        match tokio::time::timeout(drain, self.sender.reserve()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Slow),
        }
    }

    async fn next(&self) -> Pending {
        tokio::select! {
            biased;
            () = self.queue.hinted() => Pending::Hints,
            () = self.queue.changed() => Pending::Changes,
            () = self.progress.counters_wanted.notified() => Pending::Counters,
            () = tokio::time::sleep(VERSION_ALONE) => Pending::Version,
        }
    }

    async fn send_hints(&mut self) -> Result<(), End> {
        for split in self.queue.take_hints() {
            Meter::count(&self.calls.meter.hints, "sent");
            let split = Some(split);
            self.send(encode(Kind::Hint(v1::Hint { split }))).await?;
        }
        Ok(())
    }

    async fn send_changes(&mut self, version_alone: bool) -> Result<(), End> {
        let bytes = self.calls.settings.batch_bytes;
        loop {
            let tables = &self.calls.tables;
            let batch = tables.next_batch(self.queue, self.version, bytes, version_alone);
            let Some(batch) = batch else { return Ok(()) };
            self.send_batch(batch).await?;
            self.send_hints().await?;
        }
    }

    async fn send_batch(&mut self, batch: ReadyBatch) -> Result<(), End> {
        self.version = batch.version;
        // Record this before sending: the acknowledgement must not arrive earlier.
        self.progress
            .sent
            .fetch_max(batch.version, Ordering::AcqRel);
        let length = u64::try_from(batch.message.len()).unwrap_or(u64::MAX);
        let sent = &self.calls.meter.sent;
        sent.with_label_values(&["bytes"]).inc_by(length);
        sent.with_label_values(&["batches"]).inc();
        self.send(batch.message).await
    }

    /// Passes a message to the connection; if it is not accepted in time, the stream ends.
    async fn send(&self, message: Bytes) -> Result<(), End> {
        let drain = self.calls.settings.drain;
        match tokio::time::timeout(drain, self.sender.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Slow),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
