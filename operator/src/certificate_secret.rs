//! The operator's one Secret: certificates of the node API and the key of content hashes. Made by the leader
//! when absent, read by every replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crds::{LABEL_MANAGED_BY, MANAGED_BY_VALUE};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use zeroize::Zeroizing;

use crate::node_api::tls::{self, Material};
use crate::reconcile::CallError;
use crate::reconcile::api::call;
use crate::watch::{ObjectKey, SecretState, Secrets};

/// Certificates are looked at this often; what comes to its end does so in months.
const RENEWAL: Duration = Duration::from_secs(3600);

/// Its name.
pub const NAME: &str = "selvage-node-api";

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const HASH_KEY: &str = "hash.key";

/// Where the content goes.
#[derive(Clone)]
pub struct CertificateSecret {
    /// Certificates in use.
    pub tls: tls::Store,
    /// Key of content hashes.
    pub hash_key: Arc<ArcSwapOption<Zeroizing<Vec<u8>>>>,
}

/// Why the Secret is of no use.
#[derive(Debug, thiserror::Error)]
pub enum CertificateSecretError {
    /// A key is missing or not text.
    #[error("the Secret {NAME} has no usable {0}")]
    Key(&'static str),
    /// The certificates are unusable.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// It could not be written.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl CertificateSecret {
    /// Uses what the Secret holds.
    ///
    /// # Errors
    /// It is not what was written; what is in use stays.
    pub fn load(&self, secret: &Secret) -> Result<(), CertificateSecretError> {
        let material = parse(secret)?;
        self.tls.replace(&material)?;
        self.hash_key
            .store(Some(Arc::new(material.hash_key.clone())));
        Ok(())
    }
}

/// Makes the Secret; when another replica was faster, that one's stays.
///
/// # Errors
/// It could not be made or written.
pub async fn create(client: &Client, namespace: &str) -> Result<(), CertificateSecretError> {
    let material = tls::make(Timestamp::now())?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(content(&material)),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match call(secrets.create(&PostParams::default(), &secret)).await {
        Ok(_) => {
            tracing::info!(secret = NAME, "made the certificates of the node API");
            Ok(())
        }
        Err(error) if error.is_already_there() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Renews what comes to its end, for as long as this replica leads.
pub async fn keep(client: Client, namespace: String, secrets: Secrets) {
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

/// The object's own version is the precondition: a Secret that changed meanwhile is looked at next time.
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

fn content(material: &Material) -> BTreeMap<String, ByteString> {
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

fn parse(secret: &Secret) -> Result<Material, CertificateSecretError> {
    let bytes = |name: &'static str| {
        let found = secret.data.as_ref().and_then(|data| data.get(name));
        found
            .map(|bytes| bytes.0.clone())
            .filter(|bytes| !bytes.is_empty())
            .ok_or(CertificateSecretError::Key(name))
    };
    let text =
        |name: &'static str| String::from_utf8(bytes(name)?).map_err(|_| CertificateSecretError::Key(name));
    Ok(Material {
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

    #[test]
    fn what_is_written_reads_back_and_can_be_used() {
        let made = tls::make(Timestamp::now()).unwrap();
        let secret = Secret {
            data: Some(content(&made)),
            ..Secret::default()
        };
        let own = CertificateSecret {
            tls: tls::Store::default(),
            hash_key: Arc::default(),
        };
        own.load(&secret).unwrap();
        assert!(own.tls.is_loaded());
        assert_eq!(own.hash_key.load_full().as_deref(), Some(&made.hash_key));
    }

    #[test]
    fn a_secret_without_a_key_is_named_and_changes_nothing() {
        let own = CertificateSecret {
            tls: tls::Store::default(),
            hash_key: Arc::default(),
        };
        assert!(matches!(
            own.load(&Secret::default()),
            Err(CertificateSecretError::Key("ca.crt"))
        ));
        assert!(own.hash_key.load().is_none() && !own.tls.is_loaded());
    }
}
