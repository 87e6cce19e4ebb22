//! The operator's Secret: certificates of the node API and the key of content hashes. The leader creates and renews
//! it; every replica reads it and restores it when it is deleted. With another key, every revision with references would
//! get another name, and nodes that start would find no CA.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crds::{ANNOTATION_HASH_KEY_SINCE, LABEL_MANAGED_BY, MANAGED_BY_VALUE};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::node_api::tls::{self, KeyMaterial};
use crate::reconcile::CallError;
use crate::reconcile::api::call;
use crate::watch::{ObjectKey, SecretState, Secrets};

/// Interval between two checks of the certificates, which are valid for months.
const RENEWAL: Duration = Duration::from_secs(3600);

/// Interval between two attempts to restore the Secret.
const RESTORE_RETRY: Duration = Duration::from_secs(5);

/// Name of the Secret.
pub const NAME: &str = "selvage-node-api";

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const HASH_KEY: &str = "hash.key";

/// Where the content of the Secret is published.
#[derive(Clone, Default)]
pub struct CertificateSecret {
    /// Certificates in use.
    pub tls: tls::Store,
    /// Key of content hashes.
    pub hash_key: Arc<ArcSwapOption<Zeroizing<Vec<u8>>>>,
    /// When the key of content hashes was made.
    pub hash_key_since: Arc<ArcSwapOption<Timestamp>>,
    material: Arc<ArcSwapOption<KeyMaterial>>,
    deleted: Arc<Notify>,
}

/// Why the Secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateSecretError {
    /// A key is missing or not text.
    #[error("the Secret {NAME} has no usable {0}")]
    Key(&'static str),
    /// The certificates are invalid.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The Secret could not be read or written.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl CertificateSecret {
    /// Puts the content of the Secret into use.
    ///
    /// # Errors
    /// The content is invalid; the previous content stays in use.
    pub fn load(&self, secret: &Secret) -> Result<(), CertificateSecretError> {
        let material = parse(secret)?;
        self.tls.replace(&material)?;
        self.hash_key_since.store(key_since(secret).map(Arc::new));
        self.hash_key
            .store(Some(Arc::new(material.hash_key.clone())));
        self.material.store(Some(Arc::new(material)));
        Ok(())
    }

    /// Makes [`restore`](Self::restore) create the Secret again, because it does not exist any longer.
    pub fn report_deletion(&self) {
        self.deleted.notify_one();
    }

    /// Creates the Secret again with the content in use, each time it was deleted.
    pub async fn restore(self, client: Client, namespace: String, secrets: Secrets) {
        let key = ObjectKey::new(&namespace, NAME);
        loop {
            self.deleted.notified().await;
            while matches!(secrets.get(&key), SecretState::Missing)
                && let Some(material) = self.material.load_full()
            {
                let since = self.hash_key_since.load_full();
                match write(&client, &namespace, &material, since.as_deref()).await {
                    Ok(_) => {
                        tracing::warn!(
                            secret = NAME,
                            "the Secret was deleted; created it again with the same content"
                        );
                        break;
                    }
                    Err(error) => tracing::error!(
                        %error, secret = NAME,
                        "the Secret was deleted and cannot be created again yet; nodes that start wait for it"
                    ),
                }
                tokio::time::sleep(RESTORE_RETRY).await;
            }
        }
    }
}

/// Creates the Secret. If another replica created it first, that Secret stays.
///
/// # Errors
/// The content cannot be generated, or the Secret cannot be written.
pub async fn create(client: &Client, namespace: &str) -> Result<(), CertificateSecretError> {
    if write(client, namespace, &tls::make(Timestamp::now())?, None).await? {
        tracing::info!(secret = NAME, "created the certificates of the node API");
    }
    Ok(())
}

/// Creates the Secret with this content. Returns false if it exists.
async fn write(
    client: &Client,
    namespace: &str,
    material: &KeyMaterial,
    key_since: Option<&Timestamp>,
) -> Result<bool, CertificateSecretError> {
    let secret = object(material, key_since);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match call(secrets.create(&PostParams::default(), &secret)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_already_there() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn object(material: &KeyMaterial, key_since: Option<&Timestamp>) -> Secret {
    let since = key_since.map(|since| (ANNOTATION_HASH_KEY_SINCE.to_owned(), since.to_string()));
    Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned())].into()),
            annotations: since.map(|since| [since].into()),
            ..ObjectMeta::default()
        },
        data: Some(content(material)),
        ..Secret::default()
    }
}

