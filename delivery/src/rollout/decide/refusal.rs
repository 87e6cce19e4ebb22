//! Reasons why an action does not apply.

/// Reason why an action does not apply, as a clause. It is persisted and reported with the action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The newest spec is refused, so it may no longer ask for the revision.
    #[error("the spec is not accepted: {0}")]
    NotAccepted(String),
    /// No rollout runs.
    #[error("no rollout is running")]
    NoRollout,
    /// The revision is the rejected one.
    #[error("it was rolled back; `retry` tries it again")]
    RolledBack,
    /// The value names another revision than the candidate.
    #[error("the candidate is {0}")]
    OtherCandidate(String),
    /// The value names another step than the current one.
    #[error("step {0} is not the current one")]
    OtherStep(String),
    /// `pause` during a pause.
    #[error("it is already paused")]
    AlreadyPaused,
    /// `resume` together with `pause`.
    #[error("a `pause` was written at the same time")]
    PausedAtOnce,
    /// `resume` without a pause.
    #[error("it is not paused")]
    NotPaused,
    /// `approve` without a requested approval.
    #[error("no approval is needed")]
    NoApprovalNeeded,
    /// The candidate is not loaded yet.
    #[error("nodes are still loading it")]
    StillLoading,
    /// `promote-full` of a first revision.
    #[error("the first revision is served as soon as nodes have loaded it")]
    FirstRevision,
    /// `promote-full` in the bake.
    #[error("it is already in the bake; `promote` ends that")]
    AlreadyBaking,
    /// `retry` without a rejected revision.
    #[error("nothing was rolled back")]
    NothingRejected,
    /// `retry` of another revision than the rejected one.
    #[error("the revision that was rolled back is {0}")]
    OtherRejected(String),
    /// The rollout is paused, so its weight does not rise.
    #[error("the rollout is paused; `resume` comes first")]
    Paused,
    /// A hold stops the clock, so the weight does not rise. The text is the message of the hold.
    #[error("{0}")]
    Held(String),
}
