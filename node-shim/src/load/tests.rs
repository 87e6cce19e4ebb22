//! Loading of cached native code while file descriptors are exhausted.

use std::io::Write;
use std::process::Command;

use futures::stream::BoxStream;

use super::*;
use crate::disk::{DiskHealth, StateDir};
use crate::engine::{Compiler, EngineOptions};
use crate::pull::OperatorBlobs;

const GUEST: &str = r#"(component
    (core module $m (func (export "handle")))
    (core instance $i (instantiate $m))
    (func $handle (canon lift (core func $i "handle")))
    (instance $handler (export "handle" (func $handle)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

struct NoOperator;

impl OperatorBlobs for NoOperator {
    fn blob(
        &self,
        _: &str,
    ) -> BoxFuture<'static, Result<BoxStream<'static, Result<bytes::Bytes, Failure>>, Failure>>
    {
        async { Err(Failure::new(LoadFailure::Pull, "no operator is connected")) }.boxed()
    }
}

/// Returns a pipeline with the native code of one component that can neither pull nor compile.
fn pipeline(dir: &StateDir, hex: &str) -> LoadPipeline {
    let _ = rustls::crypto::ring::default_provider().install_default();
    dir.create().unwrap();
    let health: Arc<DiskHealth> = Arc::default();
    let engine = Engine::new(&EngineOptions::small()).unwrap();
    let cache = NativeCache::open(dir, "e", Arc::clone(&health)).unwrap();
    let wasm = wat::parse_str(GUEST).unwrap();
    let mut draft = cache.draft().unwrap();
    let code = Compiler::new().unwrap().precompile(&wasm).unwrap();
    draft.write_all(&code).unwrap();
    cache.store(draft, hex).unwrap();
    let blobs = Blobs::new(dir, Arc::clone(&health));
    let puller = Puller::new([], blobs.clone(), Arc::new(NoOperator)).unwrap();
    LoadPipeline {
        blobs,
        functions: Arc::new(FunctionCache::open(dir, cache.engine(), Arc::clone(&health)).unwrap()),
        cache: Arc::new(cache),
        puller,
        compiler: CompilerPool::new(PathBuf::from("/nowhere")),
        engine,
        code_cache: CodeCache::new(8).0,
        attempts: Arc::new(CompileAttempts::open(dir, health.clone())),
        known_failures: Arc::new(KnownFailures::open(dir, health)),
        observe: Arc::new(|_, _| ()),
    }
}

#[tokio::test]
async fn code_with_explicit_checks_has_a_place_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let hex = "a".repeat(64);
    let digest = format!("sha256:{hex}");
    let pipeline = pipeline(&StateDir::new(folder.path()), &hex);
    // neither the code nor the component is there
    let refused = pipeline.map_explicit(&digest).await.err().unwrap();
    assert_eq!(refused.message, "the component is no longer on disk");
    let mut draft = pipeline.cache.draft().unwrap();
    let wasm = wat::parse_str(GUEST).unwrap();
    let code = Compiler::new().unwrap().precompile_explicit(&wasm).unwrap();
    draft.write_all(&code).unwrap();
    pipeline.cache.store(draft, &explicit_name(&hex)).unwrap();
    let explicit = pipeline.map_explicit(&digest).await.unwrap();
    let guarded = pipeline.map(&digest).await.unwrap();
    let engine = |mapped: &MappedCode| mapped.loaded.pre.instance_pre().engine().clone();
    let same = wasmtime::Engine::same(&engine(&explicit), &engine(&guarded));
    assert!(!same && explicit.on_disk);
    // code of one kind is refused where the other is expected
    let path = |name: &str| match pipeline.cache.get(name) {
        Lookup::Hit(file) => file,
        other => panic!("{other:?}"),
    };
    for (name, load) in [
        (explicit_name(&hex), Engine::load as fn(&Engine, &Path) -> _),
        (hex.clone(), Engine::load_explicit),
    ] {
        let refused = pipeline.load(path(&name), &hex, load).await.err().unwrap();
        assert!(matches!(refused, NativeLoadError::DiscardCode(_)), "{name}");
    }
}

/// FN-10: native code is kept and can be mapped later, whichever of its descriptors is not available.
#[test]
fn fn_10_native_code_survives_a_lack_of_descriptors() {
    // the test uses up all descriptors, so it runs in a process of its own
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "load::tests::alone_without_descriptors"])
        .args(["--ignored", "--nocapture"])
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("1 passed"), "{stdout}");
}

#[tokio::test]
#[ignore = "run by the test above in a process of its own"]
async fn alone_without_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let hex = "a".repeat(64);
    let pipeline = pipeline(&StateDir::new(folder.path()), &hex);
    let component = ComponentRef {
        digest: format!("sha256:{hex}"),
        size: 0,
        source: node_api::v1::Source::default(),
        namespace: None,
    };
    let mut refused = 0;
    for free in 0..64 {
        let mut held = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            held.push(file);
        }
        held.truncate(held.len() - free);
        let outcome = pipeline.run(&component).await;
        drop(held);
        assert!(pipeline.cache.has(&hex), "removed with {free} to spare");
        match outcome {
            Ok(_) => break,
            Err(failed) => {
                let found = (failed.reason().name(), failed.cause.is_permanent());
                assert_eq!(found, ("LoadFailed", false));
                assert!(failed.message.contains("at present"), "{failed:?}");
                assert!(failed.message.contains("Too many open files"), "{failed:?}");
                refused += 1;
            }
        }
    }
    // the code, its HMAC, the mapping
    assert!(refused >= 2, "{refused} times");
    assert!(pipeline.run(&component).await.is_ok());
}
