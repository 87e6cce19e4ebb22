//! One component from its digest to code that can run: native cache, else local component, else
//! pull; verify, compile, cache, load. Every stage is bounded and fails with a reason of the closed
//! list. What failed for good is remembered over restarts, so a component that eats a compiler does
//! it once.

mod known_failures;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use node_shim_core::desired::Failure;
use tokio::sync::Semaphore;

use crate::code_cache::{CodeCache, MapCode, MappedCode};
use crate::compile::{Compiled, CompilerPool};
use crate::disk::Blobs;
use crate::engine::{Engine, LoadError};
use crate::native_cache::{Lookup, NativeCache};
use crate::pull::{Puller, Wanted, blocking, failure, sha256_hex};
use crate::verify::verify;

pub use known_failures::KnownFailures;

/// Components fetched at once.
const PULLS: usize = 4;

/// A stage that takes time a person may ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStage {
    /// From a registry or the operator.
    Pull,
    /// In the child.
    Compile,
    /// Mapping and linking.
    Load,
}

impl LoadStage {
    /// Value of the metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Compile => "compile",
            Self::Load => "load",
        }
    }
}

/// Is told how long each stage took.
pub type StageObserver = Arc<dyn Fn(LoadStage, Duration) + Send + Sync>;

/// The stages and what they share.
#[derive(Clone)]
pub struct LoadPipeline {
    /// Components on this node.
    pub blobs: Blobs,
    /// Native code on this node.
    pub cache: Arc<NativeCache>,
    /// Fetches what is not here.
    pub puller: Puller,
    /// Starts compile children.
    pub compiler: CompilerPool,
    /// Runs what is loaded.
    pub engine: Engine,
    /// What no attempt will make loadable.
    pub known_failures: Arc<KnownFailures>,
    /// Is told how long things took.
    pub observe: StageObserver,
    /// Bounds what is mapped.
    code_cache: Arc<CodeCache>,
    pulls: Arc<Semaphore>,
}

impl LoadPipeline {
    /// Puts the stages together.
    #[must_use]
    pub fn new(
        (blobs, cache): (Blobs, Arc<NativeCache>),
        puller: Puller,
        compile: CompilerPool,
        (engine, residency): (Engine, Arc<CodeCache>),
        refused: Arc<KnownFailures>,
        observe: StageObserver,
    ) -> Self {
        let pulls = Arc::new(Semaphore::new(PULLS));
        Self {
            blobs,
            cache,
            puller,
            compiler: compile,
            engine,
            known_failures: refused,
            observe,
            code_cache: residency,
            pulls,
        }
    }

    /// Brings one component to where it can run.
    ///
    /// # Errors
    /// With the reason of the stage that failed.
    pub async fn run(&self, wanted: &Wanted) -> Result<MappedCode, Failure> {
        let hex = sha256_hex(&wanted.digest)
            .ok_or_else(|| failure("DigestMismatch", true, "not a sha256 digest".into()))?;
        if let Some(code) = self.cached(hex).await? {
            match self.load(code, hex).await {
                Ok(loaded) => return Ok(loaded),
                // authentic and yet useless: make it again
                Err(NativeLoadError::DiscardCode(_)) => self.cache.discard(hex),
                Err(unloaded) => return Err(unloaded.into()),
            }
        }
        if let Some(known) = self.known_failures.get(hex, self.cache.engine()) {
            return Err(known);
        }
        let outcome = self.build(wanted, hex).await;
        if let Err(failed) = &outcome
            && failed.permanent
        {
            self.known_failures
                .remember(hex, self.cache.engine(), failed);
        }
        outcome
    }

