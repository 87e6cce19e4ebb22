//! Cache of what is built or fetched once and kept between runs. Each entry is a folder named by its content.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// The folder of the cache with durations of long steps.
const DURATIONS: &str = "durations";

/// Returns the folder of the cache: `SELVAGE_CACHE`, otherwise `~/.cache/selvage`.
///
/// # Errors
/// Returns an error when neither `SELVAGE_CACHE` nor `HOME` is set, or the folder cannot be created.
pub(crate) fn root() -> Result<PathBuf> {
    let dir = match (env::var_os("SELVAGE_CACHE"), env::var_os("HOME")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(home)) => Path::new(&home).join(".cache/selvage"),
        (None, None) => bail!("set SELVAGE_CACHE or HOME: there is no folder to keep builds in"),
    };
    fs::create_dir_all(&dir).with_context(|| format!("make the cache {}", dir.display()))?;
    Ok(dir)
}

/// Returns the entry `name`. If it does not exist yet, calls `make` with an empty folder to fill.
///
/// One process at a time creates an entry; the others wait and use it. An entry appears completely or not at all.
///
/// # Errors
/// Returns an error when the cache cannot be written or `make` fails.
pub(crate) fn entry(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = root()?;
    let dir = root.join(name);
    if dir.is_dir() {
        return Ok(dir);
    }
    let lock = File::create(root.join("lock")).context("open the lock of the cache")?;
    lock.lock().context("wait for the lock of the cache")?;
    if dir.is_dir() {
        return Ok(dir);
    }
    let part = root.join(format!("{name}.part"));
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
    }
    fs::create_dir(&part).with_context(|| format!("make {}", part.display()))?;
    make(&part)?;
    fs::rename(&part, &dir).with_context(|| format!("name {}", dir.display()))?;
    Ok(dir)
}

/// Duration of a step in the previous run on this machine, as recorded by [`remember_duration`].
pub(crate) fn last_duration(step: &str) -> Option<Duration> {
    let text = fs::read_to_string(root().ok()?.join(DURATIONS).join(step)).ok()?;
    Some(Duration::from_secs(text.trim().parse().ok()?))
}

/// Records the duration of a step for the next run. Errors are ignored: only the estimate is lost.
pub(crate) fn remember_duration(step: &str, took: Duration) {
    let Ok(dir) = root().map(|root| root.join(DURATIONS)) else {
        return;
    };
    let _ = fs::create_dir_all(&dir);
    let _ = fs::write(dir.join(step), took.as_secs().to_string());
}

/// Returns the first 16 hex digits of the SHA-256 over names and contents of all files below `dir`.
///
/// # Errors
/// Returns an error when a file cannot be read.
pub(crate) fn content_key(dir: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let data = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        hash.update(file.strip_prefix(dir)?.as_os_str().as_encoded_bytes());
        hash.update((data.len() as u64).to_be_bytes());
        hash.update(data);
    }
    Ok(hex::encode(hash.finalize())
        .get(..16)
        .unwrap_or_default()
        .to_owned())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for found in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = found?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Runs a command to its end and returns what it wrote to standard output.
///
/// # Errors
/// Returns an error when the command cannot be started or fails; the error then quotes the end of its standard error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!(
            "{program} {}: {}: {}",
            args.join(" "),
            output.status,
            last_lines(&stderr, 8)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the last `count` lines of `text`.
#[must_use]
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(count);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// Returns whether `program` is on `PATH`.
#[must_use]
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_names_and_contents() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        let first = content_key(dir.path()).unwrap();
        fs::write(dir.path().join("a"), "2").unwrap();
        let edited = content_key(dir.path()).unwrap();
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        let renamed = content_key(dir.path()).unwrap();
        assert_ne!(first, edited);
        assert_ne!(edited, renamed);
        fs::rename(dir.path().join("b"), dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        assert_eq!(first, content_key(dir.path()).unwrap());
    }

    #[test]
    fn a_failed_command_quotes_its_last_words() {
        let error = run(Command::new("sh").args(["-c", "echo lost the key >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("lost the key"), "{error}");
    }
}
