//! Components that failed for good, by digest and engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use node_shim_core::desired::Failure;

use crate::disk::{DiskHealth, StateDir};
use crate::pull::failure;

const MAX_ENTRIES: usize = 1_000;
/// Reasons that lie in the component and not in where it came from.
const COMPONENT_FAULTS: [&str; 5] = [
    "NotAComponent",
    "UnsupportedFeature",
    "WorldMismatch",
    "CompileLimit",
    "CompileFailed",
];

type Key = (String, String);

/// A bounded memory that survives restarts.
#[derive(Debug)]
pub struct KnownFailures {
    path: PathBuf,
    health: Arc<DiskHealth>,
    entries: Mutex<BTreeMap<Key, (&'static str, String)>>,
}

impl KnownFailures {
    /// Reads what is below `dir`; anything unreadable is nothing.
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

    /// What is known about a component.
    #[must_use]
    pub fn get(&self, hex: &str, engine: &str) -> Option<Failure> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (reason, message) = entries.get(&(hex.to_string(), engine.to_string()))?;
        Some(failure(reason, true, message.clone()))
    }

    /// Remembers a failure, if the component itself is at fault.
    pub fn remember(&self, hex: &str, engine: &str, failed: &Failure) {
        if !COMPONENT_FAULTS.contains(&failed.reason) {
            return;
        }
        let text = {
            let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
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
        // of two processes that write it at once one entry is lost, and found out again
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

    /// HG-8: what is remembered of a refusal, and for how long.
    #[test]
    fn remembers_over_restarts_by_engine_and_only_what_is_the_components_fault() {
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
