//! Pipeline that turns the digest of a component into code that can run: use the native cache, else the
//! stored component, else pull it; then verify, compile, cache and load. Every stage is bounded and fails
//! with a reason from a closed list. Permanent failures are remembered across restarts, so a component that
//! exhausts the compiler does so only once.

mod compile_attempts;
mod known_failures;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim_core::bounds_checks::BoundsChecks;
use node_shim_core::desired::{Failure, LoadFailure};
use tracing::Instrument;

use crate::code_cache::{CodeCache, MapCode, MappedCode};
use crate::compile::{Compiled, CompilerPool};
use crate::component_digest::verify;
use crate::disk::{Blobs, Draft};
use crate::engine::{Engine, LinkedComponent, LoadError};
use crate::function_cache::FunctionCache;
use crate::native_cache::{Lookup, NativeCache};
use crate::pull::{ComponentRef, Puller, blocking, sha256_hex};

pub use compile_attempts::CompileAttempts;
pub use known_failures::KnownFailures;

/// Maximum size in bytes of a component that is compiled a second time, with explicit bounds checks: one that compiles
/// within about a second.
pub(crate) const MAX_EXPLICIT: u64 = 1 << 20;

/// Stage of the pipeline whose duration is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStage {
    /// Pulling the component from a registry or the operator.
    Pull,
    /// Compiling the component in the compiler process.
    Compile,
    /// Mapping and linking the native code.
    Load,
}

impl LoadStage {
    /// Returns the value of the `stage` label of `selvage_cold_start_seconds`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Compile => "compile",
            Self::Load => "load",
        }
    }
}

/// Callback that receives the duration of each stage.
pub type StageObserver = Arc<dyn Fn(LoadStage, Duration) + Send + Sync>;

/// The stages of the pipeline and their shared state.
#[derive(Clone)]
pub struct LoadPipeline {
    /// Components stored on this node.
    pub blobs: Blobs,
    /// Native code stored on this node.
    pub cache: Arc<NativeCache>,
    /// Compiled functions stored on this node.
    pub functions: Arc<FunctionCache>,
    /// Client that fetches components.
    pub puller: Puller,
    /// Runs the compiler processes.
    pub compiler: CompilerPool,
    /// Engine that maps and links native code.
    pub engine: Engine,
    /// Bounds the mapped components.
    pub code_cache: Arc<CodeCache>,
    /// Compilations that have begun.
    pub attempts: Arc<CompileAttempts>,
    /// Components that failed permanently.
    pub known_failures: Arc<KnownFailures>,
    /// Receives the duration of each stage.
    pub observe: StageObserver,
}

impl LoadPipeline {
    /// Loads one component.
    ///
    /// # Errors
    /// Returns the failure of the first stage that failed.
    pub async fn run(&self, component: &ComponentRef) -> Result<MappedCode, Failure> {
        let hex = sha256_hex(&component.digest).ok_or_else(|| {
            Failure::new(
                LoadFailure::WrongContent,
                "the digest is not a SHA-256 digest",
            )
        })?;
        if let Some(code) = self.cached(hex).await? {
            match self.load(code, hex, Engine::load).await {
                Ok(loaded) => return Ok(loaded),
                // authentic but incompatible code: compile the component again
                Err(NativeLoadError::DiscardCode(_)) => self.cache.discard(hex),
                Err(unloaded) => return Err(unloaded.into()),
            }
        }
        if let Some(known) = self.known_failures.get(hex, self.cache.engine()) {
            return Err(known);
        }
        let outcome = self.build(component, hex).await;
        if let Err(failed) = &outcome {
            self.known_failures
                .remember(hex, self.cache.engine(), failed);
        }
        outcome
    }

