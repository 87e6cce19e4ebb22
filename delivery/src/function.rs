//! A function with a validated spec, reduced to what a rollout needs.
//!
//! Routes and placement are applied at once, and the code and its configuration are part of the revision's identity, so
//! none of them appears here.

use serde::{Deserialize, Serialize};

use crate::rollout::Policy;

/// Immutable version of a function's code and configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// Name of the `EdgeRevision`; it contains a hash over code and configuration, so equal names mean equal behaviour.
    pub name: String,
    /// Digest of the image's manifest, or of the bytes when inline: `sha256:<hex>`.
    pub digest: String,
}

/// A function with a validated spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// `metadata.generation` that was validated.
    pub generation: i64,
    /// Desired revision: the one that `spec` resolves to. `None` while the newest spec is not resolved or not accepted; no
    /// weight rises then.
    pub desired: Option<Revision>,
    /// Name of the candidate if `spec` certainly no longer asks for it, although `desired` is not known yet. Its weight falls
    /// to 0. `None` while `spec` may still ask for the candidate, as after a restart of the operator.
    pub abandoned: Option<String>,
    /// Why the newest spec is not accepted, as a clause. `None` while it is accepted or not checked yet.
    pub refused: Option<String>,
    /// Rollout policy with every default filled in. `None` while the newest spec is not accepted or not checked yet: no
    /// rollout starts then, least of all with another policy than the one that the user wrote.
    pub policy: Option<Policy>,
    /// Whether `spec.suspend` is set: all nodes answer 503, and all clocks stop.
    pub suspend: bool,
    /// Action annotations on the object, unchecked.
    pub actions: Vec<Annotation>,
}

impl Function {
    /// Returns what a rollout starts from: the desired revision and the policy. Both are known only while the newest spec is
    /// accepted.
    #[must_use]
    pub fn target(&self) -> Option<(&Revision, &Policy)> {
        self.desired.as_ref().zip(self.policy.as_ref())
    }
}

/// Annotation that requests an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Requested action, from the key after `selvage.dev/`.
    pub action: Action,
    /// Value `<revision>[/<token>]`, unchecked.
    pub value: String,
    /// Field manager that wrote the annotation; empty if unknown.
    pub by: String,
}

impl Annotation {
    /// Returns the value without surrounding whitespace, cut to 128 characters. It is compared and persisted in this form.
    #[must_use]
    pub fn normalized_value(&self) -> String {
        const MAX_LENGTH: usize = 128;
        self.value.trim().chars().take(MAX_LENGTH).collect()
    }
}

/// Action that a person can request for a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// End the current step now.
    Promote,
    /// Start the bake now.
    PromoteFull,
    /// Send all requests to stable and reject the candidate.
    Abort,
    /// Approve the gates that the rollout waits for.
    Approve,
    /// Try a rejected revision again.
    Retry,
    /// Stop the weight from rising.
    Pause,
    /// End a pause.
    Resume,
}

impl Action {
    /// All actions, in the order in which simultaneous ones are handled.
    pub const ALL: [Self; 7] = [
        Self::Abort,
        Self::Pause,
        Self::Resume,
        Self::Retry,
        Self::Approve,
        Self::PromoteFull,
        Self::Promote,
    ];

    /// Annotation key of the action after `selvage.dev/`.
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

    /// Parses the part of an annotation key after `selvage.dev/`.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == key)
    }
}
