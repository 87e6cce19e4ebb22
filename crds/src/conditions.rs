//! Condition types and reasons of an EdgeFunction: stable words that scripts may compare.

/// Condition types.
pub mod types {
    /// The newest wish was accepted, is served, and no rollout runs (kstatus).
    pub const READY: &str = "Ready";
    /// Work is going on (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// Nothing will change without a person (kstatus).
    pub const STALLED: &str = "Stalled";
    /// The spec is valid and allowed.
    pub const ACCEPTED: &str = "Accepted";
    /// The image string has a digest.
    pub const RESOLVED: &str = "Resolved";
    /// Every node offers what the component imports.
    pub const COMPATIBLE: &str = "Compatible";
    /// Every desired node serves what `status.traffic` says.
    pub const DISTRIBUTED: &str = "Distributed";
    /// A rollout runs.
    pub const PROGRESSING: &str = "Progressing";
    /// The stable version answers as it should.
    pub const HEALTHY: &str = "Healthy";
    /// EdgeNode: the node holds the newest table.
    pub const CONVERGED: &str = "Converged";
    /// EdgeRevision: loaded on the nodes that should have it.
    pub const LOADED: &str = "Loaded";
}

/// Condition reasons that the operator gives before a rollout decides; those of rollouts are in its core.
pub mod reasons {
    /// Accepted.
    pub const ACCEPTED: &str = "Accepted";
    /// A route that cannot be served.
    pub const INVALID_ROUTE: &str = "InvalidRoute";
    /// A field whose value the API server could not judge.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The same match as an older function of the namespace.
    pub const ROUTE_CONFLICT: &str = "RouteConflict";
    /// The host belongs to another namespace.
    pub const HOST_CONFLICT: &str = "HostConflict";
    /// A policy forbids it.
    pub const POLICY_VIOLATION: &str = "PolicyViolation";
    /// A ConfigMap, Secret or RolloutPolicy, or a key in one, does not exist.
    pub const MISSING_REFERENCE: &str = "MissingReference";
    /// The namespace has not granted its Secrets.
    pub const SECRETS_NOT_GRANTED: &str = "SecretsNotGranted";
    /// A field of a later version of Selvage.
    pub const NOT_YET_SUPPORTED: &str = "NotYetSupported";
    /// The object could not be read.
    pub const UNREADABLE: &str = "Unreadable";

    /// The digest is known.
    pub const RESOLVED: &str = "Resolved";
    /// The registry did not answer as it should.
    pub const PULL_FAILED: &str = "PullFailed";
    /// The registry has no such image.
    pub const NOT_FOUND: &str = "NotFound";
    /// The registry wants other credentials.
    pub const UNAUTHORIZED: &str = "Unauthorized";
    /// The image holds no WebAssembly component.
    pub const NOT_A_COMPONENT: &str = "NotAComponent";
    /// The bytes are not those the digest names.
    pub const DIGEST_MISMATCH: &str = "DigestMismatch";

    /// All imports are offered.
    pub const COMPATIBLE: &str = "Compatible";
    /// Something is imported that no assigned node offers.
    pub const UNKNOWN_IMPORT: &str = "UnknownImport";

    /// Nodes pull and compile.
    pub const LOADING: &str = "Loading";
}
