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
    /// Constants, and the list of all of them, so that neither can lack one.
    macro_rules! words {
        ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
            $($(#[$doc])* pub const $name: &str = $word;)*
            /// Every one of them.
            pub const ALL: &[&str] = &[$($name),*];
        };
    }

    words! {
        /// Accepted.
        ACCEPTED = "Accepted";
        /// A route that cannot be served.
        INVALID_ROUTE = "InvalidRoute";
        /// A field whose value the API server could not judge.
        INVALID_SPEC = "InvalidSpec";
        /// The same match as an older function of the namespace.
        ROUTE_CONFLICT = "RouteConflict";
        /// The host belongs to another namespace.
        HOST_CONFLICT = "HostConflict";
        /// A policy forbids it.
        POLICY_VIOLATION = "PolicyViolation";
        /// A ConfigMap, Secret or RolloutPolicy, or a key in one, does not exist.
        MISSING_REFERENCE = "MissingReference";
        /// The namespace has not granted its Secrets.
        SECRETS_NOT_GRANTED = "SecretsNotGranted";
        /// A field of a later version of Selvage.
        NOT_YET_SUPPORTED = "NotYetSupported";
        /// The object could not be read.
        UNREADABLE = "Unreadable";
        /// A fault of the operator's own.
        INTERNAL_ERROR = "InternalError";

        /// The registry is being asked.
        RESOLVING = "Resolving";
        /// The digest is known.
        RESOLVED = "Resolved";
        /// The registry did not answer as it should.
        PULL_FAILED = "PullFailed";
        /// The registry has no such image.
        NOT_FOUND = "NotFound";
        /// The registry wants other credentials.
        UNAUTHORIZED = "Unauthorized";
        /// The image holds no WebAssembly component.
        NOT_A_COMPONENT = "NotAComponent";
        /// The bytes are not those the digest names.
        DIGEST_MISMATCH = "DigestMismatch";

        /// All imports are offered.
        COMPATIBLE = "Compatible";
        /// Something is imported that no assigned node offers.
        UNKNOWN_IMPORT = "UnknownImport";

        /// Nodes pull and compile.
        LOADING = "Loading";
    }
}
