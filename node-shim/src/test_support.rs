//! Helpers of unit tests.

use std::io::{Read, Seek};
use std::sync::Arc;

/// Returns the only line that `act` logs at `level` and above.
pub(crate) fn logged(level: &str, act: impl FnOnce()) -> serde_json::Value {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter(level)
        .with_writer(Arc::clone(&file))
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let mut lines = String::new();
    (&*file).rewind().unwrap();
    (&*file).read_to_string(&mut lines).unwrap();
    serde_json::from_str(&lines).unwrap()
}