    async fn build(&self, component: &ComponentRef, hex: &str) -> Result<MappedCode, Failure> {
        let namespace = component.namespace.as_deref();
        let component = self.component(component, hex).await?;
        let started = Instant::now();
        let span = tracing::debug_span!("compile", digest = hex);
        let attempt = self.attempts.begin(hex, self.cache.engine())?;
        let code = self
            .compile(component, hex, namespace)
            .instrument(span)
            .await;
        if let Err(failed) = &code
            && failed.cause == LoadFailure::CompilerKilled
        {
            attempt.died();
        }
        let code = code?;
        (self.observe)(LoadStage::Compile, started.elapsed());
        Ok(self.load(code, hex, Engine::load).await?)
    }

    async fn cached(&self, hex: &str) -> Result<Option<File>, Failure> {
        let (cache, hex) = (Arc::clone(&self.cache), hex.to_string());
        blocking(move || match cache.get(&hex) {
            Lookup::Hit(file) => Ok(Some(file)),
            Lookup::Miss | Lookup::Rejected(_) => Ok(None),
            Lookup::ResourceExhausted(error) => Err(resource_exhausted(&error)),
        })
        .await
    }

    async fn component(&self, component: &ComponentRef, hex: &str) -> Result<File, Failure> {
        if let Some(file) = self.blobs.open(hex) {
            match self.verified(file, component).await {
                Ok(file) => return Ok(file),
                Err(failed) => {
                    tracing::warn!(digest = %component.digest, reason = failed.message, "the stored component is invalid; removed it");
                    self.blobs.discard(hex);
                }
            }
        }
        let started = Instant::now();
        let file = self.puller.fetch(component).await?;
        (self.observe)(LoadStage::Pull, started.elapsed());
        self.verified(file, component).await
    }

    async fn verified(&self, mut file: File, component: &ComponentRef) -> Result<File, Failure> {
        let (digest, size) = (component.digest.clone(), component.size);
        blocking(move || verify(&mut file, &digest, size).map(|()| file)).await
    }

    async fn compile(
        &self,
        component: File,
        hex: &str,
        namespace: Option<&str>,
    ) -> Result<File, Failure> {
        let io = |error: std::io::Error| Failure::new(LoadFailure::DiskFull, error);
        let again = component.try_clone().map_err(io)?;
        let draft = self.cache.draft().map_err(io)?;
        let draft = match self.compile_reusing(component, draft, namespace).await? {
            Compiled::Code(draft) => draft,
            Compiled::DiskFull => {
                let mut component = again;
                std::io::Seek::rewind(&mut component).map_err(io)?;
                let memory = self.cache.draft_in_memory().map_err(io)?;
                match self.compiler.run(component, memory).await? {
                    Compiled::Code(draft) => draft,
                    Compiled::DiskFull => {
                        return Err(Failure::new(
                            LoadFailure::DiskFull,
                            "neither disk nor memory has room for the native code",
                        ));
                    }
                }
            }
        };
        let (cache, hex) = (Arc::clone(&self.cache), hex.to_string());
        blocking(move || cache.store(draft, &hex).map_err(io)).await
    }

    /// Compiles with the functions of earlier compilations of the namespace, if there is one.
    async fn compile_reusing(
        &self,
        component: File,
        draft: Draft,
        namespace: Option<&str>,
    ) -> Result<Compiled, Failure> {
        let (compiler, functions) = (&self.compiler, &self.functions);
        match namespace {
            Some(namespace) => {
                let compiled = compiler.run_cached(component, draft, functions, namespace);
                compiled.await
            }
            None => compiler.run(component, draft).await,
        }
    }

    async fn load(
        &self,
        code: File,
        hex: &str,
        load: fn(&Engine, &Path) -> Result<LinkedComponent, LoadError>,
    ) -> Result<MappedCode, NativeLoadError> {
        let (engine, code_cache) = (self.engine.clone(), Arc::clone(&self.code_cache));
        let started = Instant::now();
        let (loaded, slot) = blocking(move || {
            let slot = code_cache.reserve();
            // map by descriptor, so that exactly the authenticated file is mapped
            let path = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
            Ok((load(&engine, &path), slot))
        })
        .await
        .map_err(NativeLoadError::KeepCode)?;
        let loaded = loaded?;
        (self.observe)(LoadStage::Load, started.elapsed());
        Ok(MappedCode {
            loaded,
            slot,
            on_disk: self.cache.has(hex),
            map: Arc::new(self.clone()),
        })
    }
}

