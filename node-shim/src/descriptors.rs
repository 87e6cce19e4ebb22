//! Limit on the file descriptors of the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit to the highest value that the process may set. Service managers and container runtimes start
/// programs with a limit of 1,024, which select(2) needs and this program does not.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        let limit = limit.current;
        tracing::warn!(%error, limit, "the limit on file descriptors cannot be raised");
    }
}

/// Returns the limit; `u64::MAX` when there is none.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
