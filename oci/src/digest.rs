//! SHA-256 digests as registries write them: `sha256:` and 64 lower-case hexadecimal digits.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sha2::{Digest, Sha256};

use crate::{Error, MAX_COMPONENT};

/// Digest of `bytes` in the form `sha256:<hex>`.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The hexadecimal part of a well-formed digest; `None` for any other algorithm or form. It is safe in a file name.
#[must_use]
pub fn sha256_hex(digest: &str) -> Option<&str> {
    digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Passes `content` through, and ends with an error as soon as it cannot match `digest`: it is longer than `size`,
/// shorter, or has another hash. Without a `size`, at most [`MAX_COMPONENT`] bytes pass. `wrap` converts the errors
/// of this function to those of the stream.
///
/// Nothing that was received may be used before the stream has ended without an error.
///
/// # Errors
/// [`Error::UnsupportedDigest`] when `digest` is not a SHA-256 digest.
pub fn verified<E: Send + 'static>(
    content: BoxStream<'static, Result<Bytes, E>>,
    digest: &str,
    size: Option<u64>,
    wrap: fn(Error) -> E,
) -> Result<BoxStream<'static, Result<Bytes, E>>, Error> {
    if sha256_hex(digest).is_none() {
        let digest = digest.to_owned();
        return Err(Error::UnsupportedDigest { digest });
    }
    let verifier = Verifier {
        digest: digest.to_owned(),
        size,
        received: 0,
        hash: Sha256::new(),
    };
    let content = Some((content, verifier));
    Ok(futures::stream::unfold(content, move |content| next(content, wrap)).boxed())
}

type Content<E> = BoxStream<'static, Result<Bytes, E>>;

async fn next<E>(
    content: Option<(Content<E>, Verifier)>,
    wrap: fn(Error) -> E,
) -> Option<(Result<Bytes, E>, Option<(Content<E>, Verifier)>)> {
    let (mut content, mut verifier) = content?;
    match content.next().await {
        Some(Ok(chunk)) => match verifier.update(&chunk) {
            Ok(()) => Some((Ok(chunk), Some((content, verifier)))),
            Err(error) => Some((Err(wrap(error)), None)),
        },
        Some(Err(error)) => Some((Err(error), None)),
        None => verifier
            .finish()
            .err()
            .map(|error| (Err(wrap(error)), None)),
    }
}

struct Verifier {
    digest: String,
    size: Option<u64>,
    received: u64,
    hash: Sha256,
}

impl Verifier {
    fn update(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.received += chunk.len() as u64;
        let declared = self.size.unwrap_or(MAX_COMPONENT);
        if self.received > declared {
            let received = self.received;
            return Err(Error::SizeMismatch { declared, received });
        }
        self.hash.update(chunk);
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        let received = self.received;
        if let Some(declared) = self.size.filter(|declared| *declared != received) {
            return Err(Error::SizeMismatch { declared, received });
        }
        let found = format!("sha256:{}", hex::encode(self.hash.finalize()));
        if found == self.digest {
            return Ok(());
        }
        let expected = self.digest;
        Err(Error::DigestMismatch { expected, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(content: &[u8], digest: &str, size: Option<u64>) -> Result<Vec<u8>, Error> {
        let chunks = content
            .chunks(2)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)));
        let chunks = futures::stream::iter(chunks.collect::<Vec<_>>()).boxed();
        let verified = verified(chunks, digest, size, |error| error)?;
        let received: Vec<Result<Bytes, Error>> = verified.collect().await;
        let pieces = received.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(pieces.concat())
    }

    /// HS-2: wrong, short, longer and endless content ends with an error, with a declared size and without.
    #[tokio::test]
    async fn only_content_that_matches_the_digest_passes() {
        let digest = digest_of(b"abcde");
        for size in [None, Some(5)] {
            assert_eq!(run(b"abcde", &digest, size).await.unwrap(), b"abcde");
            let error = run(b"abcdX", &digest, size).await.unwrap_err();
            assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        }
        for (content, size) in [(&b"abcde"[..], 4), (b"abcde", 6), (b"abcdefgh", 5)] {
            let error = run(content, &digest, Some(size)).await.unwrap_err();
            assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
        }
        let endless = futures::stream::repeat_with(|| Ok(Bytes::from(vec![0; 1 << 20])));
        let endless = verified(endless.boxed(), &digest, None, |error: Error| error).unwrap();
        let last = endless.collect::<Vec<_>>().await.pop();
        assert!(matches!(last, Some(Err(Error::SizeMismatch { .. }))));
    }

    #[tokio::test]
    async fn other_digests_than_sha256_are_refused() {
        let upper = digest_of(b"x").to_uppercase().replace("SHA", "sha");
        for digest in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            "sha512:00",
            &upper,
        ] {
            assert_eq!(sha256_hex(digest), None, "{digest}");
            let error = run(b"x", digest, None).await.unwrap_err();
            assert!(matches!(error, Error::UnsupportedDigest { .. }), "{error}");
        }
        assert_eq!(sha256_hex(&digest_of(b"x")).map(str::len), Some(64));
    }
}
