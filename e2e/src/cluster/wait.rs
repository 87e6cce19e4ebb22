//! Waiting for something to become true, on the monotonic clock.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Asks every `pause` until `ask` returns something.
///
/// # Errors
/// `limit` passed, or `ask` failed for good.
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
