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
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// It does not exist.
    Gone,
    /// It exists.
    There,
    /// The read failed, or its result cannot be trusted.
    Unknown(Doubt),
}

/// Why the API server's answer does not show that an object was deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Doubt {
    #[error(transparent)]
    Call(Arc<CallError>),
    #[error("the list is too long")]
    LongList,
    #[error("its lists have no version")]
    NoVersion,
    #[error("its store is older than versions that it returned before")]
    OldStore,
    #[error("the CustomResourceDefinition is being deleted")]
    DefinitionTerminates,
    #[error("the CustomResourceDefinition has no age")]
    DefinitionAge,
    #[error(
        "they were removed together with the CustomResourceDefinition, which was created again since"
    )]
    NewDefinition,
}

impl From<CallError> for Doubt {
    fn from(error: CallError) -> Self {
        Self::Call(Arc::new(error))
    }
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
                let verified = trust.verify(lost.version, lost.created.as_ref());
                let found = verified.map_or_else(Found::Unknown, |()| Found::Gone);
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
                Err(error) => return all(lost, &Found::Unknown(error.into())),
            };
            if list.metadata.continue_.is_some_and(|more| !more.is_empty()) {
                return all(lost, &Found::Unknown(Doubt::LongList));
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
        Err(error) => Found::Unknown(error.into()),
    }
}

/// Evidence that a missing object was deleted, and not lost with its store or definition.
pub(crate) struct Trust {
    /// Current version of the store.
    version: Result<u64, Doubt>,
    /// Creation time of the kind's definition; `None` for a built-in kind.
    defined: Result<Option<Time>, Doubt>,
}

impl Trust {
    /// Reads the version of the store and the definition of the kind.
    pub(crate) async fn establish(client: &Client, kind: &ApiResource) -> Self {
        let all: Api<DynamicObject> = Api::all_with(client.clone(), kind);
        let list = call(all.list_metadata(&ListParams::default().limit(1))).await;
        let version = match list.map(|list| list.metadata.resource_version) {
            Ok(version) => version
                .and_then(|version| version.parse().ok())
                .ok_or(Doubt::NoVersion),
            Err(error) => Err(error.into()),
        };
        let defined = if kind.group == EdgeFunction::group(&()) {
            definition(client, kind).await.map(Some)
        } else {
            Ok(None)
        };
        Self { version, defined }
    }

    /// Evaluates whether an object last seen at `version`, and created at `created`, was deleted.
    ///
    /// # Errors
    /// The object may have been lost instead.
    pub(crate) fn verify(&self, version: u64, created: Option<&Time>) -> Result<(), Doubt> {
        match (&self.version, &self.defined) {
            (Err(doubt), _) | (_, Err(doubt)) => Err(doubt.clone()),
            (Ok(now), _) if *now < version => Err(Doubt::OldStore),
            (_, Ok(Some(defined))) if created.is_none_or(|created| created.0 < defined.0) => {
                Err(Doubt::NewDefinition)
            }
            _ => Ok(()),
        }
    }
}

/// Returns the creation time of a kind's definition, if it is intact.
async fn definition(client: &Client, kind: &ApiResource) -> Result<Time, Doubt> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = format!("{}.{}", kind.plural, kind.group);
    let found = call(api.get_metadata(&name)).await?;
    if found.metadata.deletion_timestamp.is_some() {
        return Err(Doubt::DefinitionTerminates);
    }
    found
        .metadata
        .creation_timestamp
        .ok_or(Doubt::DefinitionAge)
}
