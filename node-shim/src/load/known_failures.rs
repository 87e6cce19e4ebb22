//! Components that failed permanently, by digest and engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use node_shim_core::desired::Failure;
use parking_lot::Mutex;

use crate::disk::{DiskHealth, StateDir};
use crate::pull::failure;

const MAX_ENTRIES: usize = 1_000;
/// Reasons that are caused by the component itself and not by its source.
const COMPONENT_FAULTS: [&str; 5] = [
    "NotAComponent",
    "UnsupportedFeature",
    "WorldMismatch",
    "CompileLimit",
    "CompileFailed",
];

type Key = (String, String);

/// Bounded list of permanent failures that survives restarts.
#[derive(Debug)]
pub struct KnownFailures {
    path: PathBuf,
    health: Arc<DiskHealth>,
    entries: Mutex<BTreeMap<Key, (&'static str, String)>>,
}

impl KnownFailures {
    /// Reads the list below `dir`. Unreadable entries are ignored.
    #[must_use]
    pub fn open(dir: &StateDir, health: Arc<DiskHealth>) -> Self {
        let path = dir.state().join("refused");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let entries = text.lines().filter_map(parse).take(MAX_ENTRIES).collect();
        Self {
            path,
            health,
            entries: Mutex::new(entries),
        }
    }

    /// Returns the known failure of a component.
    #[must_use]
    pub fn get(&self, hex: &str, engine: &str) -> Option<Failure> {
        let entries = self.entries.lock();
        let (reason, message) = entries.get(&(hex.to_string(), engine.to_string()))?;
        Some(failure(reason, true, message.clone()))
    }

    /// Adds a failure if the component itself is at fault.
    pub fn remember(&self, hex: &str, engine: &str, failed: &Failure) {
        if !COMPONENT_FAULTS.contains(&failed.reason) {
            return;
        }
        let text = {
            let mut entries = self.entries.lock();
            if entries.len() >= MAX_ENTRIES {
                entries.pop_first();
            }
            let message = failed.message.replace(['\n', '\t'], " ");
            entries.insert(
                (hex.to_string(), engine.to_string()),
                (failed.reason, message),
            );
            let line = |((hex, engine), (reason, message)): (&Key, &(&str, String))| {
                format!("{hex}\t{engine}\t{reason}\t{message}\n")
            };
            entries.iter().map(line).collect::<String>()
        };
        // two processes that write concurrently may lose an entry, which is then determined again
        let draft = self
            .path
            .with_extension(format!("draft-{}", std::process::id()));
        match fs::write(&draft, text).and_then(|()| fs::rename(&draft, &self.path)) {
            Ok(()) => {}
            Err(error) => self.health.failed(&error),
        }
    }
}

fn parse(line: &str) -> Option<(Key, (&'static str, String))> {
    let mut fields = line.splitn(4, '\t');
    let (hex, engine, reason) = (fields.next()?, fields.next()?, fields.next()?);
    let reason = COMPONENT_FAULTS
        .into_iter()
        .find(|known| *known == reason)?;
    Some(((hex.into(), engine.into()), (reason, fields.next()?.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HG-8: failures are kept across restarts, by engine, and only if the component is at fault.
    #[test]
    fn failures_of_components_survive_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        dir.create().unwrap();
        let open = || KnownFailures::open(&dir, Arc::default());
        let limit = failure("CompileLimit", true, "too\nbig".into());
        open().remember("aa", "e1", &limit);
        open().remember("bb", "e1", &failure("DigestMismatch", true, "x".into()));
        let again = open();
        assert_eq!(again.get("aa", "e1").unwrap().message, "too big");
        assert_eq!(again.get("aa", "e2"), None);
        assert_eq!(again.get("bb", "e1"), None);
        fs::write(dir.state().join("refused"), b"\xff\xfe nonsense\n\t\t").unwrap();
        assert_eq!(open().get("aa", "e1"), None);
    }
}
