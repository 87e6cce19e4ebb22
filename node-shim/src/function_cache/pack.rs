//! Format of compiled functions: a header, then a record for each function.
//!
//! A record consists of a key (32 bytes, the hash of everything that the code depends on), the length of the code (4 bytes,
//! little endian) and the code. In the file that the compiler process writes, a record without code means that the function
//! was taken from the pack.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

const HEADER: &[u8; 16] = b"selvage fn pack\n";
const KEY_BYTES: usize = 32;
const RECORD_BYTES: usize = KEY_BYTES + 4;
/// Number of records from which a file is not read further. A component has fewer functions.
pub(super) const MAX_RECORDS: usize = 200_000;

/// Hash of everything that the code of a function depends on.
pub(super) type Key = [u8; KEY_BYTES];

/// A function in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Key,
    /// Position of the code in the file.
    start: u64,
    /// Length of the code in bytes; 0 for a function that was reused.
    pub(super) length: u32,
}

impl Record {
    /// Size of the record in a file, in bytes.
    pub(super) fn size(&self) -> u64 {
        RECORD_BYTES as u64 + u64::from(self.length)
    }

    /// Reads the code.
    pub(super) fn code(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut code = vec![0; usize::try_from(self.length).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut code, self.start)?;
        Ok(code)
    }
}

/// Returns the records of a file in their order, up to the first one that is incomplete. The position of the file, which it
/// may share with another process, does not matter.
pub(super) fn records(file: &File) -> io::Result<Vec<Record>> {
    let end = file.metadata()?.len();
    let mut header = [0; HEADER.len()];
    if end < header.len() as u64 {
        return Ok(Vec::new());
    }
    file.read_exact_at(&mut header, 0)?;
    let mut records = Vec::new();
    if header != *HEADER {
        return Ok(records);
    }
    let mut at = HEADER.len() as u64;
    while records.len() < MAX_RECORDS && at + RECORD_BYTES as u64 <= end {
        let (mut key, mut length) = ([0; KEY_BYTES], [0; 4]);
        file.read_exact_at(&mut key, at)?;
        file.read_exact_at(&mut length, at + KEY_BYTES as u64)?;
        let record = Record {
            key,
            start: at + RECORD_BYTES as u64,
            length: u32::from_le_bytes(length),
        };
        at += record.size();
        if at > end {
            break;
        }
        records.push(record);
    }
    Ok(records)
}

/// Writes records up to a maximum size.
#[derive(Debug)]
pub(super) struct PackWriter<W: Write> {
    out: W,
    room: u64,
}

impl<W: Write> PackWriter<W> {
    /// Writes the header. The file gets at most `max` bytes.
    pub(super) fn new(mut out: W, max: u64) -> io::Result<Self> {
        out.write_all(HEADER)?;
        Ok(Self {
            out,
            room: max.saturating_sub(HEADER.len() as u64),
        })
    }

    /// Returns whether a record fits.
    pub(super) fn fits(&self, size: u64) -> bool {
        size <= self.room
    }

    /// Appends a record if it fits. Returns false when it does not.
    pub(super) fn append(&mut self, key: &Key, code: &[u8]) -> io::Result<bool> {
        let Ok(length) = u32::try_from(code.len()) else {
            return Ok(false);
        };
        let size = RECORD_BYTES as u64 + u64::from(length);
        if !self.fits(size) {
            return Ok(false);
        }
        self.out.write_all(key)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(code)?;
        self.room -= size;
        Ok(true)
    }

    /// Writes what is buffered, and returns the output.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn pack(codes: &[(u8, &[u8])], max: u64) -> Vec<u8> {
        let mut writer = PackWriter::new(Vec::new(), max).unwrap();
        for (key, code) in codes {
            writer.append(&[*key; KEY_BYTES], code).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(content: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let file = file(content);
        let records = records(&file).unwrap().into_iter();
        records
            .map(|record| (record.key[0], record.code(&file).unwrap()))
            .collect()
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let content = pack(&[(1, b"one"), (2, b""), (3, b"three")], u64::MAX);
        let expected = [
            (1, b"one".to_vec()),
            (2, Vec::new()),
            (3, b"three".to_vec()),
        ];
        assert_eq!(read(&content), expected);
        assert_eq!(read(&[]), []);
    }

    /// HG-31: the compiler process, or a failing disk, may leave any bytes.
    #[test]
    fn hg_31_incomplete_and_foreign_files_have_fewer_records() {
        let content = pack(&[(1, b"one"), (2, b"two")], u64::MAX);
        for length in 0..content.len() {
            let found = read(&content[..length]);
            assert!(found.len() < 2, "{length}: {found:?}");
            assert!(found.iter().all(|(_, code)| code == b"one"));
        }
        let mut foreign = content.clone();
        foreign[0] ^= 1;
        assert_eq!(read(&foreign), []);
        // a length beyond the end of the file
        let mut long = content;
        let at = HEADER.len() + KEY_BYTES;
        long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&long), []);
    }

    #[test]
    fn the_size_of_a_file_is_bounded() {
        let max = (HEADER.len() + RECORD_BYTES + 3) as u64;
        let content = pack(&[(1, b"four"), (2, b"two"), (3, b"")], max);
        assert_eq!(read(&content), [(2, b"two".to_vec())]);
        assert_eq!(content.len() as u64, max);
    }
}
