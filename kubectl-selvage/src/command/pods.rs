//! Pods of Selvage and their logs.

use anyhow::Result;
use futures::StreamExt;
use futures::io::AsyncBufReadExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client};

/// A program of Selvage: the label `app.kubernetes.io/component` of its pods, and the name of its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Operator,
    NodeShim,
}

impl Program {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::NodeShim => "node-shim",
        }
    }

    /// Label selector of the pods.
    pub(super) fn selector(self) -> String {
        format!(
            "app.kubernetes.io/name=selvage,app.kubernetes.io/component={}",
            self.as_str()
        )
    }
}

pub(super) fn pods(client: &Client, namespace: &str) -> Api<Pod> {
    Api::namespaced(client.clone(), namespace)
}

/// Lines of the log of a pod.
pub(super) async fn lines(
    pods: &Api<Pod>,
    pod: &str,
    program: Program,
    mut params: LogParams,
) -> Result<BoxStream<'static, std::io::Result<String>>> {
    params.container = Some(program.as_str().to_owned());
    let log = pods.log_stream(pod, &params).await?;
    Ok(split(log))
}

/// Splits a log into lines. What is not UTF-8 is replaced: it must not end the stream.
fn split(
    log: impl futures::io::AsyncBufRead + Send + 'static,
) -> BoxStream<'static, std::io::Result<String>> {
    let lines = futures::stream::try_unfold(Box::pin(log), |mut log| async move {
        let mut line = Vec::new();
        if log.read_until(b'\n', &mut line).await? == 0 {
            return std::io::Result::Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        Ok(Some((text, log)))
    });
    lines.boxed()
}

#[cfg(test)]
mod tests {
    use super::split;
    use futures::TryStreamExt;

    #[test]
    fn lines_that_are_no_text_do_not_end_a_log() {
        let log: &[u8] = b"one\n\xff\xfe\r\n\nlast";
        let lines: Vec<String> = futures::executor::block_on(split(log).try_collect()).unwrap();
        assert_eq!(lines, ["one", "\u{fffd}\u{fffd}", "", "last"]);
    }
}
