//! Takes the component out of its layer.

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;

use super::{Failure, MAX_COMPONENT, ResolveError, manifest};

const MAX_RATIO: usize = 100;

/// The component's bytes: the layer itself, or the only regular file of an archive.
pub(super) fn unpack(media_type: &str, packed: Bytes) -> Result<Bytes, ResolveError> {
    if manifest::is_archive(media_type) {
        unarchive(&packed)
    } else {
        Ok(packed)
    }
}

fn refuse(message: impl Into<String>) -> ResolveError {
    ResolveError::new(Failure::NotAComponent, message)
}

fn unarchive(packed: &[u8]) -> Result<Bytes, ResolveError> {
    let limit = MAX_COMPONENT.min(packed.len().saturating_mul(MAX_RATIO).max(64 * 1024));
    // One byte over the limit tells "too large" from "exactly as large".
    let stream = GzDecoder::new(packed).take(limit as u64 + 1);
    let mut archive = tar::Archive::new(stream);
    let entries = archive
        .entries()
        .map_err(|error| refuse(format!("the layer is not an archive: {error}")))?;
    let mut found: Option<Vec<u8>> = None;
    for entry in entries {
        let mut entry = entry.map_err(|error| {
            refuse(format!(
                "the layer's archive is damaged or over its limit: {error}"
            ))
        })?;
        let kind = entry.header().entry_type();
        let path = entry
            .path()
            .map_err(|_| refuse("the layer's archive has a name that is not text"))?
            .into_owned();
        if path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
            return Err(refuse(format!(
                "the layer's archive leaves its folder with {path:?}"
            )));
        }
        match kind {
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => {}
            tar::EntryType::Regular | tar::EntryType::Continuous if found.is_none() => {
                let mut bytes = Vec::new();
                entry
                    .read_to_end(&mut bytes)
                    .map_err(|error| refuse(format!("the layer's archive is damaged: {error}")))?;
                if bytes.len() > limit
                    || bytes.len() as u64 != entry.header().size().unwrap_or(u64::MAX)
                {
                    return Err(refuse(
                        "the component in the layer's archive is cut off or over its limit",
                    ));
                }
                found = Some(bytes);
            }
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                return Err(refuse("the layer's archive holds more than one file"));
            }
            other => {
                return Err(refuse(format!(
                    "the layer's archive holds a {other:?}, only one file is allowed"
                )));
            }
        }
    }
    found
        .map(Bytes::from)
        .ok_or_else(|| refuse("the layer's archive holds no file"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const ARCHIVE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn gzip(content: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap().into()
    }

    fn archive(entries: &[(tar::EntryType, &str, &[u8])]) -> Bytes {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, path, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        gzip(&builder.into_inner().unwrap())
    }

    #[test]
    fn the_only_file_is_taken_and_a_plain_layer_is_itself() {
        let layer = archive(&[
            (tar::EntryType::Directory, "app/", b""),
            (tar::EntryType::Regular, "app/a.wasm", b"code"),
        ]);
        assert_eq!(unpack(ARCHIVE, layer).unwrap(), "code");
        assert_eq!(
            unpack("application/wasm", Bytes::from_static(b"x")).unwrap(),
            "x"
        );
    }

    /// HS-3: archives with more, other or larger files than one component are refused.
    #[test]
    fn hostile_archives_are_refused() {
        let file = (tar::EntryType::Regular, "a", b"1".as_slice());
        for layer in [
            archive(&[]),
            archive(&[file, (tar::EntryType::Regular, "b", b"2")]),
            archive(&[(tar::EntryType::Symlink, "a", b"")]),
            archive(&[(tar::EntryType::Block, "a", b"")]),
            archive(&[(tar::EntryType::Regular, "../a", b"1")]),
            archive(&[(tar::EntryType::Regular, "/a", b"1")]),
            Bytes::from_static(b"not gzip"),
            // A bomb: far over 100 to 1.
            archive(&[(tar::EntryType::Regular, "a", &vec![0; 8 * 1024 * 1024])]),
        ] {
            assert_eq!(
                unpack(ARCHIVE, layer).unwrap_err().failure,
                Failure::NotAComponent
            );
        }
    }
}
