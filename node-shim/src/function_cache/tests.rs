//! The cache with the compiler in this process; `tests/supervisor` has the compiler process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use super::*;
use crate::engine::{BacktraceDetail, Compiler};

struct Fixture {
    folder: tempfile::TempDir,
    cache: FunctionCache,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::new(folder.path());
        dir.create().unwrap();
        let cache = FunctionCache::open(&dir, "e1", Arc::default()).unwrap();
        Self { folder, cache }
    }

    /// Opens the cache as the next process does.
    fn reopen(&self, engine: &str) -> FunctionCache {
        let dir = StateDir::new(self.folder.path());
        FunctionCache::open(&dir, engine, Arc::default()).unwrap()
    }

    fn pack(&self, namespace: &str) -> PathBuf {
        self.cache.files.path(&self.cache.name(namespace))
    }
}

/// Returns a component with a function for each number.
fn component(numbers: &[u32]) -> Vec<u8> {
    let function = |number: &u32| {
        format!("(func (param i32) (result i32) (i32.add (local.get 0) (i32.const {number})))")
    };
    let functions: String = numbers.iter().map(function).collect();
    wat::parse_str(format!("(component (core module {functions}))")).unwrap()
}

/// Compiles as the compiler process does.
fn compile(cache: &FunctionCache, namespace: &str, wasm: &[u8]) -> (FunctionCounts, Vec<u8>) {
    let mut exchange = cache.begin(namespace).unwrap();
    let code = fill(&mut exchange, wasm);
    cache.finish(&exchange);
    (exchange.counts(), code)
}

/// Compiles without storing the functions.
fn fill(exchange: &mut FunctionExchange, wasm: &[u8]) -> Vec<u8> {
    let (pack, added) = exchange.files();
    let (pack, added) = (pack.try_clone().unwrap(), added.try_clone().unwrap());
    let store = Arc::new(FunctionStore::new(pack, added));
    let compiler = Compiler::with(BacktraceDetail::Names, Some(&store)).unwrap();
    let code = compiler.precompile(wasm).unwrap();
    exchange.set_counts(&serde_json::to_vec(&store.finish()).unwrap());
    code
}

#[test]
fn the_same_component_is_not_compiled_again() {
    let fixture = Fixture::new();
    let wasm = component(&[1, 2, 3]);
    let (first, code) = compile(&fixture.cache, "ns", &wasm);
    assert!(first.reused == 0 && first.compiled >= 3, "{first:?}");
    let (second, again) = compile(&fixture.cache, "ns", &wasm);
    assert_eq!((second.reused, second.compiled), (first.compiled, 0));
    assert!(code == again, "the code does not depend on the cache");
    assert!(code == Compiler::new().unwrap().precompile(&wasm).unwrap());
    let (restarted, _) = compile(&fixture.reopen("e1"), "ns", &wasm);
    assert_eq!(restarted.compiled, 0);
    let (upgraded, _) = compile(&fixture.reopen("e2"), "ns", &wasm);
    assert_eq!(upgraded.reused, 0, "of another engine");
    let totals = fixture.cache.totals();
    assert_eq!(
        (totals.reused, totals.compiled),
        (first.compiled, first.compiled)
    );
}

#[test]
fn a_changed_version_compiles_the_changed_functions_only() {
    let fixture = Fixture::new();
    let (first, _) = compile(&fixture.cache, "ns", &component(&[1, 2, 3, 4]));
    let changed = component(&[1, 2, 30, 4]);
    let (second, code) = compile(&fixture.cache, "ns", &changed);
    assert_eq!(
        (second.reused, second.compiled),
        (first.compiled - 1, 1),
        "{first:?}"
    );
    assert!(code == Compiler::new().unwrap().precompile(&changed).unwrap());
    let (third, _) = compile(&fixture.cache, "ns", &changed);
    assert_eq!(third.compiled, 0, "the changed function was added");
}

/// HG-31: a component that takes its compiler over determines functions of its own namespace only.
#[test]
fn hg_31_namespaces_share_no_functions() {
    let fixture = Fixture::new();
    let wasm = component(&[1, 2, 3]);
    compile(&fixture.cache, "attacker", &wasm);
    let (victim, _) = compile(&fixture.cache, "victim", &wasm);
    assert_eq!(victim.reused, 0);
    // nor by the file of one under the name of the other
    let (from, to) = (fixture.pack("attacker"), fixture.pack("third"));
    for end in ["", ".mac"] {
        let with = |path: &Path| format!("{}{end}", path.display());
        fs::copy(with(&from), with(&to)).unwrap();
    }
    let (third, _) = compile(&fixture.cache, "third", &wasm);
    assert_eq!(third.reused, 0);
}

