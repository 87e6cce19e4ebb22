//! `operator replay FILE`: computes every expectation of a sample document with the shipping code.

use std::path::Path;

/// Reads `file` and writes the same document with computed expectations to standard output.
///
/// # Errors
/// The file cannot be read or does not have the form of a sample document.
pub fn run(_file: &Path) -> anyhow::Result<()> {
    anyhow::bail!("replay is not built yet")
}