/// Why native code could not be loaded, and whether to keep its file.
enum NativeLoadError {
    /// Compiling again would not help.
    KeepCode(Failure),
    /// The file is not native code for this engine.
    DiscardCode(Failure),
}

impl From<LoadError> for NativeLoadError {
    fn from(error: LoadError) -> Self {
        let failed = |cause| Failure::new(cause, &error);
        match &error {
            LoadError::WorldMismatch(_) => Self::KeepCode(failed(LoadFailure::WorldMismatch)),
            LoadError::TooLarge(_) => Self::KeepCode(failed(LoadFailure::CompileLimit)),
            LoadError::ResourceExhausted(_) => Self::KeepCode(failed(LoadFailure::Load)),
            LoadError::Incompatible(_) => Self::DiscardCode(failed(LoadFailure::Load)),
        }
    }
}

impl From<NativeLoadError> for Failure {
    fn from(unloaded: NativeLoadError) -> Self {
        let (NativeLoadError::KeepCode(failed) | NativeLoadError::DiscardCode(failed)) = unloaded;
        failed
    }
}

fn resource_exhausted(error: &std::io::Error) -> Failure {
    let text = format!("the native code cannot be read at present: {error}");
    Failure::new(LoadFailure::Load, text)
}

/// Returns the name in the native cache of a component's code with explicit bounds checks.
fn explicit_name(hex: &str) -> String {
    format!("{hex}.explicit")
}

impl LoadPipeline {
    /// Compiles a stored component with explicit bounds checks. It is not pulled for that.
    async fn compile_explicit(&self, hex: &str) -> Result<File, Failure> {
        let io = |error: std::io::Error| Failure::new(LoadFailure::DiskFull, error);
        let gone = || Failure::new(LoadFailure::Load, "the component is no longer on disk");
        let component = self.blobs.open(hex).ok_or_else(gone)?;
        let size = component.metadata().map_err(io)?.len();
        if size > MAX_EXPLICIT {
            let text = format!("{size} bytes are too many to compile a second time");
            return Err(Failure::new(LoadFailure::Load, text));
        }
        let digest = format!("sha256:{hex}");
        let component = blocking(move || {
            let mut component = component;
            verify(&mut component, &digest, size).map(|()| component)
        })
        .await?;
        let compiler = self.compiler.clone().with_checks(BoundsChecks::Explicit);
        let draft = self.cache.draft().map_err(io)?;
        let Compiled::Code(draft) = compiler.run(component, draft).await? else {
            return Err(Failure::new(LoadFailure::DiskFull, "the disk is full"));
        };
        let (cache, name) = (Arc::clone(&self.cache), explicit_name(hex));
        blocking(move || cache.store(draft, &name).map_err(io)).await
    }
}

impl MapCode for LoadPipeline {
    fn map_explicit<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>> {
        async move {
            let unknown = || Failure::new(LoadFailure::Load, "the digest is not one of SHA-256");
            let hex = sha256_hex(digest).ok_or_else(unknown)?;
            let name = explicit_name(hex);
            let code = match self.cached(&name).await? {
                Some(code) => code,
                None => self.compile_explicit(hex).await?,
            };
            let loaded = self.load(code, hex, Engine::load_explicit).await;
            if let Err(NativeLoadError::DiscardCode(_)) = &loaded {
                self.cache.discard(&name);
            }
            Ok(loaded?)
        }
        .boxed()
    }

    fn map<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>> {
        async move {
            let gone = || Failure::new(LoadFailure::Load, "the native code is no longer on disk");
            let hex = sha256_hex(digest).ok_or_else(gone)?;
            let code = self.cached(hex).await?.ok_or_else(gone)?;
            Ok(self.load(code, hex, Engine::load_again).await?)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
