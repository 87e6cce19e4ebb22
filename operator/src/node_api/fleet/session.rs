//! One stream's word about its node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use node_api::v1;
use tokio::time::Instant;

use super::{FunctionKey, Source};

/// See the module's text.
pub(super) struct Session {
    pub(super) source: Source,
    pub(super) hello: v1::Hello,
    pub(super) ended: bool,
    /// A report that lists every revision has come: before, silence about a revision means nothing.
    pub(super) complete: bool,
    pub(super) last_contact: Instant,
    pub(super) last_contact_at: Timestamp,
    pub(super) applied_version: u64,
    pub(super) revisions: BTreeMap<FunctionKey, BTreeMap<String, v1::RevisionState>>,
    pub(super) exceptions: Vec<v1::NodeException>,
    pub(super) exceptions_dropped: u32,
    pub(super) functions_desired: u32,
    pub(super) functions_loaded: u32,
    pub(super) functions_failed: u32,
    pub(super) ready: bool,
}
