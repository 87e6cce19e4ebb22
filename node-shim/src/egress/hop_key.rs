//! Key of the headers `selvage-hops` and `selvage-forward`. All nodes of a cluster receive the same key from the operator.
//! Until then a node uses a key of its own, with which it sees only loops that come back to it.

use std::fmt;

use arc_swap::ArcSwapOption;
use hmac::{Hmac, Mac};
use node_shim_core::call::Hops;
use node_shim_core::forward_header::{self, Forwarded, SignedForward};
use node_shim_core::hop_header::{SignedHops, TAG_BYTES, signed_bytes};
use rustls::crypto::ring;
use sha2::Sha256;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;

/// The key, which may be replaced at any time.
pub(crate) struct HopKey(ArcSwapOption<Zeroizing<Vec<u8>>>);

impl HopKey {
    /// Returns a random key. Without randomness there is no key, and no header is written.
    pub(crate) fn random() -> Self {
        let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
        let filled = ring::default_provider().secure_random.fill(&mut key);
        Self(ArcSwapOption::from_pointee(filled.is_ok().then_some(key)))
    }

    /// Replaces the key, unless `key` is empty, as that of an operator without a key is.
    pub(crate) fn set(&self, key: &[u8]) {
        if !key.is_empty() {
            let key = Zeroizing::new(key.to_vec());
            self.0.store(Some(key.into()));
        }
    }

    /// Signs the number of a request to `host`.
    pub(crate) fn signed(&self, hops: Hops, host: &str) -> Option<SignedHops> {
        let tag = self.tag(&signed_bytes(hops, host))?;
        Some(SignedHops { hops, tag })
    }

    /// Signs what another node has to know about a request to `host`. Without a key, the signature is not valid.
    pub(crate) fn signs(&self, forwarded: Forwarded, host: &str) -> SignedForward {
        let tag = self.tag(&forward_header::signed_bytes(&forwarded, host));
        SignedForward {
            forwarded,
            tag: tag.unwrap_or_default(),
        }
    }

    /// Returns what another node wrote about a request to `host`, if the signature is valid.
    pub(crate) fn accepts(&self, signed: SignedForward, host: &str) -> Option<Forwarded> {
        let bytes = forward_header::signed_bytes(&signed.forwarded, host);
        let mac = self.mac(&bytes)?;
        let valid = mac.verify_truncated_left(&signed.tag).is_ok();
        valid.then_some(signed.forwarded)
    }

    /// Returns the number of a request to `host`: 0 without a valid signature.
    pub(crate) fn verified(&self, signed: Option<SignedHops>, host: &str) -> Hops {
        let valid = |signed: &SignedHops| {
            let mac = self.mac(&signed_bytes(signed.hops, host));
            mac.is_some_and(|mac| mac.verify_truncated_left(&signed.tag).is_ok())
        };
        signed
            .filter(valid)
            .map_or(Hops::default(), |signed| signed.hops)
    }

    fn tag(&self, bytes: &[u8]) -> Option<[u8; TAG_BYTES]> {
        let code = self.mac(bytes)?.finalize().into_bytes();
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(code.get(..TAG_BYTES)?);
        Some(tag)
    }

    fn mac(&self, bytes: &[u8]) -> Option<Hmac<Sha256>> {
        let key = self.0.load();
        let mut mac = Hmac::new_from_slice(key.as_ref()?).ok()?;
        mac.update(bytes);
        Some(mac)
    }
}

impl fmt::Debug for HopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HopKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HH-20: a number counts only with the key of the cluster, for the host that it was signed for.
    #[test]
    fn a_forged_number_counts_as_none() {
        let key = HopKey::random();
        key.set(b"of the cluster");
        let three = key.signed(Hops::new(3), "a.example").unwrap();
        let verified = |key: &HopKey, signed, host| key.verified(signed, host).count();
        assert_eq!(verified(&key, Some(three), "a.example"), 3);
        assert_eq!(verified(&key, Some(three), "b.example"), 0);
        assert_eq!(verified(&key, None, "a.example"), 0);
        let more = SignedHops {
            hops: Hops::new(9),
            ..three
        };
        assert_eq!(verified(&key, Some(more), "a.example"), 0);
        let other = HopKey::random();
        assert_eq!(verified(&other, Some(three), "a.example"), 0);
        // the node had a key of its own until the operator sent that of the cluster
        other.set(b"");
        assert_eq!(verified(&other, Some(three), "a.example"), 0);
        other.set(b"of the cluster");
        assert_eq!(verified(&other, Some(three), "a.example"), 3);
    }
}
