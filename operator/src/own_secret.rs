//! The operator's one Secret: certificates of the node API and the key of content hashes. Made by the leader
//! when absent, read by every replica.

use std::collections::BTreeMap;
use std::sync::Arc;

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

/// Its name.
pub const NAME: &str = "selvage-node-api";

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const HASH_KEY: &str = "hash.key";

/// Where the content goes.
#[derive(Clone)]
pub struct OwnSecret {
    /// Certificates in use.
    pub tls: tls::Store,
    /// Key of content hashes.
    pub hash_key: Arc<ArcSwapOption<Zeroizing<Vec<u8>>>>,
}

/// Why the Secret is of no use.
#[derive(Debug, thiserror::Error)]
pub enum OwnSecretError {
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

impl OwnSecret {
    /// Uses what the Secret holds.
    ///
    /// # Errors
    /// It is not what was written; what is in use stays.
    pub fn load(&self, secret: &Secret) -> Result<(), OwnSecretError> {
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
pub async fn create(client: &Client, namespace: &str) -> Result<(), OwnSecretError> {
    let material = tls::make(Timestamp::now())?;
    let data = BTreeMap::from([
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
    ]);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY_VALUE.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(data),
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

fn parse(secret: &Secret) -> Result<Material, OwnSecretError> {
    let bytes = |name: &'static str| {
        let found = secret.data.as_ref().and_then(|data| data.get(name));
        found
            .map(|bytes| bytes.0.clone())
            .filter(|bytes| !bytes.is_empty())
            .ok_or(OwnSecretError::Key(name))
    };
    let text =
        |name: &'static str| String::from_utf8(bytes(name)?).map_err(|_| OwnSecretError::Key(name));
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
    fn a_secret_without_a_key_is_named_and_changes_nothing() {
        let own = OwnSecret {
            tls: tls::Store::default(),
            hash_key: Arc::default(),
        };
        assert!(matches!(
            own.load(&Secret::default()),
            Err(OwnSecretError::Key("ca.crt"))
        ));
        assert!(own.hash_key.load().is_none() && !own.tls.is_loaded());
    }
}
