//! Extracts the component from its layer. The input is not trusted: it is read as a stream, with the same limit as a
//! component that is not packed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Component;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use tar::EntryType;

use crate::MAX_COMPONENT;
use crate::manifest::{Layer, Packing};

/// Maximum number of unpacked bytes per packed byte; more indicates a decompression bomb.
const MAX_RATIO: u64 = 100;
/// Unpacked size that is allowed at any ratio, because small files compress well.
const MIN_LIMIT: u64 = 64 << 10;
/// Maximum number of entries of an archive, including folders.
const MAX_ENTRIES: usize = 64;
/// Maximum number of bytes of an archive besides the component: headers and padding.
const ARCHIVE_OVERHEAD: u64 = 1 << 20;
/// Maximum memory of a zstd frame; no component needs a larger window.
const MAX_WINDOW: u64 = 64 << 20;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is damaged, or unpacks to more than allowed.
    #[error("the layer's archive is damaged or over its limit: {0}")]
    Damaged(#[source] io::Error),
    /// An entry has a path outside of the archive's folder.
    #[error("the layer's archive leaves its folder with {0:?}")]
    Path(String),
    /// An entry is neither a file nor a folder.
    #[error("the layer's archive holds a {0:?}; only one file is allowed")]
    EntryType(EntryType),
    /// The archive holds several files, or too many folders.
    #[error("the layer's archive holds more than one file")]
    MoreThanOneFile,
    /// The archive holds no file.
    #[error("the layer's archive holds no file")]
    NoFile,
    /// The component has more bytes than allowed.
    #[error("the component in the layer's archive has {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Size of the component, in bytes.
        size: u64,
        /// Maximum size, in bytes.
        limit: u64,
    },
    /// The component could not be written to its destination.
    #[error("the component cannot be written: {0}")]
    Write(#[source] io::Error),
}

// === impl Layer ===

impl Layer {
    /// Whether the layer is an archive around the component. If not, the layer itself is the component.
    #[must_use]
    pub fn is_archive(&self) -> bool {
        self.packing != Packing::None
    }
}

/// Copies the component in `packed`, the content of `layer`, to `sink` and returns its size in bytes. An archive must hold
/// exactly one file.
///
/// # Errors
/// The archive holds anything else, unpacks to more than 100 times its size or [`MAX_COMPONENT`], or `sink` fails.
pub fn unpack(packed: impl Read, layer: &Layer, sink: &mut impl Write) -> Result<u64, UnpackError> {
    let packed = BufReader::new(packed);
    let limit = layer.size.saturating_mul(MAX_RATIO).max(MIN_LIMIT);
    let limit = limit.min(MAX_COMPONENT);
    match layer.packing {
        Packing::None => copy(packed, sink),
        Packing::Tar => only_file(packed, limit, sink),
        Packing::TarGzip => only_file(MultiGzDecoder::new(packed), limit, sink),
        Packing::TarZstd => only_file(ZstdFrames::new(packed), limit, sink),
    }
}

fn only_file(archive: impl Read, limit: u64, sink: &mut impl Write) -> Result<u64, UnpackError> {
    let mut archive = tar::Archive::new(Bounded(archive, limit + ARCHIVE_OVERHEAD));
    let mut found = None;
    let entries = archive.entries().map_err(UnpackError::Damaged)?;
    for (position, entry) in entries.enumerate() {
        let mut entry = entry.map_err(UnpackError::Damaged)?;
        let path = entry.path().map_err(UnpackError::Damaged)?;
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !path.components().all(inside) {
            return Err(UnpackError::Path(path.display().to_string()));
        }
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader if position < MAX_ENTRIES => {}
            // Programs that read archives treat a contiguous file as a regular one.
            EntryType::Regular | EntryType::Continuous if found.is_none() => {
                let size = entry.size();
                if size > limit {
                    return Err(UnpackError::TooLarge { size, limit });
                }
                // A truncated file makes reading the next entry fail.
                found = Some(copy(&mut entry, sink)?);
            }
            EntryType::Regular | EntryType::Continuous | EntryType::Directory => {
                return Err(UnpackError::MoreThanOneFile);
            }
            other => return Err(UnpackError::EntryType(other)),
        }
    }
    found.ok_or(UnpackError::NoFile)
}

/// Like [`io::copy`], but the error says which side failed.
fn copy(mut source: impl Read, sink: &mut impl Write) -> Result<u64, UnpackError> {
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        let read = source.read(&mut buffer).map_err(UnpackError::Damaged)?;
        let Some(chunk) = buffer.get(..read).filter(|chunk| !chunk.is_empty()) else {
            return Ok(copied);
        };
        sink.write_all(chunk).map_err(UnpackError::Write)?;
        copied += read as u64;
    }
}

/// A reader that fails, rather than ends, after the given number of bytes.
struct Bounded<R>(R, u64);

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        let left = self.1.checked_sub(read as u64);
        self.1 = left.ok_or_else(|| io::Error::other("unpacks to more than allowed"))?;
        Ok(read)
    }
}

/// Reads all frames of a zstd stream one after the other. Some tools write one frame per file, and their own data in
/// frames that decoders skip.
struct ZstdFrames<R> {
    source: R,
    frame: FrameDecoder,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(source: R) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(MAX_WINDOW);
        Self { source, frame }
    }

    /// Opens the next frame; `false` at the end of the stream.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let mut skipped = (&mut self.source).take(length.into());
                    io::copy(&mut skipped, &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.frame.can_collect() == 0 {
            if self.frame.is_finished() {
                if !self.next_frame()? {
                    return Ok(0);
                }
            } else {
                let blocks = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.frame.decode_blocks(&mut self.source, blocks);
                decoded.map_err(io::Error::other)?;
            }
        }
        self.frame.read(buffer)
    }
}

#[cfg(test)]
mod tests;
