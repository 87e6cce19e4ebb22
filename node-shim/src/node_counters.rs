//! Counters of the node that do not belong to a function.

use std::sync::atomic::{AtomicU64, Ordering};

use node_shim_core::instance_reuse::DropCause;
use node_shim_core::validation::Rejection;

use crate::forward::ForwardOutcome;

/// Counters shared by the data plane and the metrics page.
#[derive(Debug, Default)]
pub struct NodeCounters {
    rejections: [AtomicU64; Rejection::ALL.len()],
    accept_errors: AtomicU64,
    refused_connections: AtomicU64,
    handshake_failures: AtomicU64,
    fallbacks: AtomicU64,
    connections_h1: AtomicU64,
    connections_h2: AtomicU64,
    instance_slots: AtomicU64,
    reuses: AtomicU64,
    reruns: AtomicU64,
    instance_drops: [AtomicU64; DropCause::ALL.len()],
    forwards: [AtomicU64; ForwardOutcome::ALL.len()],
}

/// HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

impl NodeCounters {
    pub(crate) fn rejected(&self, rejection: Rejection) {
        if let Some(count) = self.rejections.get(rejection.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of rejected requests by reason. The two rejections of a method share a label.
    pub fn rejections(&self) -> impl Iterator<Item = (Rejection, u64)> + '_ {
        let read =
            |(reason, count): (Rejection, &AtomicU64)| (reason, count.load(Ordering::Relaxed));
        Rejection::ALL.into_iter().zip(&self.rejections).map(read)
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of failed accepts.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    pub(crate) fn connection_refused(&self) {
        self.refused_connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of connections closed because their address had the maximum number of them.
    pub fn refused_connections(&self) -> u64 {
        self.refused_connections.load(Ordering::Relaxed)
    }

    pub(crate) fn handshake_failed(&self) {
        self.handshake_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of failed TLS handshakes.
    pub fn handshake_failures(&self) -> u64 {
        self.handshake_failures.load(Ordering::Relaxed)
    }

    pub(crate) fn fell_back(&self) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests of candidates that the stable revision served.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    pub(crate) fn opened(&self, proto: Protocol) -> OpenConnection<'_> {
        let count = self.open(proto);
        count.fetch_add(1, Ordering::Relaxed);
        OpenConnection(count)
    }

    /// Returns the number of open connections by `protocol` label.
    pub fn connections(&self) -> [(&'static str, u64); 2] {
        let read = |proto| self.open(proto).load(Ordering::Relaxed);
        [
            ("http1", read(Protocol::Http1)),
            ("http2", read(Protocol::Http2)),
        ]
    }

    fn open(&self, proto: Protocol) -> &AtomicU64 {
        match proto {
            Protocol::Http1 => &self.connections_h1,
            Protocol::Http2 => &self.connections_h2,
        }
    }

    pub(crate) fn set_instance_slots(&self, slots: u64) {
        self.instance_slots.store(slots, Ordering::Relaxed);
    }

    /// Returns the maximum number of concurrent requests.
    pub fn instance_slots(&self) -> u64 {
        self.instance_slots.load(Ordering::Relaxed)
    }

    pub(crate) fn reused(&self) {
        self.reuses.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests that started on an instance that had answered others.
    pub fn reuses(&self) -> u64 {
        self.reuses.load(Ordering::Relaxed)
    }

    pub(crate) fn ran_again(&self) {
        self.reruns.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests that failed on such an instance and ran again on a fresh one.
    pub fn reruns(&self) -> u64 {
        self.reruns.load(Ordering::Relaxed)
    }

    pub(crate) fn forwarded(&self, outcome: ForwardOutcome) {
        if let Some(count) = self.forwards.get(outcome.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of requests that were passed on to other nodes, by outcome.
    pub fn forwards(&self) -> impl Iterator<Item = (ForwardOutcome, u64)> + '_ {
        let read = |(outcome, count): (ForwardOutcome, &AtomicU64)| {
            (outcome, count.load(Ordering::Relaxed))
        };
        ForwardOutcome::ALL
            .into_iter()
            .zip(&self.forwards)
            .map(read)
    }

    pub(crate) fn instance_dropped(&self, cause: DropCause) {
        if let Some(count) = self.instance_drops.get(cause.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the number of instances by the cause for which they answer no further request, of revisions that reuse
    /// instances.
    pub fn instance_drops(&self) -> impl Iterator<Item = (DropCause, u64)> + '_ {
        let read = |(cause, count): (DropCause, &AtomicU64)| (cause, count.load(Ordering::Relaxed));
        DropCause::ALL
            .into_iter()
            .zip(&self.instance_drops)
            .map(read)
    }
}

/// Counts a connection as open until dropped.
pub(crate) struct OpenConnection<'a>(&'a AtomicU64);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
