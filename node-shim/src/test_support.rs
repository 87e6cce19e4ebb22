//! Helpers of unit tests.

use std::io::{Read, Seek};
use std::sync::{Arc, LazyLock};

use tracing::Dispatch;

/// With only one subscriber in the process, tracing lets the thread that reaches a span or event first decide for all threads
/// whether it is recorded: the thread of another test has no subscriber and decides that it is not. With a second one it asks
/// all of them.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

/// Returns the only line that `act` logs at `level` and above.
pub(crate) fn logged(level: &str, act: impl FnOnce()) -> serde_json::Value {
    LazyLock::force(&SECOND);
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
