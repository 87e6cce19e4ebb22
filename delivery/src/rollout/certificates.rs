//! Status of a function with a route whose certificate nodes cannot use.
//!
//! A certificate belongs to no revision, so it neither starts a rollout nor stops one.

use super::conditions::SUSPENDED;
use super::{Condition, ConditionStatus, ConditionType, SECRETS_UNAVAILABLE};

/// Reason of `Distributed=False`: a Secret that a served route names holds no certificate that nodes can use for it.
pub const CERTIFICATE_UNUSABLE: &str = "CertificateUnusable";

/// Changes the conditions of a function with such a certificate; `text` explains it. Nodes that answer 503 matter more than that.
/// A suspended function stays Ready: it answers 503 whatever its certificate is, so nothing of its spec is missing on the nodes.
pub fn report_unusable_certificate(conditions: &mut [Condition], text: &str) {
    let is_served = |one: &Condition| {
        one.kind == ConditionType::Ready
            && one.status == ConditionStatus::True
            && one.reason != SUSPENDED
    };
    let was_served = conditions.iter().any(is_served);
    for condition in conditions {
        match condition.kind {
            ConditionType::Distributed if condition.reason == SECRETS_UNAVAILABLE => {
                condition.message = format!("{}. {text}", condition.message.trim_end_matches('.'));
            }
            ConditionType::Ready | ConditionType::Stalled if was_served => {
                condition.set(condition.kind == ConditionType::Stalled, text);
            }
            ConditionType::Reconciling if was_served => {
                CERTIFICATE_UNUSABLE.clone_into(&mut condition.reason);
            }
            ConditionType::Distributed => condition.set(false, text),
            ConditionType::Ready
            | ConditionType::Reconciling
            | ConditionType::Stalled
            | ConditionType::Progressing
            | ConditionType::Healthy => {}
        }
    }
}

impl Condition {
    fn set(&mut self, status: bool, text: &str) {
        self.status = status.into();
        CERTIFICATE_UNUSABLE.clone_into(&mut self.reason);
        text.clone_into(&mut self.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(ready: bool, reason: &str, distributed: &str) -> Vec<Condition> {
        let of = |kind, status: bool, reason: &str| Condition {
            kind,
            status: status.into(),
            reason: reason.into(),
            message: "before".into(),
        };
        vec![
            of(ConditionType::Ready, ready, reason),
            of(ConditionType::Reconciling, !ready, reason),
            of(ConditionType::Stalled, false, reason),
            of(ConditionType::Distributed, true, distributed),
            of(ConditionType::Healthy, true, "StableServes"),
        ]
    }

    fn reported(
        ready: bool,
        reason: &str,
        distributed: &str,
    ) -> Vec<(ConditionStatus, String, String)> {
        let mut all = conditions(ready, reason, distributed);
        report_unusable_certificate(&mut all, "expired");
        let parts = |one: Condition| (one.status, one.reason, one.message);
        all.into_iter().map(parts).collect()
    }

    fn is(status: bool, reason: &str, message: &str) -> (ConditionStatus, String, String) {
        (status.into(), reason.into(), message.into())
    }

    #[test]
    fn a_function_at_rest_is_not_ready_and_stalled() {
        let expected = [
            is(false, CERTIFICATE_UNUSABLE, "expired"),
            is(false, CERTIFICATE_UNUSABLE, "before"),
            is(true, CERTIFICATE_UNUSABLE, "expired"),
            is(false, CERTIFICATE_UNUSABLE, "expired"),
            is(true, "StableServes", "before"),
        ];
        assert_eq!(reported(true, "Promoted", "Distributed"), expected);
    }

    #[test]
    fn a_rollout_goes_on_and_keeps_its_conditions() {
        let found = reported(false, "Promoted", "NodesBehind");
        assert_eq!(found[0], is(false, "Promoted", "before"));
        assert_eq!(found[1], is(true, "Promoted", "before"));
        assert_eq!(found[2], is(false, "Promoted", "before"));
        assert_eq!(found[3], is(false, CERTIFICATE_UNUSABLE, "expired"));
        let found = reported(false, "Promoted", SECRETS_UNAVAILABLE);
        assert_eq!(found[3], is(true, SECRETS_UNAVAILABLE, "before. expired"));
    }

    #[test]
    fn a_suspended_function_stays_ready() {
        let found = reported(true, SUSPENDED, "Distributed");
        assert_eq!(found[0], is(true, SUSPENDED, "before"));
        assert_eq!(found[1], is(false, SUSPENDED, "before"));
        assert_eq!(found[2], is(false, SUSPENDED, "before"));
        assert_eq!(found[3], is(false, CERTIFICATE_UNUSABLE, "expired"));
    }
}
