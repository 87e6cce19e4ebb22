//! Text of a failure: why the guest ended, and the names of the functions that it was running.
//!
//! The names come from the name section of the component and are as long as its author likes, so the text is bounded while
//! it is written. Names of Rust functions are demangled. Files and lines are shown by `serve` and `dev` only
//! ([`BacktraceDetail`](crate::engine::BacktraceDetail)): wasmtime reads the debug information again for each frame of each
//! trap, on the thread that runs all guests. The offset of each frame leads to them on nodes, as `docs/functions.md` describes.

use std::fmt::{self, Write as _};
use std::io;

use node_shim_core::failure_reason::FailureReason;

use super::MAX_LINE;

/// Returns reason, cause and backtrace of a failure, at most as long as a line of the log.
pub(super) fn describe(reason: FailureReason, error: &wasmtime::Error) -> String {
    let mut text = Bounded::default();
    // ends early when the text is full
    let _ = write_failure(&mut text, reason, error);
    let mut readable = Bounded::default();
    let mut mangled = text.as_bytes();
    let _ = rustc_demangle::demangle_stream(&mut mangled, &mut readable, false);
    String::from_utf8_lossy(&readable.0).into_owned()
}

fn write_failure(
    text: &mut Bounded,
    reason: FailureReason,
    error: &wasmtime::Error,
) -> fmt::Result {
    write!(text, "{}: ", reason.label())?;
    if error.chain().nth(1).is_some() {
        // first, because the names of functions may fill the text
        writeln!(text, "{}", error.root_cause())?;
    }
    write!(text, "{error:?}")
}

/// A text of at most `MAX_LINE` bytes, whose end is cut.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Bounded {
    fn as_bytes(&self) -> &[u8] {
        // a character that was cut would be an error of the demangler
        let valid = self.0.utf8_chunks().next();
        valid.map_or(&[], |chunk| chunk.valid().as_bytes())
    }

    /// Returns whether all of the bytes had room.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let room = MAX_LINE.saturating_sub(self.0.len());
        let fitting = bytes.get(..room).unwrap_or(bytes);
        self.0.extend_from_slice(fitting);
        fitting.len() == bytes.len()
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.push(text.as_bytes()) {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.push(bytes) {
            Ok(bytes.len())
        } else {
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Trap;

    use super::*;

    fn text(error: &str) -> String {
        describe(FailureReason::Trap, &wasmtime::Error::msg(error.to_owned()))
    }

    #[test]
    fn names_of_rust_functions_are_demangled() {
        assert_eq!(
            text("0: 0x1f - m!_ZN5guest6render17h0123456789abcdefE"),
            "trap: 0: 0x1f - m!guest::render"
        );
        assert_eq!(text("m!_RNvC5guest6render"), "trap: m!guest::render");
        assert_eq!(text("m!handle\nm!_Rx"), "trap: m!handle\nm!_Rx");
    }

    /// HG-20: names are bounded before and after they are demangled.
    #[test]
    fn hg_20_the_text_of_a_failure_is_bounded() {
        for name in ["x".repeat(1 << 20), "ü".repeat(1 << 20)] {
            let text = text(&name);
            assert!((MAX_LINE - 2..=MAX_LINE).contains(&text.len()));
            assert!(text.starts_with("trap: "));
            let error = wasmtime::Error::from(Trap::UnreachableCodeReached).context(name);
            let text = describe(FailureReason::Trap, &error);
            assert!(
                text.starts_with("trap: wasm trap: wasm `unreachable`"),
                "{text}"
            );
        }
    }
}
