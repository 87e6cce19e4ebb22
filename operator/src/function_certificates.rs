//! Certificates in Secrets that functions name: what each says about itself, and whether nodes can use it.
//!
//! A pair is checked once for each version of its Secret, with the code that nodes use it with. Private keys are not kept here.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use node_api::certificate::{CHAIN, Certificate, CertificateDetails, CertificateError, KEY};
use parking_lot::Mutex;

use crate::watch::{ObjectKey, ObjectState, Secrets};

/// Maximum length of a chain in bytes. A record with sixteen certificates must fit into a message.
const MAX_CHAIN: usize = 32 * 1024;
/// Maximum length of a private key in bytes.
const MAX_KEY: usize = 8 * 1024;

/// What a Secret holds for the hosts of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// The Secret has not been read yet.
    Unknown,
    /// The Secret does not exist, is not granted, or lacks the named key.
    Absent(&'static str),
    /// The Secret holds something that nodes cannot use.
    Unusable(UnusableCertificate),
    /// The Secret holds a certificate with its key.
    Usable(Arc<CertificateDetails>),
}

/// Why nodes cannot use the content of a Secret as a certificate. The text contains nothing of the private key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableCertificate {
    /// The pair is malformed, or its parts do not belong together.
    #[error(transparent)]
    Pair(#[from] CertificateError),
    /// A part is too long.
    #[error("{key} has {bytes} bytes, and nodes take at most {limit}")]
    TooLong {
        /// Key of the Secret.
        key: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// Maximum length in bytes.
        limit: usize,
    },
}

/// The Secrets with certificates that were checked. Clones share the content.
#[derive(Clone)]
pub struct FunctionCertificates {
    secrets: Secrets,
    checked: Arc<Mutex<HashMap<ObjectKey, Checked>>>,
}

/// A version of a Secret and what came of it.
struct Checked {
    secret: Arc<Secret>,
    state: CertificateState,
}

impl fmt::Debug for FunctionCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionCertificates")
            .field("checked", &self.checked.lock().len())
            .finish_non_exhaustive()
    }
}

impl FunctionCertificates {
    /// Checks certificates in these Secrets.
    #[must_use]
    pub fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            checked: Arc::default(),
        }
    }

    /// Returns what the Secret holds. The first call starts to read it.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> CertificateState {
        let secret = match self.secrets.get(key) {
            ObjectState::Present(secret) => secret,
            ObjectState::Unknown => return CertificateState::Unknown,
            ObjectState::NotGranted | ObjectState::Missing => {
                return CertificateState::Absent(CHAIN);
            }
        };
        let mut checked = self.checked.lock();
        if let Some(known) = checked.get(key)
            && Arc::ptr_eq(&known.secret, &secret)
        {
            return known.state.clone();
        }
        let state = check(&secret);
        let known = Checked {
            secret,
            state: state.clone(),
        };
        checked.insert(key.clone(), known);
        state
    }

    /// Forgets every Secret for which `is_referred` does not hold.
    pub fn retain(&self, is_referred: impl Fn(&ObjectKey) -> bool) {
        self.checked.lock().retain(|key, _| is_referred(key));
    }
}

fn check(secret: &Secret) -> CertificateState {
    let part = |name: &'static str| {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        let bytes = data.map(|bytes| bytes.0.as_slice());
        bytes.ok_or(CertificateState::Absent(name))
    };
    let (chain, key) = match (part(CHAIN), part(KEY)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (Err(absent), _) | (_, Err(absent)) => return absent,
    };
    match details(chain, key) {
        Ok(details) => CertificateState::Usable(Arc::new(details)),
        Err(error) => CertificateState::Unusable(error),
    }
}

fn details(chain: &[u8], key: &[u8]) -> Result<CertificateDetails, UnusableCertificate> {
    for (name, bytes, limit) in [(CHAIN, chain.len(), MAX_CHAIN), (KEY, key.len(), MAX_KEY)] {
        if bytes > limit {
            return Err(UnusableCertificate::TooLong {
                key: name,
                bytes,
                limit,
            });
        }
    }
    Ok(Certificate::parse(chain, key)?.details().clone())
}
