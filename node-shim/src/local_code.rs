//! Code of a component that a file of this machine contains, for `serve` and `dev`. It is compiled as on a node, in a
//! separate process with limited resources, and is never unmapped.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim_core::bounds_checks::BoundsChecks;
use node_shim_core::desired::{Failure, LoadFailure};

use crate::code_cache::{CodeCache, CompiledComponent, MapCode, MappedCode};
use crate::compile::{Compiled, CompilerPool, THIS_PROGRAM};
use crate::disk::{DiskHealth, Draft};
use crate::engine::{Engine, LinkedComponent, LoadError};
use crate::function_cache::{FunctionCache, FunctionCounts};
use crate::load::MAX_EXPLICIT;

type Load = fn(&Engine, &Path) -> Result<LinkedComponent, LoadError>;

/// Compiles components of local files.
#[derive(Clone)]
pub(crate) struct LocalCompiler {
    engine: Engine,
    /// `None` when the user has no cache.
    functions: Option<Arc<FunctionCache>>,
}

/// A component that may be compiled a second time.
#[derive(Clone)]
struct LocalCode {
    compiler: LocalCompiler,
    namespace: String,
    /// Copy of the component, because its file may change.
    component: Arc<File>,
    code_cache: Arc<CodeCache>,
}

impl LocalCompiler {
    /// Returns a compiler that reuses the functions of `functions`.
    pub(crate) fn new(engine: Engine, functions: Option<Arc<FunctionCache>>) -> Self {
        Self { engine, functions }
    }

    /// Returns how many functions were reused and compiled so far. Zero without a cache.
    pub(crate) fn function_counts(&self) -> FunctionCounts {
        let functions = self.functions.as_ref();
        functions
            .map(|functions| functions.totals())
            .unwrap_or_default()
    }

    /// Compiles a component of a function of this namespace and maps its code.
    pub(crate) async fn compile(
        &self,
        mut component: File,
        namespace: &str,
    ) -> anyhow::Result<Arc<CompiledComponent>> {
        // the code and the one that replaces it
        let (code_cache, _) = CodeCache::new(2);
        let copied = component.metadata()?.len() <= MAX_EXPLICIT;
        if copied {
            let mut copy = Draft::in_memory(&Arc::default())?;
            io::copy(&mut component, &mut copy)?;
            component = copy.handle()?;
        }
        let local = LocalCode {
            compiler: self.clone(),
            namespace: namespace.to_owned(),
            component: Arc::new(component),
            code_cache,
        };
        match local.compile(BoundsChecks::GuardPages, Engine::load).await {
            Ok(mapped) if copied => Ok(CompiledComponent::new("", mapped)),
            Ok(mapped) => Ok(mapped.loaded.into()),
            Err(failure) => bail!("{} ({})", failure.message, failure.reason().name()),
        }
    }
}

impl LocalCode {
    async fn compile(&self, checks: BoundsChecks, load: Load) -> Result<MappedCode, Failure> {
        let failed = |error: io::Error| Failure::new(LoadFailure::Load, error);
        let code = match self.run(checks).await? {
            Compiled::Code(draft) => draft.handle().map_err(failed)?,
            Compiled::DiskFull => {
                let text = "there is not enough memory for the native code";
                return Err(Failure::new(LoadFailure::Load, text));
            }
        };
        let path = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
        let loaded = load(&self.compiler.engine, &path)
            .map_err(|error| Failure::new(LoadFailure::Load, error))?;
        Ok(MappedCode {
            loaded,
            slot: self.code_cache.reserve(),
            on_disk: false,
            map: Arc::new(self.clone()),
        })
    }

    /// Runs the compiler process. As on a node, code with explicit bounds checks is compiled without the cache.
    async fn run(&self, checks: BoundsChecks) -> Result<Compiled, Failure> {
        let failed = |error: io::Error| Failure::new(LoadFailure::Load, error);
        let compiler = CompilerPool::new(PathBuf::from(THIS_PROGRAM))
            .with_checks(checks)
            .with_backtraces(self.compiler.engine.backtraces());
        let draft = Draft::in_memory(&Arc::new(DiskHealth::default())).map_err(failed)?;
        let mut component = self.component.try_clone().map_err(failed)?;
        component.rewind().map_err(failed)?;
        match (&self.compiler.functions, checks) {
            (Some(functions), BoundsChecks::GuardPages) => {
                let compiled = compiler.run_cached(component, draft, functions, &self.namespace);
                compiled.await
            }
            _ => compiler.run(component, draft).await,
        }
    }
}

impl MapCode for LocalCode {
    fn map<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>> {
        let load = Engine::load_again;
        self.compile(BoundsChecks::GuardPages, load).boxed()
    }

    fn map_explicit<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>> {
        let load = Engine::load_explicit;
        self.compile(BoundsChecks::Explicit, load).boxed()
    }
}
