//! Reads the reports of one node.

use std::sync::Arc;

use node_api::v1;
use node_api::v1::node_message::Kind;
use tokio::time::Instant;
use tonic::Streaming;

use super::super::FunctionKey;
use super::super::calls::Calls;
use super::super::codec::Sized;
use super::super::fleet::{FrameResult, SessionId};
use super::super::metrics::Meter;
use super::super::rate_limit::RateLimit;
use super::super::tables::StreamQueue;
use super::{End, Progress};

/// Number of frames that a node may send before the absolute counters it was asked for.
const GAPS: u32 = 4;

pub(super) struct Reader<'a> {
    calls: &'a Arc<Calls>,
    session: &'a SessionId,
    progress: &'a Progress,
    budget: RateLimit,
    gaps: u32,
    /// The node resumed and has not sent a complete report yet.
    unchecked: Option<&'a StreamQueue>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        calls: &'a Arc<Calls>,
        session: &'a SessionId,
        progress: &'a Progress,
        resumed: Option<&'a StreamQueue>,
    ) -> Self {
        let budget = RateLimit::new(calls.settings.report_bytes_per_second, 10, Instant::now());
        Self {
            calls,
            session,
            progress,
            budget,
            gaps: 0,
            unchecked: resumed,
        }
    }

    pub(super) async fn run(&mut self, mut inbound: Streaming<Sized>) -> End {
        loop {
            let sized = match inbound.message().await {
                Ok(Some(sized)) => sized,
                Ok(None) => return End::Left,
                Err(status) => return ended_by(&status),
            };
            let Some(Kind::Report(report)) = sized.message.kind else {
                // A second Hello, or a message kind of a newer node.
                Meter::count(&self.calls.meter.reports, "ignored");
                continue;
            };
            if report.applied_version > self.progress.sent() {
                return End::AckOfTheFuture;
            }
            let report = self.within_budget(report, sized.bytes);
            self.check(&report);
            let received = self.calls.fleet.report(self.session, report);
            Meter::count(&self.calls.meter.reports, "taken");
            if received.dropped {
                Meter::count(&self.calls.meter.reports, "truncated");
            }
            if let Some(result) = received.frame
                && let Some(end) = self.handle_result(result)
            {
                return end;
            }
        }
    }

    /// Compares the first complete report of a node that resumed with the desired state.
    fn check(&mut self, report: &v1::Report) {
        if !report.revisions_complete {
            return;
        }
        let Some(queue) = self.unchecked.take() else {
            return;
        };
        let has = report.revisions.iter();
        let has = has
            .filter_map(|state| state.function.as_ref())
            .map(FunctionKey::from)
            .collect();
        let remote = report.remote.iter().map(FunctionKey::from).collect();
        let found = self.calls.tables.compare(queue, &has, &remote);
        if found > 0 {
            tracing::info!(
                node = queue.node(),
                functions = found,
                "the functions of a node differ from the desired state; sending the differences"
            );
        }
    }

    /// Above the budget, a report loses its bulk data. Revision states are kept, because a node sends each of them
    /// only once.
    fn within_budget(&mut self, mut report: v1::Report, bytes: usize) -> v1::Report {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if !self.budget.take(bytes, Instant::now()) {
            Meter::count(&self.calls.meter.reports, "over_budget");
            report.counters = None;
            report.exceptions_dropped = report
                .exceptions_dropped
                .saturating_add(u32::try_from(report.exceptions.len()).unwrap_or(u32::MAX));
            report.exceptions.clear();
        }
        report
    }

    fn handle_result(&mut self, result: FrameResult) -> Option<End> {
        Meter::count(&self.calls.meter.reports, result.label());
        match result {
            FrameResult::Applied => self.gaps = 0,
            FrameResult::Duplicate => {}
            FrameResult::Gap | FrameResult::Malformed => {
                self.gaps += 1;
                if self.gaps == 1 {
                    self.progress.counters_wanted.notify_one();
                }
            }
        }
        (self.gaps > GAPS).then_some(End::CountersGap)
    }
}

/// A message that is too long or invalid, or a broken connection.
fn ended_by(status: &tonic::Status) -> End {
    match status.code() {
        tonic::Code::OutOfRange | tonic::Code::InvalidArgument | tonic::Code::Internal => {
            End::Malformed
        }
        _ => End::Left,
    }
}
