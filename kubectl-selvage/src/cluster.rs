//! Access to the cluster, and errors in the terms of a user.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use crds::{EdgeFunction, EdgeRevision, LABEL_FUNCTION, RolloutPolicy};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::cli::Connection;
use crate::view::Snapshot;

/// A cluster and the namespace in which names are looked up.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig as kubectl does, or the service account of a pod where there is none.
    pub(crate) async fn connect(connection: &Connection) -> Result<Self> {
        let options = KubeConfigOptions {
            context: connection.context.clone(),
            cluster: connection.cluster.clone(),
            user: connection.user.clone(),
        };
        let is_chosen =
            options.context.is_some() || options.cluster.is_some() || options.user.is_some();
        let config = match &connection.kubeconfig {
            Some(file) => {
                let name = || format!("{} cannot be used", file.display());
                let kubeconfig = Kubeconfig::read_from(file).with_context(name)?;
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .with_context(name)?
            }
            None if is_chosen => Config::from_kubeconfig(&options)
                .await
                .context("the kubeconfig cannot be used")?,
            None => Config::infer()
                .await
                .context("there is no usable kubeconfig")?,
        };
        let namespace = connection
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Self { client, namespace })
    }

    pub(crate) fn functions(&self) -> Api<EdgeFunction> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn revisions(&self) -> Api<EdgeRevision> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Reads a function. The error names the namespace in which it does not exist.
    pub(crate) async fn function(&self, name: &str) -> Result<EdgeFunction> {
        let found = self.functions().get_opt(name).await?;
        found.with_context(|| self.missing(name))
    }

    pub(crate) fn missing(&self, name: &str) -> String {
        format!(
            "there is no EdgeFunction {name} in the namespace {}; `kubectl selvage get -A` lists all",
            self.namespace
        )
    }

    /// Reads a function with its kept revisions and the policy that it names.
    pub(crate) async fn snapshot(&self, name: &str) -> Result<Snapshot> {
        let function = self.function(name).await?;
        let selected = ListParams::default().labels(&format!("{LABEL_FUNCTION}={name}"));
        // what cannot be read is not shown
        let revisions = self.revisions().list(&selected).await;
        let policy = self.policy(&function).await;
        Ok(Snapshot {
            function,
            revisions: named(revisions.map(|list| list.items).unwrap_or_default()),
            policy,
        })
    }

    /// Reads the policy that a function names, if it can be read.
    pub(crate) async fn policy(&self, function: &EdgeFunction) -> Option<RolloutPolicy> {
        let rollout = function.spec.rollout.as_ref()?;
        let name = &rollout.policy_ref.as_ref()?.name;
        let policies: Api<RolloutPolicy> = Api::namespaced(self.client.clone(), &self.namespace);
        policies.get(name).await.ok()
    }
}

/// Returns revisions by name.
pub(crate) fn named(revisions: Vec<EdgeRevision>) -> BTreeMap<String, EdgeRevision> {
    let named =
        |revision: EdgeRevision| (revision.metadata.name.clone().unwrap_or_default(), revision);
    revisions.into_iter().map(named).collect()
}

/// Formats an error with its causes. An answer of the API server is its message alone.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut shown: Vec<String> = Vec::new();
    for error in error.chain() {
        let part = cause(error);
        // many errors repeat the text of their cause
        if !shown.iter().any(|before| before.contains(&part)) {
            shown.push(part);
        }
        if matches!(error.downcast_ref(), Some(kube::Error::Api(_))) {
            break;
        }
    }
    shown.join(": ")
}

fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    // its text would repeat the whole cause
    if error.is::<kube::runtime::watcher::Error>() {
        return "the watch failed".to_owned();
    }
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if status.code == 404 && !is_about_an_object(status) => {
            "the cluster does not know the kinds of Selvage: is it installed there?".to_owned()
        }
        Some(kube::Error::Api(status)) => {
            format!("the API server refuses: {}", status.message)
        }
        Some(kube::Error::Service(error)) => format!("the API server cannot be reached: {error}"),
        _ => error.to_string(),
    }
}

/// Whether a 404 is about an object; otherwise it is about the kind.
fn is_about_an_object(status: &kube::core::Status) -> bool {
    let details = status.details.as_ref();
    details.is_some_and(|details| !details.name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    #[test]
    fn an_answer_of_the_api_server_is_its_message() {
        let refused = Status::failure("edgefunctions.selvage.dev is forbidden", "Forbidden");
        let error = anyhow::Error::from(kube::Error::Api(refused.with_code(403).boxed()));
        let text = explain(&error.context("the action cannot be written"));
        assert_eq!(
            text,
            "the action cannot be written: the API server refuses: edgefunctions.selvage.dev is forbidden"
        );
    }

    #[test]
    fn a_cluster_without_selvage_is_named_as_such() {
        let missing = Status::failure(
            "the server could not find the requested resource",
            "NotFound",
        );
        let error = anyhow::Error::from(kube::Error::Api(missing.with_code(404).boxed()));
        assert_eq!(
            explain(&error),
            "the cluster does not know the kinds of Selvage: is it installed there?"
        );
    }
}
