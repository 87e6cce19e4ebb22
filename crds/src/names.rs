//! Names that other programs rely on: API group, labels, annotations and field managers.

/// The API version that is stored and served.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every kind.
pub const API_VERSION: &str = "selvage.dev/v1alpha1";

/// Field manager of the operator's writes.
pub const FIELD_MANAGER: &str = "selvage-operator";
/// `reportingController` of Events.
pub const EVENT_CONTROLLER: &str = "selvage.dev/operator";

/// Label of every object that the operator owns. Its value is [`MANAGED_BY_VALUE`].
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY_VALUE: &str = "selvage";
/// Label with the name of the EdgeFunction that an object belongs to.
pub const LABEL_FUNCTION: &str = "selvage.dev/function";
/// Label with the name of the EdgeRevision that an object belongs to.
pub const LABEL_REVISION: &str = "selvage.dev/revision";

/// Annotation of the operator's Secret `selvage-node-api`, if the operator has created it again: when its key of content hashes was
/// made (RFC 3339). Otherwise this is when the Secret was created.
pub const ANNOTATION_HASH_KEY_SINCE: &str = "selvage.dev/hash-key-since";

/// Prefix of the annotations that request an action: `promote`, `promote-full`, `abort`, `approve`, `retry`, `pause` and
/// `resume`.
pub const ACTION_PREFIX: &str = "selvage.dev/";

/// Returns the name of the HostClaim for `host`. Object names cannot contain `*`, and no host ends in a number, so
/// `*.x.example` becomes `x.example.0` and `*` becomes `0`.
#[must_use]
pub fn host_claim_name(host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(rest) => format!("{rest}.0"),
        None if host == "*" => "0".to_owned(),
        None => host.to_owned(),
    }
}

/// Returns the host of the HostClaim with this name: the inverse of [`host_claim_name`].
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
