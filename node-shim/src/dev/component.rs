//! Where the component of a function comes from, and its bytes.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::manifest::{BUILD, COMPONENT, Function};
use crate::disk::{DiskHealth, Draft};
use crate::serve;

/// Place of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file that exists after the build.
    File(PathBuf),
    /// `spec.source.inline`, in base64.
    Inline(String),
}

/// A component as it was read.
pub(super) struct ComponentBytes {
    pub(super) file: File,
    /// `sha256:<hex>` of the bytes.
    pub(super) digest: String,
    /// Number of bytes.
    pub(super) size: u64,
}

impl Origin {
    /// Returns the place of the component of a function: the file of the command line, that of the annotation, or the bytes
    /// in the manifest.
    ///
    /// # Errors
    /// Fails when there is only an image, which is not pulled.
    pub(super) fn of(function: &Function, named: Option<&Path>) -> anyhow::Result<Self> {
        let annotated = function.component.as_ref();
        let file = named
            .map(Path::to_owned)
            .or_else(|| annotated.map(|path| function.folder.join(path)));
        match (file, &function.inline) {
            (Some(file), _) => Ok(Self::File(file)),
            (None, Some(inline)) => Ok(Self::Inline(inline.clone())),
            (None, None) => bail!(
                "{}: spec.source.image is not pulled without a cluster: name the file of the component with --component \
                 FILE, or with the annotation {COMPONENT} (a path relative to the manifest), and the command that builds it \
                 with --build or the annotation {BUILD}",
                function.key
            ),
        }
    }

    /// Returns the file, if the component is in one.
    pub(super) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Inline(_) => None,
        }
    }

    /// Reads the component. Its bytes are copied, so that a build that writes the file meanwhile changes nothing.
    ///
    /// # Errors
    /// Fails when the file cannot be read or does not start like a component.
    pub(super) fn read(&self) -> anyhow::Result<ComponentBytes> {
        let bytes = match self {
            Self::File(path) => {
                let mut bytes = Vec::new();
                let cannot_read = || format!("cannot read {}", path.display());
                let mut file = serve::open(path)?;
                file.read_to_end(&mut bytes).with_context(cannot_read)?;
                bytes
            }
            Self::Inline(text) => {
                let wrong = "spec.source.inline: write the bytes of the component as base64 on one line, with + and / and = (base64 -w0)";
                let bytes = STANDARD.decode(text).ok().context(wrong)?;
                ensure!(
                    serve::is_component(&bytes),
                    "spec.source.inline is not a WebAssembly component in binary form"
                );
                bytes
            }
        };
        let mut copy = Draft::in_memory(&Arc::new(DiskHealth::default()))?.handle()?;
        copy.write_all(&bytes)
            .context("cannot copy the component")?;
        copy.rewind().context("cannot copy the component")?;
        Ok(ComponentBytes {
            file: copy,
            digest: format!("sha256:{}", hex::encode(Sha256::digest(&bytes))),
            size: bytes.len() as u64,
        })
    }
}