/// When the key of content hashes was made.
fn key_since(secret: &Secret) -> Option<Timestamp> {
    let annotations = secret.metadata.annotations.as_ref();
    let written = annotations.and_then(|all| all.get(ANNOTATION_HASH_KEY_SINCE)?.parse().ok());
    let created = secret.metadata.creation_timestamp.as_ref();
    written.or_else(|| created.map(|created| created.0))
}

/// Renews certificates before they expire, for as long as this replica leads.
pub async fn maintain(client: Client, namespace: String, secrets: Secrets) {
    let key = ObjectKey::new(&namespace, NAME);
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    loop {
        if let SecretState::Present(secret) = secrets.get(&key)
            && let Err(error) = renew(&api, &secret).await
        {
            tracing::error!(%error, "the certificates of the node API could not be renewed");
        }
        tokio::time::sleep(RENEWAL).await;
    }
}

/// Uses the `resourceVersion` as a precondition: if the Secret changed meanwhile, the next check handles it.
async fn renew(api: &Api<Secret>, secret: &Secret) -> Result<(), CertificateSecretError> {
    let Some(material) = tls::renew(&parse(secret)?, Timestamp::now())? else {
        return Ok(());
    };
    let renewed = Secret {
        data: Some(content(&material)),
        ..secret.clone()
    };
    call(api.replace(NAME, &PostParams::default(), &renewed)).await?;
    tracing::info!(secret = NAME, "renewed the certificates of the node API");
    Ok(())
}

fn content(material: &KeyMaterial) -> BTreeMap<String, ByteString> {
    BTreeMap::from([
        (
            CA_CERTIFICATE.to_owned(),
            ByteString(material.ca_crt.clone().into_bytes()),
        ),
        (
            CA_KEY.to_owned(),
            ByteString(material.ca_key.as_bytes().to_vec()),
        ),
        (
            CERTIFICATE.to_owned(),
            ByteString(material.tls_crt.clone().into_bytes()),
        ),
        (
            KEY.to_owned(),
            ByteString(material.tls_key.as_bytes().to_vec()),
        ),
        (HASH_KEY.to_owned(), ByteString(material.hash_key.to_vec())),
    ])
}

fn parse(secret: &Secret) -> Result<KeyMaterial, CertificateSecretError> {
    let bytes = |name: &'static str| {
        let found = secret.data.as_ref().and_then(|data| data.get(name));
        found
            .map(|bytes| bytes.0.clone())
            .filter(|bytes| !bytes.is_empty())
            .ok_or(CertificateSecretError::Key(name))
    };
    let text = |name: &'static str| {
        String::from_utf8(bytes(name)?).map_err(|_| CertificateSecretError::Key(name))
    };
    Ok(KeyMaterial {
        ca_crt: text(CA_CERTIFICATE)?,
        ca_key: Zeroizing::new(text(CA_KEY)?),
        tls_crt: text(CERTIFICATE)?,
        tls_key: Zeroizing::new(text(KEY)?),
        hash_key: Zeroizing::new(bytes(HASH_KEY)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_created_secret_can_be_loaded() {
        let made = tls::make(Timestamp::now()).unwrap();
        let secret = Secret {
            data: Some(content(&made)),
            ..Secret::default()
        };
        let own = CertificateSecret::default();
        own.load(&secret).unwrap();
        assert!(own.tls.is_loaded());
        assert_eq!(own.hash_key.load_full().as_deref(), Some(&made.hash_key));
    }

    /// The API server sets another time of creation, but the key is the same.
    #[test]
    fn a_secret_that_is_created_again_keeps_the_age_of_its_key() {
        let made = tls::make(Timestamp::now()).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let stored = |mut secret: Secret, second| {
            secret.metadata.creation_timestamp = Some(Time(at(second)));
            secret
        };
        let own = CertificateSecret::default();
        own.load(&stored(object(&made, None), 1000)).unwrap();
        let since = own.hash_key_since.load_full();
        assert_eq!(since.as_deref(), Some(&at(1000)));
        own.load(&stored(object(&made, since.as_deref()), 2000))
            .unwrap();
        assert_eq!(own.hash_key_since.load_full().as_deref(), Some(&at(1000)));
    }

    #[test]
    fn a_secret_with_a_missing_key_is_reported_and_changes_nothing() {
        let own = CertificateSecret::default();
        assert!(matches!(
            own.load(&Secret::default()),
            Err(CertificateSecretError::Key("ca.crt"))
        ));
        assert!(own.hash_key.load().is_none() && !own.tls.is_loaded());
    }
}
