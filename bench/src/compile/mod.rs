//! How long a node takes to compile the first component of a toolchain, a second one and a changed version of the first, as a
//! whole and with the functions that it has compiled before in the same namespace.
//!
//! The compiler process and the cache of functions are those of a node, on an empty folder in each round. A compilation that
//! uses the cache includes what it takes to authenticate the functions and to store those that are new; the native code is
//! written to disk in both cases. The compiler process has a low priority, so the machine must be idle.

mod changed;

use crate::cpu_time;
use anyhow::{Context, Result, anyhow, bail, ensure};
use changed::with_changed_data;
use node_shim::{
    compile::{Compiled, CompilerPool},
    disk::{DiskHealth, StateDir},
    function_cache::{FunctionCache, FunctionCounts},
    native_cache::NativeCache,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Program whose compiler process is measured
    #[arg(long, default_value = "target/dist/node-shim")]
    node_shim: PathBuf,
    /// Components of a toolchain: the first, a second one, and a changed version of the first; repeatable. SECOND may be
    /// empty. Without CHANGED, a byte in the data of the first one is changed, as an edit of a program in an interpreted
    /// language does
    #[arg(
        long = "toolchain",
        value_name = "NAME=FIRST[,SECOND[,CHANGED]]",
        value_parser = Toolchain::parse,
        default_value = "Rust=target/dist/examples/hello-v1.wasm,target/dist/examples/cart.wasm,target/dist/examples/hello-v2.wasm"
    )]
    toolchains: Vec<Toolchain>,
    /// Number of rounds for each toolchain
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Components of one toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Toolchain {
    name: String,
    first: PathBuf,
    second: Option<PathBuf>,
    changed: Option<PathBuf>,
}

impl Toolchain {
    fn parse(text: &str) -> Result<Self> {
        let (name, files) = text.split_once('=').context("expected NAME=FIRST")?;
        let mut files = files.split(',').map(|file| match file {
            "" => None,
            file => Some(PathBuf::from(file)),
        });
        let first = files.next().flatten().context("expected NAME=FIRST")?;
        let (second, changed) = (files.next().flatten(), files.next().flatten());
        ensure!(files.next().is_none(), "more than three components");
        Ok(Self {
            name: name.to_owned(),
            first,
            second,
            changed,
        })
    }

    /// Returns the components in the order in which they are compiled, and what they are. The changed version is written to
    /// `folder` if there is no file with one.
    fn components(&self, folder: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
        let changed = match &self.changed {
            Some(changed) => changed.clone(),
            None => {
                let first = fs::read(&self.first);
                let first = first.with_context(|| self.first.display().to_string())?;
                let changed = folder.join("changed.wasm");
                fs::write(&changed, with_changed_data(&first)?)?;
                changed
            }
        };
        let second = self.second.clone().map(|second| ("second", second));
        let components = [("first", self.first.clone())].into_iter().chain(second);
        Ok(components.chain([("changed", changed)]).collect())
    }
}

/// What a compilation took.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    /// CPU time of this process and the compiler process.
    cpu: Duration,
}

/// Measurement of one component in one round.
#[derive(Clone, Copy)]
struct Measured {
    whole: Cost,
    reusing: Cost,
    functions: FunctionCounts,
}

/// Measures each toolchain and prints a table of medians.
///
/// # Errors
/// Returns an error when a component does not compile.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pool = CompilerPool::new(args.node_shim.clone());
    print(
        "| toolchain | component | MB | as a whole, s | CPU s | with functions compiled before, s | CPU s | functions reused |",
    );
    print("|---|---|---|---|---|---|---|---|");
    for toolchain in &args.toolchains {
        let folder = tempfile::tempdir()?;
        let components = toolchain.components(folder.path())?;
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            rounds.push(runtime.block_on(round(&pool, &components))?);
        }
        for (at, (what, path)) in components.iter().enumerate() {
            let measured = rounds.iter().filter_map(|round| round.get(at));
            let row = row(&measured.copied().collect::<Vec<_>>())?;
            let size = fs::metadata(path)?.len() as f64 / 1e6;
            print(&format!("| {} | {what} | {size:.2} {row}", toolchain.name));
        }
    }
    Ok(())
}

/// Compiles the components one after another, each as a whole and with the functions of those before.
async fn round(
    pool: &CompilerPool,
    components: &[(&'static str, PathBuf)],
) -> Result<Vec<Measured>> {
    let folder = tempfile::tempdir()?;
    let dir = StateDir::new(folder.path());
    dir.create()?;
    let health = Arc::new(DiskHealth::default());
    let native = NativeCache::open(&dir, "bench", Arc::clone(&health))?;
    let functions = Arc::new(FunctionCache::open(&dir, native.engine(), health)?);
    let mut measured = Vec::new();
    for (_, path) in components {
        let open = || File::open(path).with_context(|| path.display().to_string());
        let whole = measure(pool.run(open()?, native.draft()?)).await?;
        let before = functions.totals();
        let reusing = pool.run_cached(open()?, native.draft()?, &functions, "bench");
        let reusing = measure(reusing).await?;
        let after = functions.totals();
        measured.push(Measured {
            whole,
            reusing,
            functions: FunctionCounts {
                reused: after.reused - before.reused,
                compiled: after.compiled - before.compiled,
            },
        });
    }
    Ok(measured)
}

async fn measure(
    compilation: impl Future<Output = Result<Compiled, node_shim_core::desired::Failure>>,
) -> Result<Cost> {
    let (started, before) = (Instant::now(), cpu_time::with_children()?);
    match compilation.await {
        Ok(Compiled::Code(_)) => Ok(Cost {
            wall: started.elapsed(),
            cpu: cpu_time::with_children()?.saturating_sub(before),
        }),
        Ok(Compiled::DiskFull) => bail!("the disk is full"),
        Err(failure) => Err(anyhow!("{}", failure.message)),
    }
}

/// Returns the end of the row of a component, with the medians of its rounds.
fn row(rounds: &[Measured]) -> Result<String> {
    let middle = |value: fn(&Measured) -> Duration| {
        let mut values: Vec<Duration> = rounds.iter().map(value).collect();
        values.sort();
        let middle = values.get(values.len() / 2);
        middle.map_or(0.0, Duration::as_secs_f64)
    };
    let last = rounds.last().context("--rounds must be at least 1")?;
    let FunctionCounts { reused, compiled } = last.functions;
    Ok(format!(
        "| {:.2} | {:.2} | {:.2} | {:.2} | {reused} of {} |",
        middle(|round| round.whole.wall),
        middle(|round| round.whole.cpu),
        middle(|round| round.reusing.wall),
        middle(|round| round.reusing.cpu),
        reused + compiled,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_has_one_to_three_components() {
        let parsed = |text: &str| {
            let toolchain = Toolchain::parse(text).ok()?;
            let files = [Some(toolchain.first), toolchain.second, toolchain.changed];
            Some(files.map(|file| file.map(|path| path.display().to_string())))
        };
        let [a, b, c] = ["a", "b", "c"].map(|file| Some(file.to_owned()));
        assert_eq!(parsed("X=a"), Some([a.clone(), None, None]));
        assert_eq!(parsed("X=a,,c"), Some([a.clone(), None, c.clone()]));
        assert_eq!(parsed("X=a,b,c"), Some([a, b, c]));
        for wrong in ["a", "X=", "X=,b", "X=a,b,c,d"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
