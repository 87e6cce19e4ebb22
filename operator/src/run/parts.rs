//! The tasks of a process, none of which ends in health.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

/// Time in which tasks may end by themselves.
const FAREWELL: Duration = Duration::from_secs(3);
const NEXT: &str =
    "another replica takes over and nodes keep serving; this replica exits and is restarted";

/// Tasks that run as long as the process. Dropping them stops them.
#[derive(Default)]
pub(super) struct Parts(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Parts {
    /// Starts a part that ends with a result.
    pub(super) fn spawn<E: Into<anyhow::Error>>(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.0
            .spawn(async move { (name, part.await.map_err(Into::into)) });
    }

    /// Starts a part that cannot fail.
    pub(super) fn follow(
        &mut self,
        name: &'static str,
        part: impl Future<Output = ()> + Send + 'static,
    ) {
        self.0.spawn(async move {
            part.await;
            (name, Ok(()))
        });
    }

    /// Waits for the first part that ends, and returns why that ends the process.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(ended) => reason(ended),
            None => std::future::pending().await,
        }
    }

    /// Lets the parts end orderly; those that need longer than three seconds are stopped.
    pub(super) async fn wind_down(mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }
}

fn reason(ended: Result<(&'static str, anyhow::Result<()>), JoinError>) -> anyhow::Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((part, Ok(()))) => {
            anyhow::anyhow!("{part} ended, which is a bug in the operator; {NEXT}")
        }
        Err(error) => anyhow::anyhow!("a part of the operator failed ({error}); {NEXT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_part_that_ends_is_named_or_gives_its_error() {
        let mut parts = Parts::default();
        parts.follow("one", std::future::pending());
        parts.follow("two", async {});
        let error = parts.ended().await.to_string();
        assert!(error.starts_with("two ended"), "{error}");
        parts.spawn("three", async { Err(anyhow::anyhow!("the reason")) });
        assert_eq!(parts.ended().await.to_string(), "the reason");
    }
}
