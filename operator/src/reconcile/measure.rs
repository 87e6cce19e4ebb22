//! Step 3 of a reconcile: the samples that a decision is due, and nothing else.

use std::collections::BTreeSet;

use jiff::Timestamp;
use operator_core::judge::Judge;
use operator_core::rollout::{Due, Measured, RolloutState, Traffic, UnmeasuredKind};

use super::Reconciler;
use crate::watch::ObjectKey;

/// Where counters come from.
#[derive(Debug, Default)]
pub struct SampleSource {}

impl Reconciler {
    /// Takes a look and finds out stable's traffic, each only if it is due.
    pub(super) async fn measure(
        &self,
        _key: &ObjectKey,
        _state: &RolloutState,
        due: &Due,
        _exposed: &BTreeSet<String>,
        _judge: &mut Option<Judge>,
        _now: Timestamp,
    ) -> (Measured, Option<Traffic>) {
        let traffic = due.traffic.then_some(Traffic {
            requests_per_second: None,
        });
        if !due.look {
            return (Measured::NotDue, traffic);
        }
        (
            Measured::Unavailable {
                kind: UnmeasuredKind::NoAnswer,
                message: "no source of samples".to_owned(),
            },
            traffic,
        )
    }
}
