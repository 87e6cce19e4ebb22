//! `image DIR`: writes the images of the programs in DIR, `DIR/operator.tar` and `DIR/node-shim.tar`.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use e2e::image::write_image;
use std::{io::Write, path::PathBuf};

fn main() -> Result<()> {
    let dir: PathBuf = std::env::args_os()
        .nth(1)
        .context("usage: image DIR")?
        .into();
    for name in ["operator", "node-shim"] {
        let reference = format!("selvage.local/{name}:dev");
        let digest = write_image(
            &reference,
            &dir.join(name),
            name,
            &dir.join(format!("{name}.tar")),
        )?;
        writeln!(std::io::stdout(), "{reference} {digest}")?;
    }
    Ok(())
}
