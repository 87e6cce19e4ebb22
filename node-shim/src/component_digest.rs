//! Verification of a component before compilation. A stored component may have changed since it was pulled.

use std::fs::File;

use node_shim_core::desired::{Failure, LoadFailure};

use crate::pull::{hash, sha256_hex};

/// Verifies the digest and the size (0 if unknown) of a component, and rewinds the file.
///
/// # Errors
/// Returns [`LoadFailure::DamagedCopy`], or [`LoadFailure::Load`] when the file cannot be read.
pub fn verify(file: &mut File, digest: &str, size: u64) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| Failure::new(LoadFailure::Load, error);
    let found = file.metadata().map_err(unreadable)?.len();
    if size != 0 && found != size {
        return Err(Failure::new(
            LoadFailure::DamagedCopy,
            format!("the stored component has {found} bytes instead of {size}"),
        ));
    }
    let hash = hash(file).map_err(unreadable)?;
    if sha256_hex(digest) == Some(hex::encode(hash).as_str()) {
        Ok(())
    } else {
        Err(Failure::new(
            LoadFailure::DamagedCopy,
            "the stored component has another digest",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use sha2::{Digest, Sha256};

    use super::*;

    /// HS-2: the digest and the size that were declared.
    #[test]
    fn size_and_digest_must_both_fit() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(b"abc")));
        assert_eq!(verify(&mut file, &digest, 3), Ok(()));
        assert_eq!(verify(&mut file, &digest, 0), Ok(()));
        assert_eq!(
            verify(&mut file, &digest, 4).unwrap_err().cause,
            LoadFailure::DamagedCopy
        );
        let other = format!("sha256:{}", hex::encode(Sha256::digest(b"abd")));
        assert_eq!(
            verify(&mut file, &other, 3).unwrap_err().cause,
            LoadFailure::DamagedCopy
        );
        assert_eq!(
            verify(&mut file, "sha256:abc", 3).unwrap_err().cause,
            LoadFailure::DamagedCopy
        );
    }
}
