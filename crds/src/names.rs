//! Every name that other programs rely on: group, labels, annotations, finders, managers.

/// API group of every kind.
pub const GROUP: &str = "selvage.dev";
/// The only version so far: stored and served.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every kind.
pub const API_VERSION: &str = "selvage.dev/v1alpha1";

/// Field manager of the operator's writes.
pub const FIELD_MANAGER: &str = "selvage-operator";
/// `reportingController` of Events.
pub const EVENT_CONTROLLER: &str = "selvage.dev/operator";

/// On everything owned: value [`MANAGED_BY_VALUE`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// See [`LABEL_MANAGED_BY`].
pub const MANAGED_BY_VALUE: &str = "selvage";
/// Name of the EdgeFunction an object belongs to.
pub const LABEL_FUNCTION: &str = "selvage.dev/function";
/// Name of the EdgeRevision an object belongs to.
pub const LABEL_REVISION: &str = "selvage.dev/revision";

/// What a person asks of a running rollout, written as an annotation of the EdgeFunction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerbName {
    /// Take the next step now.
    Promote,
    /// Skip all remaining steps, keep the bake.
    PromoteFull,
    /// Back to stable.
    Abort,
    /// Answer an approval gate.
    Approve,
    /// Try a rejected revision again.
    Retry,
    /// Stop raising.
    Pause,
    /// Go on raising.
    Resume,
}

impl VerbName {
    /// All verbs in the order in which they are read: the cautious ones first.
    pub const ALL: [Self; 7] = [
        Self::Abort,
        Self::Pause,
        Self::Resume,
        Self::Approve,
        Self::Promote,
        Self::PromoteFull,
        Self::Retry,
    ];

    /// The annotation key.
    #[must_use]
    pub const fn annotation(self) -> &'static str {
        match self {
            Self::Promote => "selvage.dev/promote",
            Self::PromoteFull => "selvage.dev/promote-full",
            Self::Abort => "selvage.dev/abort",
            Self::Approve => "selvage.dev/approve",
            Self::Retry => "selvage.dev/retry",
            Self::Pause => "selvage.dev/pause",
            Self::Resume => "selvage.dev/resume",
        }
    }

    /// The word itself, as in `status.rollout.verbs[].verb`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::PromoteFull => "promote-full",
            Self::Abort => "abort",
            Self::Approve => "approve",
            Self::Retry => "retry",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// Name of the HostClaim that owns `host`. Object names know no `*`, and no host ends in a number,
/// so `*.x.example` becomes `x.example.0` and `*` becomes `0`.
#[must_use]
pub fn host_claim_name(host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(rest) => format!("{rest}.0"),
        None if host == "*" => "0".to_owned(),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_named_after_hosts() {
        assert_eq!(host_claim_name("shop.example"), "shop.example");
        assert_eq!(host_claim_name("*.shop.example"), "shop.example.0");
        assert_eq!(host_claim_name("*"), "0");
    }

    #[test]
    fn verbs_and_annotations_agree() {
        for verb in VerbName::ALL {
            assert_eq!(verb.annotation(), format!("selvage.dev/{}", verb.as_str()));
        }
    }
}
