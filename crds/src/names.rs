//! Every name that other programs rely on: group, labels, annotations, finders, managers.

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

/// Before a verb (`promote`, `promote-full`, `abort`, `approve`, `retry`, `pause`, `resume`) this is the annotation by
/// which a person says it.
pub const VERB_PREFIX: &str = "selvage.dev/";

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

/// The host that a `HostClaim` of this name is about: the way back from [`host_claim_name`].
#[must_use]
pub fn claimed_host(name: &str) -> String {
    match name.strip_suffix(".0") {
        Some(rest) => format!("*.{rest}"),
        None if name == "0" => "*".to_owned(),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_named_after_hosts() {
        for (host, name) in [
            ("shop.example", "shop.example"),
            ("*.shop.example", "shop.example.0"),
            ("*", "0"),
        ] {
            assert_eq!(host_claim_name(host), name);
            assert_eq!(claimed_host(name), host);
        }
    }
}
