//! The tasks of a process, none of which ends in health.

use std::future::Future;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

/// Time in which tasks may end by themselves. The page and the admin endpoints are served meanwhile, because the proxies of
/// Services send connections to a replica until they have learned that it ends.
const FAREWELL: Duration = Duration::from_secs(5);
const NEXT: &str =
    "another replica takes over and nodes keep serving; this replica exits and is restarted";

/// Tasks that run as long as the process. Dropping them stops them.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Tasks {
    /// Starts a task that ends with a result.
    pub(super) fn spawn<E: Into<anyhow::Error>>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.0
            .spawn(async move { (name, task.await.map_err(Into::into)) });
    }

    /// Starts a task that cannot fail.
    pub(super) fn follow(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.0.spawn(async move {
            task.await;
            (name, Ok(()))
        });
    }

    /// Waits for the first task that ends, and returns why that ends the process.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(ended) => reason(ended),
            None => std::future::pending().await,
        }
    }

    /// Lets the tasks end in order. Those that run after five seconds are stopped.
    pub(super) async fn wind_down(mut self) {
        let all = async { while self.0.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, all).await;
    }
}

fn reason(ended: Result<(&'static str, anyhow::Result<()>), JoinError>) -> anyhow::Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((task, Ok(()))) => {
            anyhow::anyhow!("{task} ended, which is a bug in the operator; {NEXT}")
        }
        Err(error) => anyhow::anyhow!("a part of the operator failed ({error}); {NEXT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_part_that_ends_is_named_or_gives_its_error() {
        let mut tasks = Tasks::default();
        tasks.follow("one", std::future::pending());
        tasks.follow("two", async {});
        let error = tasks.ended().await.to_string();
        assert!(error.starts_with("two ended"), "{error}");
        tasks.spawn("three", async { Err(anyhow::anyhow!("the reason")) });
        assert_eq!(tasks.ended().await.to_string(), "the reason");
    }
}
