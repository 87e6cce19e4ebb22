//! An image layer (tar+gzip) with the component as its only file. Read as a stream, under the same
//! cap as a bare component.

use std::io::{self, Read, Write};

use flate2::read::GzDecoder;

use super::manifest::MAX_COMPONENT;

/// Unpacked bytes per packed byte; more is a bomb.
const MAX_RATIO: u64 = 100;
/// Folders and the like besides the one file.
const MAX_ENTRIES: usize = 64;

/// Copies the only file of the archive to `sink`; returns its size.
///
/// # Errors
/// `InvalidData` when the archive is not of that form, else what reading or writing gave.
pub(crate) fn unpack(
    packed: impl Read,
    packed_size: u64,
    sink: &mut impl Write,
) -> io::Result<u64> {
    let cap = MAX_COMPONENT.min(packed_size.saturating_mul(MAX_RATIO));
    // the archive's own blocks come on top of the content
    let unpacked = Capped {
        inner: GzDecoder::new(packed),
        left: cap + (1 << 20),
    };
    let mut archive = tar::Archive::new(unpacked);
    let mut found = None;
    for (position, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if position >= MAX_ENTRIES {
            return Err(invalid("too many entries"));
        }
        let path = entry.path()?;
        if path
            .components()
            .any(|part| matches!(part, std::path::Component::ParentDir))
        {
            return Err(invalid("a path with .."));
        }
        match entry.header().entry_type() {
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => {}
            tar::EntryType::Regular if found.is_none() => {
                if entry.size() > cap {
                    return Err(invalid("the component is larger than allowed"));
                }
                found = Some(io::copy(&mut entry, sink)?);
            }
            tar::EntryType::Regular => return Err(invalid("more than one file")),
            _ => return Err(invalid("links and devices are not taken")),
        }
    }
    found.ok_or_else(|| invalid("no file"))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("layer archive: {what}"))
}

struct Capped<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| invalid("unpacks to more than allowed"))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn pack(build: impl FnOnce(&mut tar::Builder<GzEncoder<Vec<u8>>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
        build(&mut builder);
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn file(builder: &mut tar::Builder<GzEncoder<Vec<u8>>>, path: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }

    fn run(packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut sink = Vec::new();
        unpack(packed, packed.len() as u64, &mut sink).map(|_| sink)
    }

    #[test]
    fn one_file_among_folders_is_the_component() {
        let packed = pack(|builder| {
            builder.append_dir("app", ".").unwrap();
            file(builder, "app/a.wasm", b"component");
        });
        assert_eq!(run(&packed).unwrap(), b"component");
    }

    #[test]
    fn other_forms_are_refused() {
        let link = pack(|builder| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder
                .append_link(&mut header, "a.wasm", "/etc/passwd")
                .unwrap();
        });
        let two = pack(|builder| {
            file(builder, "a", b"1");
            file(builder, "b", b"2");
        });
        let up = pack(|builder| file(builder, "../a", b"1"));
        let none = pack(|_| {});
        let bomb = pack(|builder| file(builder, "a", &vec![0; 4 << 20]));
        for (what, packed) in [
            ("link", link),
            ("two files", two),
            ("parent", up),
            ("empty", none),
            ("bomb", bomb),
        ] {
            let error = run(&packed).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
        }
        assert!(run(b"not gzip").is_err());
    }
}
