//! `new`: writes the project of a small function.

use std::fs;
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
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
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
    for File { path, text } in project::files(args.lang, &args.name) {
        let path = folder.join(path);
        let cannot = || format!("{} cannot be written", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(cannot)?;
        }
        fs::write(&path, text).with_context(cannot)?;
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
