//! Answers kubectl, which completes a command line: the names are those of the cluster.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::ListParams;
use kube::core::{ObjectList, PartialObjectMeta};

use crate::Code;
use crate::cli::Connection;
use crate::cluster::Cluster;
use crate::completion::{self, Candidate, Wanted};
use crate::screen;

/// Time limit for the answer of a cluster: a user who has pressed a key waits for it.
const LIMIT: Duration = Duration::from_secs(2);

/// Prints the candidates for the last word. Errors are not printed, because the terminal shows a command line that is being typed.
pub(crate) async fn complete(words: &[String]) -> Result<Code> {
    let request = completion::read(words);
    let candidates = match request.wanted {
        Wanted::Words(words) => Some(words),
        Wanted::File => None,
        Wanted::Function | Wanted::Namespace => {
            let names = names(&request.connection, &request.wanted);
            let answered = tokio::time::timeout(LIMIT, names).await;
            let names = answered.ok().and_then(Result::ok).unwrap_or_default();
            let names = names.into_iter().map(|word| Candidate {
                word,
                description: String::new(),
            });
            Some(names.collect())
        }
    };
    let text = completion::answer(candidates.as_deref(), &request.typed);
    screen::write_all(text.as_bytes())?;
    Ok(Code::Done)
}

/// Returns the names of the functions in the namespace, or of the namespaces.
async fn names(connection: &Connection, wanted: &Wanted) -> Result<Vec<String>> {
    let cluster = Cluster::connect(connection).await?;
    let all = ListParams::default();
    Ok(if *wanted == Wanted::Namespace {
        let namespaces: Api<Namespace> = Api::all(cluster.client);
        names_of(&namespaces.list_metadata(&all).await?)
    } else {
        names_of(&cluster.functions().list_metadata(&all).await?)
    })
}

fn names_of<K>(list: &ObjectList<PartialObjectMeta<K>>) -> Vec<String>
where
    K: Clone,
{
    list.items
        .iter()
        .map(|one| one.metadata.name.clone().unwrap_or_default())
        .collect()
}
