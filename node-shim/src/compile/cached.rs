//! Compilation with the functions of earlier compilations.

use std::fs::File;
use std::sync::Arc;

use node_shim_core::desired::Failure;

use super::{Compiled, CompilerPool};
use crate::disk::Draft;
use crate::function_cache::FunctionCache;
use crate::pull::blocking;

impl CompilerPool {
    /// Compiles a component into a draft. Takes the functions that `cache` has of the namespace, if they can be read, and
    /// adds the others to it.
    ///
    /// # Errors
    /// Returns the errors of [`run`](Self::run).
    pub async fn run_cached(
        &self,
        component: File,
        draft: Draft,
        cache: &Arc<FunctionCache>,
        namespace: &str,
    ) -> Result<Compiled, Failure> {
        let (functions, namespace) = (Arc::clone(cache), namespace.to_owned());
        let begun = blocking(move || Ok(functions.begin(&namespace))).await?;
        let mut exchange = match begun {
            Ok(exchange) => exchange,
            Err(error) => {
                tracing::warn!(%error, "compiled functions cannot be reused");
                return self.run(component, draft).await;
            }
        };
        let compiled = self.run_reusing(component, draft, &mut exchange).await?;
        if let Compiled::Code(_) = compiled {
            let functions = Arc::clone(cache);
            let stored = move || {
                functions.finish(&exchange);
                Ok(())
            };
            blocking(stored).await?;
        }
        Ok(compiled)
    }
}
