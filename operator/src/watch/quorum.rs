//! Quorum reads: find out from the API server and its store whether an object was deleted, and whether the answer can
//! be trusted.

use std::collections::HashMap;
use std::sync::Arc;

use crds::EdgeFunction;
use futures::{StreamExt, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::ApiResource;
use kube::{Api, Client, Resource};

use super::ObjectKey;
use crate::reconcile::api::{CallError, call};

/// Maximum number of concurrent reads.
const AT_ONCE: usize = 8;
/// Maximum length of a list; a longer list is not read to its end.
const PAGE: u32 = 500;

/// An object that seems to be deleted.
#[derive(Debug, Clone)]
pub(crate) struct Lost {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Option<String>,
    pub(crate) created: Option<Time>,
    /// Newest known version of the object, including that of its deletion.
    pub(crate) version: u64,
}

/// One read request.
#[derive(Debug)]
pub(crate) enum Question {
    /// A GET of one object.
    Object(Lost),
    /// A LIST of a namespace.
    Namespace(Arc<str>, Vec<Lost>),
}

/// Result of a read for one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// It does not exist.
    Gone,
    /// It exists.
    There,
    /// The read failed, or its result cannot be trusted.
    Unknown(String),
}

/// Reads objects from the API server and returns the result for each.
pub(crate) async fn ask<K>(client: Client, questions: Vec<Question>) -> Vec<(ObjectKey, Found)>
where
    K: Resource<DynamicType = ()>,
{
    let kind = ApiResource::erase::<K>(&());
    let answers: Vec<Vec<(Lost, Found)>> = stream::iter(questions)
        .map(|question| read(&client, &kind, question))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    // Check this after the reads: a definition that is intact now was not being deleted when the objects were read.
    let trust = Trust::establish(&client, &kind).await;
    let results = answers
        .into_iter()
        .flatten()
        .map(|(lost, found)| match found {
            Found::Gone => {
                let found = trust.verify(lost.version, lost.created.as_ref());
                (lost.key, found)
            }
            found => (lost.key, found),
        });
    results.collect()
}

async fn read(client: &Client, kind: &ApiResource, question: Question) -> Vec<(Lost, Found)> {
    match question {
        Question::Object(lost) => {
            let found = one(client, kind, &lost).await;
            vec![(lost, found)]
        }
        Question::Namespace(namespace, lost) => {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, kind);
            let params = ListParams::default().limit(PAGE);
            let list = match call(api.list_metadata(&params)).await {
                Ok(list) => list,
                Err(error) => return all(lost, &Found::Unknown(error.to_string())),
            };
            if list.metadata.continue_.is_some_and(|more| !more.is_empty()) {
                return all(lost, &Found::Unknown("the list is too long".to_owned()));
            }
            let uids: HashMap<_, _> = list
                .items
                .into_iter()
                .map(|item| (item.metadata.name, item.metadata.uid))
                .collect();
            let found = |lost: &Lost| match uids.get(&Some(lost.key.name.to_string())) {
                Some(uid) if *uid == lost.uid => Found::There,
                _ => Found::Gone,
            };
            lost.into_iter()
                .map(|lost| {
                    let found = found(&lost);
                    (lost, found)
                })
                .collect()
        }
    }
}

fn all(lost: Vec<Lost>, found: &Found) -> Vec<(Lost, Found)> {
    lost.into_iter().map(|lost| (lost, found.clone())).collect()
}

async fn one(client: &Client, kind: &ApiResource, lost: &Lost) -> Found {
    let api: Api<DynamicObject> = match &*lost.key.namespace {
        "" => Api::all_with(client.clone(), kind),
        namespace => Api::namespaced_with(client.clone(), namespace, kind),
    };
    match call(api.get_metadata(&lost.key.name)).await {
        Ok(there) if there.metadata.uid == lost.uid => Found::There,
        // A different object with the same name exists.
        Ok(_) => Found::Gone,
        Err(error) if error.is_gone_object(&lost.key.name) => Found::Gone,
        Err(error) => Found::Unknown(error.to_string()),
    }
}

/// Evidence that a missing object was deleted, and not lost with its store or definition.
pub(crate) struct Trust {
    /// Current version of the store.
    version: Result<u64, String>,
    /// Creation time of the kind's definition; `None` for a built-in kind.
    defined: Result<Option<Time>, String>,
}

impl Trust {
    /// Reads the version of the store and the definition of the kind.
    pub(crate) async fn establish(client: &Client, kind: &ApiResource) -> Self {
        let all: Api<DynamicObject> = Api::all_with(client.clone(), kind);
        let list = call(all.list_metadata(&ListParams::default().limit(1))).await;
        let version = match list.map(|list| list.metadata.resource_version) {
            Ok(version) => version
                .and_then(|version| version.parse().ok())
                .ok_or_else(|| "its lists have no version".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let defined = if kind.group == EdgeFunction::group(&()) {
            definition(client, kind).await.map(Some)
        } else {
            Ok(None)
        };
        Self { version, defined }
    }

    /// Evaluates whether an object last seen at `version`, and created at `created`, was deleted.
    pub(crate) fn verify(&self, version: u64, created: Option<&Time>) -> Found {
        let unknown = |why: &str| Found::Unknown(why.to_owned());
        match (&self.version, &self.defined) {
            (Err(why), _) | (_, Err(why)) => unknown(why),
            (Ok(now), _) if *now < version => {
                unknown("its store is older than versions that it returned before")
            }
            (_, Ok(Some(defined))) if created.is_none_or(|created| created.0 < defined.0) => {
                unknown(
                    "they were removed together with the CustomResourceDefinition, which was created again since",
                )
            }
            _ => Found::Gone,
        }
    }
}

/// Returns the creation time of a kind's definition, if it is intact.
async fn definition(client: &Client, kind: &ApiResource) -> Result<Time, String> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = format!("{}.{}", kind.plural, kind.group);
    let found = call(api.get_metadata(&name))
        .await
        .map_err(|error: CallError| error.to_string())?;
    if found.metadata.deletion_timestamp.is_some() {
        return Err("the CustomResourceDefinition is being deleted".to_owned());
    }
    found
        .metadata
        .creation_timestamp
        .ok_or_else(|| "the CustomResourceDefinition has no age".to_owned())
}
