//! Code of a component that a file of this machine contains, for `serve` and `dev`. It is compiled as on a node, in a
//! separate process with limited resources, and is never unmapped.

use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim_core::bounds_checks::BoundsChecks;
use node_shim_core::desired::{Failure, LoadFailure};

use crate::code_cache::{CodeCache, CompiledComponent, MapCode, MappedCode};
use crate::compile::{Compiled, CompilerPool, THIS_PROGRAM};
use crate::disk::{DiskHealth, Draft};
use crate::engine::{Engine, LinkedComponent, LoadError};
use crate::load::MAX_EXPLICIT;

/// Longest wall-clock time of a compilation. A node starts one again that lacked CPU time; these commands do not, and share
/// their machine with other programs. The limit of CPU time is that of a node.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(600);

type Load = fn(&Engine, &Path) -> Result<LinkedComponent, LoadError>;

/// Compiles a component that may be compiled a second time.
#[derive(Clone)]
struct LocalCode {
    engine: Engine,
    /// Copy of the component, because its file may change.
    component: Arc<File>,
    code_cache: Arc<CodeCache>,
}

/// Compiles a component and maps its code.
pub(crate) async fn compile(
    engine: &Engine,
    mut component: File,
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
        engine: engine.clone(),
        component: Arc::new(component),
        code_cache,
    };
    match local.compile(BoundsChecks::GuardPages, Engine::load).await {
        Ok(mapped) if copied => Ok(CompiledComponent::new("", mapped)),
        Ok(mapped) => Ok(mapped.loaded.into()),
        Err(failure) => bail!("{} ({})", failure.message, failure.reason().name()),
    }
}

impl LocalCode {
    async fn compile(&self, checks: BoundsChecks, load: Load) -> Result<MappedCode, Failure> {
        let failed = |error: io::Error| Failure::new(LoadFailure::Load, error);
        let compiler = CompilerPool::new(PathBuf::from(THIS_PROGRAM))
            .with_timeout(COMPILE_TIMEOUT)
            .with_checks(checks);
        let draft = Draft::in_memory(&Arc::new(DiskHealth::default())).map_err(failed)?;
        let mut component = self.component.try_clone().map_err(failed)?;
        component.rewind().map_err(failed)?;
        let code = match compiler.run(component, draft).await? {
            Compiled::Code(draft) => draft.handle().map_err(failed)?,
            Compiled::DiskFull => {
                let text = "there is not enough memory for the native code";
                return Err(Failure::new(LoadFailure::Load, text));
            }
        };
        let path = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
        let loaded =
            load(&self.engine, &path).map_err(|error| Failure::new(LoadFailure::Load, error))?;
        Ok(MappedCode {
            loaded,
            slot: self.code_cache.reserve(),
            on_disk: false,
            map: Arc::new(self.clone()),
        })
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
