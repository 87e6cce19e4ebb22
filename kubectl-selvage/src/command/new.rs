//! `new`: writes the project of a small function.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::Code;
use crate::cli::NewArgs;
use crate::project::{self, File};
use crate::screen::Screen;

pub(super) fn new(args: &NewArgs) -> Result<Code> {
    let folder = Path::new(&args.name);
    // creating fails if it exists, so nothing is overwritten
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            eprintln!(
                "new: nothing was written. {} exists already.",
                folder.display()
            );
            return Ok(Code::Refused);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be created", folder.display()));
        }
    }
    for file in project::files(args.lang, &args.name) {
        let path = folder.join(&file.path);
        write(&path, &file).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let mut lines = vec![format!("{} is written. Next:", folder.display())];
    lines.push(format!("  cd {}", args.name));
    lines.extend(
        project::commands(args.lang)
            .iter()
            .map(|command| format!("  {command}")),
    );
    Screen::new().print(&lines)?;
    Ok(Code::Done)
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // the umask takes from these what the user does not want
    let mode = if file.executable { 0o777 } else { 0o666 };
    let mut opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    opened.write_all(file.text.as_bytes())
}
