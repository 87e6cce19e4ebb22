//! Preview: a request that names the revision which serves it, whatever the weights are.

use http::HeaderName;

use crate::pick::Arm;
use crate::table::{RevisionName, TrafficSplit};

/// Header with the name of the revision. It counts only on connections from the pod itself, such as those of `kubectl
/// port-forward`, which needs a permission of Kubernetes.
pub const REVISION: HeaderName = HeaderName::from_static("selvage-revision");

/// Returns the side of the split whose revision has this name.
///
/// ```
/// use node_shim_core::{pick::Arm, preview::arm_of, table::{RevisionName, TrafficSplit}};
///
/// let split = TrafficSplit {
///     stable: RevisionName::new("checkout-51ab"),
///     candidate: RevisionName::new("checkout-7d4c"),
///     ..TrafficSplit::default()
/// };
/// assert_eq!(arm_of(&split, "checkout-7d4c"), Some(Arm::Candidate));
/// assert_eq!(arm_of(&split, "checkout-0000"), None);
/// ```
pub fn arm_of(split: &TrafficSplit, name: &str) -> Option<Arm> {
    let is = |revision: &Option<RevisionName>| {
        let named = revision.as_ref();
        named.is_some_and(|revision| revision.as_str() == name)
    };
    if is(&split.candidate) {
        Some(Arm::Candidate)
    } else {
        is(&split.stable).then_some(Arm::Stable)
    }
}
