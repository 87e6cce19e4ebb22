//! Pulls one WebAssembly component from an OCI registry. Operator and node-shim use the same client, so that an image
//! that the operator resolves is an image that every node can load.
//!
//! | Step | Module |
//! |---|---|
//! | parse an image string | [`Reference`], from `oci-spec` |
//! | read pull secrets | [`Credentials`], [`parse_pull_secret`] |
//! | fetch the manifest, follow an index to the WebAssembly image | [`Client`], [`Pull::image`] |
//! | select the layer that holds the component | [`Manifest`] |
//! | fetch the layer, verified while it arrives | [`Pull::blob`], [`verified`] |
//! | take the component out of its archive | [`unpack`] |
//!
//! A registry is not trusted. Manifests and layers are bounded before they are read and counted while they arrive.
//! Redirects and token services must be on the registry's own origin, or reached by HTTPS at a public address
//! ([`node_api_types::address`]). Credentials go to the registry and to the token service that it names, never to a redirect.
//!
//! The transport is a thin layer over `reqwest`: `oci-client` reads manifests and tokens without a bound, hides
//! `Retry-After` and follows redirects to any address.
//!
//! # Example
//!
//! ```
//! use oci::{Manifest, Reference};
//!
//! let image: Reference = "registry.example/shop/checkout:1.4.0".parse()?;
//! assert_eq!((image.registry(), image.tag()), ("registry.example", Some("1.4.0")));
//!
//! // The answer to `GET /v2/shop/checkout/manifests/1.4.0`.
//! let digest = oci::digest_of(b"the component");
//! let body = format!(
//!     r#"{{
//!         "schemaVersion": 2,
//!         "config": {{ "mediaType": "application/vnd.wasm.config.v0+json", "digest": "{digest}", "size": 2 }},
//!         "layers": [{{ "mediaType": "application/wasm", "digest": "{digest}", "size": 13 }}]
//!     }}"#
//! );
//! let Manifest::Image(layer) = Manifest::parse(body.as_bytes())? else {
//!     return Err("an image index".into());
//! };
//! assert_eq!((layer.digest.as_str(), layer.size), (digest.as_str(), 13));
//!
//! // The answer to `GET /v2/shop/checkout/blobs/sha256:…`, as a file on disk.
//! let mut component = Vec::new();
//! oci::unpack(b"the component".as_slice(), &layer, &mut component)?;
//! assert_eq!(component, b"the component");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod auth;
mod client;
mod credentials;
mod digest;
mod error;
mod manifest;
mod transport;
mod unpack;

pub use client::{Client, Image, Pull};
pub use credentials::{Credentials, CredentialsError, Login, parse_pull_secret};
pub use digest::{digest_of, sha256_hex, verified};
pub use error::Error;
pub use manifest::{Layer, Manifest, ManifestError};
pub use oci_spec::distribution::{ParseError, Reference};
pub use unpack::{UnpackError, unpack};

/// Largest component in bytes, packed or unpacked: 50 MiB.
pub const MAX_COMPONENT: u64 = 50 << 20;
/// Largest manifest in bytes: 1 MiB.
pub const MAX_MANIFEST: u64 = 1 << 20;
