use flate2::Compression;
use flate2::write::GzEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

type Entry<'a> = (EntryType, &'a str, &'a [u8]);

const FILE: Entry<'static> = (EntryType::Regular, "app/a.wasm", b"component");

fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, content) in entries {
        let mut header = tar::Header::new_gnu();
        // The setter of paths refuses malicious ones.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd(content: &[u8]) -> Vec<u8> {
    compress_to_vec(content, CompressionLevel::Fastest)
}

fn layer(packing: Packing, size: usize) -> Layer {
    Layer {
        media_type: String::new(),
        digest: String::new(),
        size: size as u64,
        packing,
    }
}

fn run(packing: Packing, packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut sink = Vec::new();
    let size = unpack(packed, &layer(packing, packed.len()), &mut sink)?;
    assert_eq!(size, sink.len() as u64);
    Ok(sink)
}

#[test]
fn the_only_file_of_every_kind_of_archive_is_the_component() {
    let archive = tar(&[(EntryType::Directory, "app/", b""), FILE]);
    for (packing, packed) in [
        (Packing::None, b"component".to_vec()),
        (Packing::Tar, archive.clone()),
        (Packing::TarGzip, gzip(&archive)),
        (Packing::TarZstd, zstd(&archive)),
    ] {
        assert_eq!(run(packing, &packed).unwrap(), b"component", "{packing:?}");
    }
}

/// POSIX allows a contiguous file in place of a regular one.
#[test]
fn a_contiguous_file_is_a_file() {
    let archive = tar(&[(EntryType::Continuous, "a.wasm", b"component")]);
    assert_eq!(run(Packing::Tar, &archive).unwrap(), b"component");
}

/// Tools for lazy pulling write one member or frame per file, and their own data in zstd frames.
#[test]
fn all_members_and_frames_are_one_archive() {
    let archive = tar(&[FILE]);
    let (head, tail) = archive.split_at(700);
    let members = [gzip(head), gzip(tail)].concat();
    assert_eq!(run(Packing::TarGzip, &members).unwrap(), b"component");
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    let frames = [zstd(head), skipped.clone(), zstd(b""), zstd(tail), skipped].concat();
    assert_eq!(run(Packing::TarZstd, &frames).unwrap(), b"component");
}

/// HS-3: archives with more, other or larger files than one component are refused.
#[test]
fn malicious_archives_are_refused() {
    let zeros = vec![0; 8 << 20];
    let folder = (EntryType::Directory, "d/", &b""[..]);
    let folders = vec![folder; MAX_ENTRIES + 1];
    let cut = tar(&[(EntryType::Regular, "a", &[1; 4000])])[..2000].to_vec();
    let cases = [
        ("empty", tar(&[])),
        ("two files", tar(&[FILE, FILE])),
        ("symlink", tar(&[(EntryType::Symlink, "a", b"")])),
        ("hard link", tar(&[(EntryType::Link, "a", b"")])),
        ("device", tar(&[(EntryType::Block, "a", b"")])),
        ("parent", tar(&[(EntryType::Regular, "../a", b"1")])),
        ("absolute", tar(&[(EntryType::Regular, "/a", b"1")])),
        ("folders", tar(&[folders.as_slice(), &[FILE]].concat())),
        ("cut off", cut),
    ];
    for (what, archive) in cases {
        assert!(run(Packing::Tar, &archive).is_err(), "{what}");
        let error = run(Packing::TarGzip, &gzip(&archive)).unwrap_err();
        assert!(!matches!(error, UnpackError::Write(_)), "{what}: {error}");
    }
    // Far more than 100 to 1, declared in the archive's header or not.
    let bomb = tar(&[(EntryType::Regular, "a", &zeros)]);
    for (packing, packed) in [
        (Packing::TarGzip, gzip(&bomb)),
        (Packing::TarZstd, zstd(&bomb)),
        (Packing::TarGzip, gzip(&zeros)),
        (Packing::TarZstd, zstd(&zeros)),
        (Packing::TarGzip, b"not gzip".to_vec()),
        (Packing::TarZstd, b"not zstd".to_vec()),
        (Packing::Tar, b"not tar".to_vec()),
    ] {
        assert!(run(packing, &packed).is_err(), "{packing:?}");
    }
}

/// A frame may ask for a window of 128 MiB, which the decoder would allow.
#[test]
fn a_zstd_window_is_bounded() {
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0];
    let error = run(Packing::TarZstd, &frame).unwrap_err();
    assert!(error.to_string().contains("window"), "{error}");
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_not_the_archives_fault() {
    for (packing, packed) in [(Packing::None, b"x".to_vec()), (Packing::Tar, tar(&[FILE]))] {
        let layer = layer(packing, packed.len());
        let error = unpack(packed.as_slice(), &layer, &mut Full).unwrap_err();
        assert!(matches!(error, UnpackError::Write(_)), "{error}");
    }
}
