//! Trial of code with explicit bounds checks ([`node_shim_core::bounds_checks`]): prepares the other code in the background
//! and replaces the code of a component. Requests that run keep the code with which they began.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use node_api::world::World;
use node_shim_core::bounds_checks::{BoundsChecks, BoundsTrial};
use parking_lot::Mutex;

use super::{CodeCache, CompiledComponent, MapCode, MappedCode};

/// State of the trial of one component.
#[derive(Default)]
pub(super) struct CodeTrial {
    state: Mutex<BoundsTrial>,
    /// Whether nothing is recorded any longer.
    over: AtomicBool,
}

impl CodeTrial {
    /// Takes note that code with guard pages was mapped again.
    pub(super) fn restart(&self) {
        self.state.lock().restart();
    }

    fn give_up(&self) {
        self.state.lock().give_up();
        self.over.store(true, Ordering::Relaxed);
    }
}

impl CompiledComponent {
    /// Counts a guest that ran on an instance of its own: its CPU time, and the memory of the instance in bytes.
    pub(crate) fn record_guest(self: &Arc<Self>, used: Duration, memory: u64) {
        if self.trial.over.load(Ordering::Relaxed) {
            return;
        }
        let Some((map, code_cache)) = self.map.as_ref().filter(|_| self.world == World::Proxy)
        else {
            self.trial.give_up();
            return;
        };
        let grew = self.initial_memory.is_some_and(|initial| memory > initial);
        let wanted = self.trial.state.lock().record(used, grew);
        if let Some(checks) = wanted {
            let (code, map, code_cache) =
                (Arc::clone(self), Arc::clone(map), Arc::clone(code_cache));
            tokio::spawn(async move { code.change(checks, &*map, &code_cache).await });
        }
    }

    async fn change(&self, checks: BoundsChecks, map: &dyn MapCode, code_cache: &CodeCache) {
        // the semaphore is never closed
        let permit = code_cache.replacements.acquire().await;
        let outcome = match checks {
            BoundsChecks::Explicit => map.map_explicit(&self.digest).await,
            BoundsChecks::GuardPages => map.map(&self.digest).await,
        };
        drop(permit);
        let digest = &self.digest;
        match outcome {
            Ok(mapped) => {
                if self.replace(mapped, checks) {
                    tracing::info!(digest, ?checks, "the code of a component was replaced");
                }
            }
            Err(failure) => {
                let message = failure.message;
                tracing::info!(
                    digest,
                    ?checks,
                    message,
                    "the code of a component stays as it is"
                );
                self.trial.give_up();
            }
        }
    }

    /// Replaces the code, unless it was unmapped in the meantime, or mapped again since. Returns whether it did.
    fn replace(&self, mapped: MappedCode, checks: BoundsChecks) -> bool {
        let mut state = self.lock();
        if state.loaded.is_none() {
            self.trial.restart();
            return false;
        }
        let wanted = match checks {
            BoundsChecks::Explicit => self.trial.state.lock().changed(),
            BoundsChecks::GuardPages => {
                self.trial.give_up();
                true
            }
        };
        let other = (mapped.loaded, Some(mapped.slot));
        let unused = if wanted {
            state.loaded.replace(other)
        } else {
            Some(other)
        };
        drop(state);
        drop(unused);
        wanted
    }
}
