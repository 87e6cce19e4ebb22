//! Components that failed permanently, by digest and engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use node_shim_core::desired::{Failure, LoadFailure};
use parking_lot::Mutex;

use crate::disk::{DiskHealth, StateDir};

const MAX_ENTRIES: usize = 1_000;

type Key = (String, String);

/// Bounded list of permanent failures that survives restarts.
#[derive(Debug)]
pub struct KnownFailures {
    path: PathBuf,
    health: Arc<DiskHealth>,
    entries: Mutex<BTreeMap<Key, Failure>>,
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
        let known = entries.get(&(hex.to_string(), engine.to_string()));
        known.cloned()
    }

    /// Adds a failure if the component itself is at fault.
    pub fn remember(&self, hex: &str, engine: &str, failed: &Failure) {
        if !LoadFailure::FAULTS_OF_THE_COMPONENT.contains(&failed.cause) {
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
                Failure::new(failed.cause, message),
            );
            let line = |((hex, engine), known): (&Key, &Failure)| {
                let reason = known.reason().name();
                format!("{hex}\t{engine}\t{reason}\t{}\n", known.message)
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

fn parse(line: &str) -> Option<(Key, Failure)> {
    let mut fields = line.splitn(4, '\t');
    let (hex, engine, reason) = (fields.next()?, fields.next()?, fields.next()?);
    let cause = LoadFailure::FAULTS_OF_THE_COMPONENT
        .into_iter()
        .find(|cause| cause.reason().name() == reason)?;
    let failed = Failure::new(cause, fields.next()?);
    Some(((hex.into(), engine.into()), failed))
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
        let limit = Failure::new(LoadFailure::CompileLimit, "too\nbig");
        open().remember("aa", "e1", &limit);
        open().remember("bb", "e1", &Failure::new(LoadFailure::WrongContent, "x"));
        let again = open();
        let known = again.get("aa", "e1").unwrap();
        assert_eq!(known, Failure::new(LoadFailure::CompileLimit, "too big"));
        assert_eq!(again.get("aa", "e2"), None);
        assert_eq!(again.get("bb", "e1"), None);
        // another release may offer what the component imports
        open().remember("cc", "e1", &Failure::new(LoadFailure::WorldMismatch, "x"));
        assert_eq!(open().get("cc", "e1"), None);
        let line = "dd\te1\tWorldMismatch\twritten by an earlier release\n";
        fs::write(dir.state().join("refused"), line).unwrap();
        assert_eq!(open().get("dd", "e1"), None);
        fs::write(dir.state().join("refused"), b"\xff\xfe nonsense\n\t\t").unwrap();
        assert_eq!(open().get("aa", "e1"), None);
    }
}
