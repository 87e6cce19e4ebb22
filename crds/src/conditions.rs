//! Types and reasons of conditions. They are part of the API: scripts may compare them.

/// Types of conditions.
pub mod types {
    /// The desired revision is accepted, it is served or the function is suspended, and no rollout runs (kstatus).
    pub const READY: &str = "Ready";
    /// The operator or the nodes still work towards the spec (kstatus).
    pub const RECONCILING: &str = "Reconciling";
    /// The object makes no progress until a person acts (kstatus).
    pub const STALLED: &str = "Stalled";
    /// The spec is valid and allowed.
    pub const ACCEPTED: &str = "Accepted";
    /// The image is resolved to a digest.
    pub const RESOLVED: &str = "Resolved";
    /// Every node offers the interfaces that the component imports.
    pub const COMPATIBLE: &str = "Compatible";
    /// Every desired node applies `status.traffic`.
    pub const DISTRIBUTED: &str = "Distributed";
    /// EdgeNode: the node has applied the newest function table.
    pub const CONVERGED: &str = "Converged";
    /// EdgeRevision: the nodes that should have the revision have loaded it.
    pub const LOADED: &str = "Loaded";
}

/// Reasons of conditions that concern the spec and its resolution. Reasons of rollouts are defined in `delivery`.
pub mod reasons {
    /// Defines the constants together with the list of all of them, so that the list is always complete.
    macro_rules! words {
        ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
            $($(#[$doc])* pub const $name: &str = $word;)*
            /// All reasons.
            pub const ALL: &[&str] = &[$($name),*];
        };
    }

    words! {
        /// The spec is accepted.
        ACCEPTED = "Accepted";
        /// A route cannot be served.
        INVALID_ROUTE = "InvalidRoute";
        /// A field has a value that is invalid but that the API server could not check.
        INVALID_SPEC = "InvalidSpec";
        /// A route equals a route of an older function in the namespace.
        ROUTE_CONFLICT = "RouteConflict";
        /// A host belongs to another namespace.
        HOST_CONFLICT = "HostConflict";
        /// A policy forbids the spec.
        POLICY_VIOLATION = "PolicyViolation";
        /// A ConfigMap, Secret or RolloutPolicy, or a key in one, does not exist.
        MISSING_REFERENCE = "MissingReference";
        /// The namespace has not granted its Secrets.
        SECRETS_NOT_GRANTED = "SecretsNotGranted";
        /// A field belongs to a later version of Selvage.
        NOT_YET_SUPPORTED = "NotYetSupported";
        /// The API server refuses an object that the spec needs: a quota, an admission webhook, a size or a permission.
        WRITE_REFUSED = "WriteRefused";
        /// The object cannot be read.
        UNREADABLE = "Unreadable";
        /// The operator has an internal error.
        INTERNAL_ERROR = "InternalError";

        /// The registry is being queried.
        RESOLVING = "Resolving";
        /// The digest is known.
        RESOLVED = "Resolved";
        /// The registry could not be reached or sent an unusable response.
        PULL_FAILED = "PullFailed";
        /// The registry has no such image.
        NOT_FOUND = "NotFound";
        /// The registry refuses the credentials.
        UNAUTHORIZED = "Unauthorized";
        /// The image holds no WebAssembly component.
        NOT_A_COMPONENT = "NotAComponent";
        /// The content does not match its digest.
        DIGEST_MISMATCH = "DigestMismatch";

        /// The nodes offer all imports.
        COMPATIBLE = "Compatible";
        /// The component imports an interface that no node offers.
        UNKNOWN_IMPORT = "UnknownImport";

        /// Nodes pull and compile the component.
        LOADING = "Loading";
    }
}
