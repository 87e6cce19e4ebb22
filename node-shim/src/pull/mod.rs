//! From a digest to the component's bytes on this node: what is there already, else the registry,
//! else the operator. Size is bounded by what was declared before the first byte and counted while
//! the rest comes; the bytes are hashed on the way, and get their name only when the hash is right.

mod archive;
mod manifest;
mod registry;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use node_api::v1::Source;
use node_shim_core::desired::Failure;
use sha2::{Digest, Sha256};

use crate::disk::{Blobs, Draft};
pub(crate) use manifest::sha256_hex;
use manifest::{Found, Layer, MAX_COMPONENT, MAX_MANIFEST};
use registry::Registry;

/// Hands over components that only the operator can read.
pub trait OperatorBlobs: Send + Sync {
    /// The bytes with this digest, in pieces; bounded by the caller.
    fn blob(
        &self,
        digest: &str,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Failure>>, Failure>>;
}

/// What to fetch.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// `sha256:<hex>` of the component.
    pub digest: String,
    /// Size the operator saw, bytes; 0 = not told.
    pub size: u64,
    /// Where it is.
    pub source: Source,
}

/// Fetches components.
#[derive(Clone)]
pub struct Puller {
    registry: Registry,
    blobs: Blobs,
    operator: Arc<dyn OperatorBlobs>,
}

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Puller")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl Puller {
    /// `insecure`: registries (`host:port`) spoken to in plain HTTP.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(
        insecure: impl IntoIterator<Item = String>,
        blobs: Blobs,
        operator: Arc<dyn OperatorBlobs>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            registry: Registry::new(insecure)?,
            blobs,
            operator,
        })
    }

    /// Fetches a component; the file stands at its start and its content has the digest.
    ///
    /// # Errors
    /// With the reason.
    pub async fn fetch(&self, wanted: &Wanted) -> Result<File, Failure> {
        let hex = sha256_hex(&wanted.digest)
            .ok_or_else(|| failure("DigestMismatch", true, "not a sha256 digest".into()))?;
        if wanted.size > MAX_COMPONENT {
            let message = format!("{} bytes; at most {MAX_COMPONENT} are taken", wanted.size);
            return Err(failure("PullFailed", true, message));
        }
        let draft = if wanted.source.via_operator || wanted.source.repository.is_empty() {
            let stream = self.operator.blob(&wanted.digest).await?;
            let limit = if wanted.size == 0 {
                MAX_COMPONENT
            } else {
                wanted.size
            };
            self.receive(stream, limit, hex).await?
        } else {
            self.pull_image(wanted, hex).await?
        };
        let blobs = self.blobs.clone();
        let hex = hex.to_string();
        blocking(move || blobs.keep(draft, &hex).map_err(|error| disk(&error))).await
    }

    async fn pull_image(&self, wanted: &Wanted, hex: &str) -> Result<Draft, Failure> {
        let repository = &wanted.source.repository;
        match self
            .find(repository, &wanted.source.manifest_digest)
            .await?
        {
            Found::Component(layer) => {
                if layer.digest != wanted.digest {
                    let message = format!("the image holds {}", layer.digest);
                    return Err(failure("DigestMismatch", true, message));
                }
                self.layer(repository, &layer).await
            }
            Found::Archive(layer) => {
                let packed = self.layer(repository, &layer).await?;
                let draft = self.blobs.draft().map_err(|error| disk(&error))?;
                let hex = hex.to_string();
                blocking(move || unpack(&packed, layer.size, draft, &hex)).await
            }
            Found::Manifest(_) => Err(failure(
                "NotAComponent",
                true,
                "an index inside an index".into(),
            )),
        }
    }

    async fn find(&self, repository: &str, digest: &str) -> Result<Found, Failure> {
        match self.manifest(repository, digest, false).await? {
            Found::Manifest(inner) => self.manifest(repository, &inner, true).await,
            found => Ok(found),
        }
    }

    async fn manifest(
        &self,
        repository: &str,
        digest: &str,
        nested: bool,
    ) -> Result<Found, Failure> {
        let hex = sha256_hex(digest).ok_or_else(|| {
            failure(
                "DigestMismatch",
                true,
                "the manifest's digest is not sha256".into(),
            )
        })?;
        let mut response = self
            .registry
            .get(repository, "manifests", digest, Some(manifest::ACCEPT))
            .await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MAX_MANIFEST {
                let message = format!("the manifest is over {MAX_MANIFEST} bytes");
                return Err(failure("PullFailed", true, message));
            }
        }
        if hex::encode(Sha256::digest(&body)) != hex {
            let message = "the registry gave another manifest than asked for".into();
            return Err(failure("DigestMismatch", true, message));
        }
        manifest::read(&body, nested).map_err(|message| failure("NotAComponent", true, message))
    }

    async fn layer(&self, repository: &str, layer: &Layer) -> Result<Draft, Failure> {
        let response = self
            .registry
            .get(repository, "blobs", &layer.digest, None)
            .await?;
        let hex = sha256_hex(&layer.digest).unwrap_or_default();
        let stream = response
            .bytes_stream()
            .map_err(|error| broken(&error))
            .boxed();
        self.receive(stream, layer.size, hex).await
    }

    /// Takes at most `limit` bytes, which must have the hash `hex`.
    async fn receive(
        &self,
        mut stream: BoxStream<'static, Result<Bytes, Failure>>,
        limit: u64,
        hex: &str,
    ) -> Result<Draft, Failure> {
        let mut draft = self.blobs.draft().map_err(|error| disk(&error))?;
        let mut hash = Sha256::new();
        let mut received = 0u64;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            received += chunk.len() as u64;
            if received > limit {
                let message = format!("more bytes than the {limit} declared");
                return Err(failure("DigestMismatch", true, message));
            }
            hash.update(&chunk);
            // pieces are small; a disk that hangs holds up this component alone
            draft = blocking(move || {
                draft
                    .write_all(&chunk)
                    .map_err(|error| disk(&error))
                    .map(|()| draft)
            })
            .await?;
        }
        if hex::encode(hash.finalize()) != hex {
            let message = format!("{received} bytes with another digest");
            return Err(failure("DigestMismatch", true, message));
        }
        Ok(draft)
    }
}

