//! Waits for a condition, on the monotonic clock.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Calls `ask` every `pause` until it returns a value.
///
/// # Errors
/// Returns an error when `limit` has passed or `ask` fails.
pub async fn until<T>(
    limit: Duration,
    pause: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        (begin.elapsed() < limit)
            .then_some(())
            .with_context(|| format!("gave up after {} s", limit.as_secs()))?;
        tokio::time::sleep(pause).await;
    }
}