/// HS-10, FN-4: functions that were changed on disk are removed and compiled again.
#[test]
fn tampered_functions_are_rejected_and_rebuilt() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("flipped", |path| {
            let mut content = fs::read(path).unwrap();
            let last = content.len() - 1;
            content[last] ^= 1;
            fs::write(path, content).unwrap();
        }),
        ("cut", |path| {
            let content = fs::read(path).unwrap();
            fs::write(path, &content[..content.len() - 1]).unwrap();
        }),
        ("foreign", |path| fs::write(path, b"native code").unwrap()),
        ("linked", |path| {
            let elsewhere = path.with_extension("elsewhere");
            fs::rename(path, &elsewhere).unwrap();
            std::os::unix::fs::symlink(elsewhere, path).unwrap();
        }),
        ("unsealed", |path| {
            fs::remove_file(format!("{}.mac", path.display())).unwrap();
        }),
    ];
    let wasm = component(&[1, 2, 3]);
    for (what, harm) in harms {
        let fixture = Fixture::new();
        let (first, code) = compile(&fixture.cache, "ns", &wasm);
        harm(&fixture.pack("ns"));
        let (second, again) = compile(&fixture.cache, "ns", &wasm);
        assert_eq!(
            (second.reused, second.compiled),
            (0, first.compiled),
            "{what}"
        );
        assert!(code == again, "{what}");
        let (third, _) = compile(&fixture.cache, "ns", &wasm);
        assert_eq!(third.compiled, 0, "{what}: rebuilt");
    }
}

/// HG-31: nothing that the compiler process writes is an error.
#[test]
fn hg_31_garbage_of_a_compiler_process_is_ignored() {
    let fixture = Fixture::new();
    let wasm = component(&[1, 2, 3]);
    let (first, _) = compile(&fixture.cache, "ns", &wasm);
    for garbage in [&b""[..], b"garbage", &[0xff; 4096]] {
        let mut exchange = fixture.cache.begin("ns").unwrap();
        let (_, mut added) = exchange.files();
        added.write_all(garbage).unwrap();
        exchange.set_counts(garbage);
        assert_eq!(exchange.counts(), FunctionCounts::default());
        fixture.cache.finish(&exchange);
        let (again, _) = compile(&fixture.cache, "ns", &wasm);
        assert_eq!((again.reused, again.compiled), (first.compiled, 0));
    }
}

#[test]
fn the_functions_of_a_namespace_are_bounded_and_the_oldest_go_first() {
    let mut fixture = Fixture::new();
    let (old, new) = (component(&[1, 2, 3, 4]), component(&[5, 6, 7, 8]));
    compile(&fixture.cache, "ns", &old);
    let one = fs::metadata(fixture.pack("ns")).unwrap().len();
    fixture.cache.max_pack = one + one / 4;
    compile(&fixture.cache, "ns", &new);
    assert!(fs::metadata(fixture.pack("ns")).unwrap().len() <= fixture.cache.max_pack);
    let (newest, _) = compile(&fixture.cache, "ns", &new);
    assert_eq!(newest.compiled, 0);
    let (oldest, _) = compile(&fixture.cache, "ns", &old);
    assert!(oldest.compiled > 0, "{oldest:?}");
}

/// FN-5: a disk that fails costs the reuse and not the compilation.
#[test]
fn a_folder_that_cannot_be_written_is_no_error() {
    let fixture = Fixture::new();
    fs::remove_dir_all(fixture.cache.files.folder()).unwrap();
    let wasm = component(&[1, 2, 3]);
    let (first, code) = compile(&fixture.cache, "ns", &wasm);
    let (second, again) = compile(&fixture.cache, "ns", &wasm);
    assert_eq!((second.reused, second.compiled), (0, first.compiled));
    assert!(code == again);
}

/// Each cache has its own handle of the lock, as if it were in a process of its own.
#[test]
fn processes_that_share_a_folder_lose_no_functions() {
    const PROCESSES: u32 = 4;
    let folder = tempfile::tempdir().unwrap();
    let open = || FunctionCache::open_shared(StateDir::new(folder.path()), "e1").unwrap();
    let all_compiled = Barrier::new(PROCESSES as usize);
    let component = |process: u32| component(&[10 * process, 10 * process + 1]);
    thread::scope(|scope| {
        for process in 0..PROCESSES {
            let (cache, all_compiled) = (open(), &all_compiled);
            scope.spawn(move || {
                let mut exchange = cache.begin("ns").unwrap();
                fill(&mut exchange, &component(process));
                all_compiled.wait();
                cache.finish(&exchange);
            });
        }
    });
    for process in 0..PROCESSES {
        let (counts, _) = compile(&open(), "ns", &component(process));
        assert_eq!(counts.compiled, 0, "{process}");
    }
    assert!(fs::exists(folder.path().join("node.key")).unwrap());
}

#[test]
fn a_shared_folder_that_cannot_be_written_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(FunctionCache::open_shared(StateDir::new(file.path()), "e1").is_err());
}
