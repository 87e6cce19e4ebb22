//! The pull side of the OCI distribution protocol.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::BoxStream;
use oci_spec::distribution::Reference;
use reqwest::{Response, Url};

use crate::auth::{self, Authorization, Challenge};
use crate::manifest::{self, Layer, Manifest, ManifestError};
use crate::transport::{self, SystemResolver, Transport};
use crate::{Credentials, Error, Login, MAX_MANIFEST, digest_of, verified};

/// Largest answer of a token service, in bytes.
const MAX_TOKEN: u64 = 64 << 10;

/// Pulls from registries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    plain_http: Arc<BTreeSet<String>>,
}

/// Pull of one image. A token from the registry is kept for the duration of the pull.
pub struct Pull {
    transport: Transport,
    base: Url,
    reference: Reference,
    /// Logins that were not tried yet; `None` requests an anonymous token.
    logins: VecDeque<Option<Login>>,
    challenge: Option<Challenge>,
    authorization: Option<Authorization>,
    used_credentials: bool,
}

/// An image as its manifest describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the image's manifest, `sha256:<hex>`. For an index, that of the manifest of its WebAssembly image.
    pub manifest_digest: String,
    /// The layer that holds the component.
    pub layer: Layer,
}

// === impl Client ===

impl Client {
    /// A client that speaks plain HTTP to the registries in `plain_http` (`host:port`) and HTTPS to all others.
    ///
    /// # Errors
    /// The TLS client cannot be built.
    pub fn new(plain_http: impl IntoIterator<Item = String>) -> Result<Self, reqwest::Error> {
        Ok(Self {
            transport: Transport::new(Arc::new(SystemResolver))?,
            plain_http: Arc::new(plain_http.into_iter().collect()),
        })
    }

    /// Starts the pull of an image. No request is sent yet.
    ///
    /// # Errors
    /// The registry's name is not a host.
    pub fn pull(&self, image: &Reference, credentials: &Credentials) -> Result<Pull, Error> {
        let host = image.resolve_registry();
        let plain = self.plain_http.contains(host);
        let scheme = if plain { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{}/", image.repository());
        let base = transport::parse(&base)?;
        let mut logins: VecDeque<_> = credentials.logins(image).into_iter().map(Some).collect();
        if logins.is_empty() {
            logins.push_back(None);
        }
        Ok(Pull {
            transport: self.transport.clone(),
            base,
            reference: image.clone(),
            logins,
            challenge: None,
            authorization: None,
            used_credentials: false,
        })
    }
}

// === impl Pull ===

impl Pull {
    /// Finds the component of the image: reads its manifest, and follows an index to the manifest of its WebAssembly image.
    ///
    /// # Errors
    /// The registry's answer is missing or invalid, or the image is not exactly one component.
    pub async fn image(&mut self) -> Result<Image, Error> {
        let wanted = self.reference.digest().or_else(|| self.reference.tag());
        let wanted = wanted.unwrap_or("latest").to_owned();
        let (mut manifest, mut manifest_digest) = self.manifest(&wanted).await?;
        if let Manifest::Index(wasm) = manifest {
            (manifest, manifest_digest) = self.manifest(&wasm).await?;
        }
        match manifest {
            Manifest::Image(layer) => Ok(Image {
                manifest_digest,
                layer,
            }),
            Manifest::Index(_) => Err(ManifestError::NestedIndex.into()),
        }
    }

    /// Fetches a layer as a stream that ends with an error unless it has the size and the digest of the manifest. Nothing
    /// of it may be used before its end.
    ///
    /// # Errors
    /// The registry's answer is missing or invalid.
    pub async fn blob(
        &mut self,
        layer: &Layer,
    ) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let response = self.get("blobs", &layer.digest, "*/*").await?;
        let body = transport::body(response, "the component layer");
        verified(body, &layer.digest, Some(layer.size), |error| error)
    }

    /// Whether credentials were sent. If so, clients without credentials may not be able to pull the image.
    #[must_use]
    pub fn used_credentials(&self) -> bool {
        self.used_credentials
    }

    /// Reads the manifest of a tag or of a digest, which is verified, and returns it with its digest.
    async fn manifest(&mut self, wanted: &str) -> Result<(Manifest, String), Error> {
        let response = self.get("manifests", wanted, manifest::ACCEPT).await?;
        let body = transport::read(response, MAX_MANIFEST, "the manifest").await?;
        let found = digest_of(&body);
        // Tags contain no colon.
        if wanted.contains(':') && found != wanted {
            let expected = wanted.to_owned();
            return Err(Error::DigestMismatch { expected, found });
        }
        Ok((Manifest::parse(&body)?, found))
    }

    /// `GET /v2/<repository>/<kind>/<name>`, with the first login that the registry accepts.
    async fn get(&mut self, kind: &str, name: &str, accept: &str) -> Result<Response, Error> {
        let url = transport::parse(&format!("{}{kind}/{name}", self.base))?;
        loop {
            let authorization = self.authorization.as_ref();
            let response = self.transport.get(&url, accept, authorization).await?;
            let status = response.status().as_u16();
            if response.status().is_success() {
                return Ok(response);
            }
            let error = self.refusal(&response);
            // Challenges of a host that the registry redirects to are not answered.
            let own = response.url().origin() == self.base.origin();
            match (status, self.authorization.is_some()) {
                (401, false) if own => self.challenge = Challenge::select(response.headers()),
                // Many registries answer "not found" for a repository that a login may not read.
                (401 | 403 | 404, true) if own => {}
                _ => return Err(error),
            }
            self.authorization = Some(self.next_authorization(error).await?);
        }
    }

    /// Authorization with the next login; `refused` when there is none left.
    async fn next_authorization(&mut self, refused: Error) -> Result<Authorization, Error> {
        let mut refused = refused;
        while let Some(login) = self.logins.pop_front() {
            match self.authorize(login).await {
                Err(error) if error.is_unauthorized() => refused = error,
                other => return other,
            }
        }
        Err(refused)
    }

    /// Answers the challenge: Basic at once, Bearer with a token of the service that it names.
    async fn authorize(&mut self, login: Option<Login>) -> Result<Authorization, Error> {
        let host = transport::host(&self.base);
        let unauthorized = |why| Error::Unauthorized { host, why };
        self.used_credentials |= login.is_some();
        let login = login.map(Authorization::Basic);
        let (realm, service) = match self.challenge.as_ref() {
            Some(Challenge::Bearer { realm, service }) => (realm, service.as_deref()),
            Some(Challenge::Basic) => {
                return login.ok_or_else(|| unauthorized("no pull secret has credentials for it"));
            }
            None => return Err(unauthorized("by a method that is not supported")),
        };
        let Some(url) = auth::token_url(realm, service, self.reference.repository()) else {
            return Err(unauthorized("its token service has no valid address"));
        };
        let response = self
            .transport
            .send(&self.base, &url, "application/json", login.as_ref())
            .await?;
        if !response.status().is_success() {
            return Err(self.refusal(&response));
        }
        let body = transport::read(response, MAX_TOKEN, "the token").await?;
        auth::token(&body).ok_or_else(|| unauthorized("its token service returned no token"))
    }

    fn refusal(&self, response: &Response) -> Error {
        Error::Status {
            host: transport::host(response.url()),
            repository: self.reference.repository().to_owned(),
            status: response.status().as_u16(),
            retry_after: transport::retry_after(response.headers(), SystemTime::now()),
        }
    }
}

impl std::fmt::Debug for Pull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pull")
            .field("image", &self.reference.whole())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
