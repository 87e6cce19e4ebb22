//! Writes the definitions: to the folder given as the only argument, one file per kind, or to standard output.

use std::io::Write;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        std::io::stdout().write_all(crds::to_yaml()?.as_bytes())?;
        return Ok(());
    };
    std::fs::create_dir_all(&folder)?;
    for (name, text) in crds::files()? {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}
