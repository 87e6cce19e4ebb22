//! Compact text for `kubectl describe`: deflated and base64-encoded.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// Size limit of the unpacked text, in bytes. A status is far smaller, so larger data was not written by Selvage.
const MAX_UNPACKED: u64 = 4 * 1024 * 1024;

pub(super) fn pack(text: &[u8]) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    // Writing to a vector cannot fail.
    let packed = encoder
        .write_all(text)
        .and_then(|()| encoder.finish())
        .unwrap_or_default();
    STANDARD_NO_PAD.encode(packed)
}

/// Why a text cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    #[error(transparent)]
    Base64(#[from] base64::DecodeError),
    #[error(transparent)]
    Deflate(#[from] std::io::Error),
    #[error("it is longer than the limit")]
    TooLong,
}

pub(super) fn unpack(packed: &str) -> Result<Vec<u8>, UnpackError> {
    let bytes = STANDARD_NO_PAD.decode(packed)?;
    let mut text = Vec::new();
    let read = DeflateDecoder::new(bytes.as_slice())
        .take(MAX_UNPACKED)
        .read_to_end(&mut text)?;
    if read as u64 == MAX_UNPACKED {
        return Err(UnpackError::TooLong);
    }
    Ok(text)
}