fn unpack(packed: &Draft, size: u64, mut draft: Draft, hex: &str) -> Result<Draft, Failure> {
    let mut source = packed.handle().map_err(|error| disk(&error))?;
    source
        .seek(SeekFrom::Start(0))
        .map_err(|error| disk(&error))?;
    archive::unpack(io::BufReader::new(source), size, &mut draft).map_err(|error| {
        if error.kind() == io::ErrorKind::StorageFull {
            disk(&error)
        } else {
            failure("NotAComponent", true, error.to_string())
        }
    })?;
    let mut unpacked = draft.handle().map_err(|error| disk(&error))?;
    if hex::encode(hash(&mut unpacked).map_err(|error| disk(&error))?) == hex {
        Ok(draft)
    } else {
        Err(failure(
            "DigestMismatch",
            true,
            "the archive holds another component".into(),
        ))
    }
}

/// SHA-256 of a whole file, which stands at its start afterwards.
pub(crate) fn hash(file: &mut File) -> io::Result<[u8; 32]> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        hash.update(bytes);
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(hash.finalize().into())
}

/// Runs what waits for the disk off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(failure("LoadFailed", false, error.to_string())))
}

pub(crate) fn failure(reason: &'static str, permanent: bool, message: String) -> Failure {
    Failure {
        reason,
        message,
        permanent,
        retry_after: None,
    }
}

fn disk(error: &io::Error) -> Failure {
    failure("DiskFull", false, error.to_string())
}

fn broken(error: &reqwest::Error) -> Failure {
    let what = if error.is_timeout() {
        "stalled"
    } else {
        "broke off"
    };
    failure("PullFailed", false, format!("the registry's answer {what}"))
}
