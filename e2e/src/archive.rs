//! Writes tar archives whose bytes depend only on the names, contents and modes of their entries.

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use std::io::Write;

/// One file or folder of an archive. It belongs to root and has the modification time 0.
pub(crate) struct Entry {
    path: String,
    data: Vec<u8>,
    mode: u32,
    kind: tar::EntryType,
}

impl Entry {
    pub(crate) fn file(path: &str, data: Vec<u8>, mode: u32) -> Self {
        Self {
            path: path.into(),
            data,
            mode,
            kind: tar::EntryType::Regular,
        }
    }

    pub(crate) fn dir(path: &str, mode: u32) -> Self {
        Self {
            path: path.into(),
            data: Vec::new(),
            mode,
            kind: tar::EntryType::Directory,
        }
    }
}

/// Returns a tar archive with the entries in this order.
///
/// # Errors
/// Returns an error when a path is too long for the format.
pub(crate) fn tar(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_size(entry.data.len() as u64);
        header.set_mtime(0);
        archive.append_data(&mut header, &entry.path, entry.data.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

/// Compresses data like `gzip --no-name`: without a file name and a time.
///
/// # Errors
/// Returns an error when the data cannot be compressed.
pub(crate) fn gzip(data: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    writer.write_all(data)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_compressed_archive_reads_back_and_holds_no_time() {
        let entry = || Entry::file("program", b"bytes".to_vec(), 0o755);
        let packed = gzip(&tar(&[Entry::dir("etc/", 0o755), entry()]).unwrap()).unwrap();
        assert_eq!(
            packed.get(4..8),
            Some(&[0; 4][..]),
            "the time in a gzip header"
        );
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        assert_eq!(
            entries.next().unwrap().path().unwrap().to_str(),
            Some("etc/")
        );
        let mut program = entries.next().unwrap();
        let mut data = String::new();
        program.read_to_string(&mut data).unwrap();
        let header = program.header();
        assert_eq!(
            (
                data.as_str(),
                header.mode().unwrap(),
                header.mtime().unwrap()
            ),
            ("bytes", 0o755, 0)
        );
    }
}
