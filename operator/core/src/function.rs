//! A function whose spec has been checked: what the rollout needs to know of it, and nothing else.
//!
//! Routes, placement and everything that belongs to the code itself never reach a rollout decision:
//! they are either applied at once or are part of the revision's identity.

use serde::{Deserialize, Serialize};

use crate::rollout::Policy;

/// One immutable version of code and configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// Name of the `EdgeRevision`; it contains a hash over code and configuration, so equal names mean equal behaviour.
    pub name: String,
    /// Digest of the image's manifest, or of the bytes when inline: `sha256:<hex>`.
    pub digest: String,
}

/// A validated function.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// `metadata.generation` that was validated.
    pub generation: i64,
    /// The revision that `spec` resolves to now. `None` while the newest spec is not resolved or not accepted: then
    /// no share rises.
    pub wish: Option<Revision>,
    /// Name of the candidate if `spec` certainly asks for something else, although `wish` is not known yet: its share
    /// falls to 0. `None` while `spec` may still mean the candidate, as after a restart of the operator.
    pub abandoned: Option<String>,
    /// Why the newest spec is not accepted, as a clause. `None` while it is accepted or not checked yet.
    pub refused: Option<String>,
    /// The rollout body with every default filled in.
    pub policy: Policy,
    /// `spec.suspend`: answers 503 everywhere and stops all clocks.
    pub suspend: bool,
    /// Verb annotations as they are on the object now, raw.
    pub verbs: Vec<Annotation>,
}

/// A verb annotation as found on the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The part after `selvage.dev/`.
    pub verb: Verb,
    /// `<revision>[/<token>]`, not checked.
    pub value: String,
    /// Field manager that wrote it; empty if unknown.
    pub by: String,
}

impl Annotation {
    /// The value as it is compared and kept: without blanks around it; longer ones are nonsense and cut.
    #[must_use]
    pub fn meant(&self) -> String {
        const MOST: usize = 128;
        self.value.trim().chars().take(MOST).collect()
    }
}

/// What a person can ask of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Leave the present step now.
    Promote,
    /// Go to the bake now.
    PromoteFull,
    /// Send everybody back to stable and reject the candidate.
    Abort,
    /// Open the approval gate that is being waited for.
    Approve,
    /// Try a rejected candidate once more.
    Retry,
    /// Stop raising.
    Pause,
    /// End a pause.
    Resume,
}

impl Verb {
    /// Every verb, in the order in which simultaneous ones are acted on.
    pub const ALL: [Self; 7] = [
        Self::Abort,
        Self::Pause,
        Self::Resume,
        Self::Retry,
        Self::Approve,
        Self::PromoteFull,
        Self::Promote,
    ];

    /// The annotation's key after `selvage.dev/`.
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

    /// The verb of an annotation key's last part.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|v| v.as_str() == key)
    }
}
