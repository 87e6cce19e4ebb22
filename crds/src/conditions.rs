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

/// Condition reasons.
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
    /// Too many.
    pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
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

    /// All desired nodes serve.
    pub const DISTRIBUTED: &str = "Distributed";
    /// Some desired nodes do not serve yet.
    pub const NODES_NOT_READY: &str = "NodesNotReady";
    /// No node matches the placement.
    pub const NO_NODES: &str = "NoNodes";

    /// Nothing on trial.
    pub const IDLE: &str = "Idle";
    /// Nodes pull and compile.
    pub const LOADING: &str = "Loading";
    /// A recently promoted revision comes back.
    pub const REVERTING: &str = "Reverting";
    /// Loaded; waits for its turn.
    pub const QUEUED: &str = "Queued";
    /// The share is being raised.
    pub const STEPPING: &str = "Stepping";
    /// The last step is under watch.
    pub const BAKING: &str = "Baking";
    /// Too few requests to tell.
    pub const AWAITING_EVIDENCE: &str = "AwaitingEvidence";
    /// A person has to agree.
    pub const AWAITING_APPROVAL: &str = "AwaitingApproval";
    /// The share stays for a named reason.
    pub const HELD: &str = "Held";
    /// A person stopped it.
    pub const PAUSED: &str = "Paused";
    /// The judge does not answer.
    pub const PROMETHEUS_UNAVAILABLE: &str = "PrometheusUnavailable";
    /// The judge answers without anything usable.
    pub const SAMPLES_MISSING: &str = "SamplesMissing";
    /// Stable and candidate both miss the SLO.
    pub const SHARED_FAILURE: &str = "SharedFailure";
    /// The share was lowered without a verdict.
    pub const BRAKE: &str = "Brake";
    /// The deadline of a step is over.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// The deadline of loading is over.
    pub const LOAD_DEADLINE_EXCEEDED: &str = "LoadDeadlineExceeded";
    /// The status was lost and rebuilt.
    pub const STATE_LOST: &str = "StateLost";
    /// `spec.suspend`.
    pub const SUSPENDED: &str = "Suspended";
    /// Candidate became stable.
    pub const PROMOTED: &str = "Promoted";
    /// Candidate was judged bad.
    pub const ROLLED_BACK: &str = "RolledBack";
    /// Candidate was sent back by a person.
    pub const ABORTED: &str = "Aborted";
    /// The wish is stable again.
    pub const WITHDRAWN: &str = "Withdrawn";
    /// No node could load it, for good.
    pub const LOAD_FAILED: &str = "LoadFailed";
    /// A gate said bad.
    pub const GATE_FAILED: &str = "GateFailed";

    /// Stable answers as it should.
    pub const HEALTHY: &str = "Healthy";
    /// Stable fails hard.
    pub const STABLE_FAILING: &str = "StableFailing";
}