    async fn build(&self, wanted: &Wanted, hex: &str) -> Result<MappedCode, Failure> {
        let component = self.component(wanted, hex).await?;
        let started = Instant::now();
        let code = self.compile(component, hex).await?;
        (self.observe)(LoadStage::Compile, started.elapsed());
        Ok(self.load(code, hex).await?)
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

    async fn component(&self, wanted: &Wanted, hex: &str) -> Result<File, Failure> {
        if let Some(file) = self.blobs.open(hex) {
            match self.verified(file, wanted).await {
                Ok(file) => return Ok(file),
                Err(failed) => {
                    tracing::warn!(digest = %wanted.digest, reason = failed.message, "stored component dropped");
                    self.blobs.discard(hex);
                }
            }
        }
        let _permit = self
            .pulls
            .acquire()
            .await
            .map_err(|error| failure("PullFailed", false, error.to_string()))?;
        let started = Instant::now();
        let file = self.puller.fetch(wanted).await?;
        (self.observe)(LoadStage::Pull, started.elapsed());
        self.verified(file, wanted).await
    }

    async fn verified(&self, mut file: File, wanted: &Wanted) -> Result<File, Failure> {
        let (digest, size) = (wanted.digest.clone(), wanted.size);
        blocking(move || verify(&mut file, &digest, size).map(|()| file)).await
    }

    async fn compile(&self, component: File, hex: &str) -> Result<File, Failure> {
        let io = |error: std::io::Error| failure("DiskFull", false, error.to_string());
        let again = component.try_clone().map_err(io)?;
        let draft = self.cache.draft().map_err(io)?;
        let draft = match self.compiler.run(component, draft).await? {
            Compiled::Code(draft) => draft,
            Compiled::DiskFull => {
                let mut component = again;
                std::io::Seek::rewind(&mut component).map_err(io)?;
                let memory = self.cache.draft_in_memory().map_err(io)?;
                match self.compiler.run(component, memory).await? {
                    Compiled::Code(draft) => draft,
                    Compiled::DiskFull => {
                        return Err(failure("DiskFull", false, "no room for native code".into()));
                    }
                }
            }
        };
        let (cache, hex) = (Arc::clone(&self.cache), hex.to_string());
        blocking(move || cache.store(draft, &hex).map_err(io)).await
    }

    async fn load(&self, code: File, hex: &str) -> Result<MappedCode, NativeLoadError> {
        let (engine, residency) = (self.engine.clone(), Arc::clone(&self.code_cache));
        let started = Instant::now();
        let (loaded, place) = blocking(move || {
            let place = residency.reserve();
            // by descriptor: what was authenticated is what is mapped
            let path = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
            Ok((engine.load(&path), place))
        })
        .await
        .map_err(NativeLoadError::KeepCode)?;
        let loaded = loaded?;
        (self.observe)(LoadStage::Load, started.elapsed());
        Ok(MappedCode {
            loaded,
            slot: place,
            on_disk: self.cache.has(hex),
            map: Arc::new(self.clone()),
        })
    }
}

/// Why native code could not be loaded, and what that says of its file.
enum NativeLoadError {
    /// Nothing that making it again would change.
    KeepCode(Failure),
    /// It is no native code of this engine.
    DiscardCode(Failure),
}

impl From<LoadError> for NativeLoadError {
    fn from(error: LoadError) -> Self {
        let text = error.to_string();
        match error {
            LoadError::WorldMismatch(_) => Self::KeepCode(failure("WorldMismatch", true, text)),
            LoadError::TooLarge(_) => Self::KeepCode(failure("CompileLimit", true, text)),
            LoadError::ResourceExhausted(_) => Self::KeepCode(failure("LoadFailed", false, text)),
            LoadError::Incompatible(_) => Self::DiscardCode(failure("LoadFailed", false, text)),
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
    failure("LoadFailed", false, text)
}

impl MapCode for LoadPipeline {
    fn map<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<MappedCode, Failure>> {
        async move {
            let gone = || failure("LoadFailed", false, "its native code is gone".into());
            let hex = sha256_hex(digest).ok_or_else(gone)?;
            let code = self.cached(hex).await?.ok_or_else(gone)?;
            Ok(self.load(code, hex).await?)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
