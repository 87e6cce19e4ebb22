//! Compares `node-shim serve` with `wasmtime serve`, which people would run instead, and writes the result as a table and as
//! a picture.
//!
//! On one core, all servers of a guest take turns, and the load generator spins on the other core: the results are the CPU time
//! per request and, at a part of each server's own capacity, the latency. On the whole machine, servers and load generator share
//! all cores: the result is requests/s.

use super::{
    Load, Round, chart,
    load::{LOAD_CORE, Waiting},
    median, name_of,
    paced::{self, Latency},
    server::{Place, Server},
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Program to measure
    #[arg(long, default_value = "target/dist/node-shim")]
    node_shim: PathBuf,
    /// `wasmtime` of the same version as the library in node-shim
    #[arg(long)]
    wasmtime: PathBuf,
    /// Component to serve; repeatable
    #[arg(long = "guest", required = true)]
    guests: Vec<PathBuf>,
    /// Number of rounds per server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds per round, after one second of warm-up
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Markdown file whose lines between `<!-- measured -->` and `<!-- /measured -->` are replaced
    #[arg(long)]
    page: Option<PathBuf>,
    /// File for the picture
    #[arg(long)]
    picture: Option<PathBuf>,
}

const CONNECTIONS: usize = 16;
const ALL_CORES_CONNECTIONS: usize = 32;
/// Number of requests of an instance that is used again, in both programs.
const REUSES: &str = "128";
/// What a guest imports to read its configuration, which the smallest host does not offer.
const CONFIG: &[u8] = b"wasi:config/";
/// Part of a server's capacity at which its latency is measured.
const LOADED: f64 = 0.7;

/// One of the compared ways to serve a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Host {
    Bare,
    Least,
    Shim,
    Wasmtime,
    WasmtimePool,
    ShimReuse,
    WasmtimeReuse,
}

impl Host {
    const ALL: [Self; 7] = [
        Self::Bare,
        Self::Least,
        Self::Shim,
        Self::WasmtimePool,
        Self::Wasmtime,
        Self::ShimReuse,
        Self::WasmtimeReuse,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "hyper without a guest",
            Self::Least => "smallest host with a pool",
            Self::Shim => "node-shim",
            Self::Wasmtime => "wasmtime serve",
            Self::WasmtimePool => "wasmtime serve, pool",
            Self::ShimReuse => "node-shim, instances reused",
            Self::WasmtimeReuse => "wasmtime serve, instances reused",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Shim | Self::ShimReuse)
    }

    /// Options after `wasmtime serve`.
    fn wasmtime_options(self) -> &'static [&'static str] {
        match self {
            Self::WasmtimePool => &[
                "-Opooling-allocator=y",
                "-Opooling-max-unused-warm-slots=1000",
                "-Opooling-memory-keep-resident=1048576",
                "-Opooling-table-keep-resident=65536",
                "-Opooling-pagemap-scan=auto",
            ],
            Self::WasmtimeReuse => &["--max-instance-reuse-count", REUSES],
            _ => &[],
        }
    }

    fn start(self, args: &Args, guest: &Path, place: Place) -> Result<Server> {
        let shim = |options: &[&str]| Server::shim(&args.node_shim, options, guest, place);
        match self {
            Self::Bare => Server::bare(),
            Self::Least => Server::reference(guest),
            Self::Shim => shim(&[]),
            Self::ShimReuse => shim(&["--reuse-requests", REUSES, "--reuse-idle", "30000"]),
            Self::Wasmtime | Self::WasmtimePool | Self::WasmtimeReuse => {
                Server::wasmtime(&args.wasmtime, self.wasmtime_options(), guest, place)
            }
        }
    }
}

/// Measurements of one guest.
struct Guest {
    name: String,
    one_core: Vec<(Host, Round, Option<Latency>)>,
    all_cores: Vec<(Host, Round)>,
}

/// Measures every guest in every host, and prints or writes the tables.
///
/// # Errors
/// Returns an error when a server does not start, node-shim sends a response other than 200, or a file cannot be written.
pub(crate) fn run(args: &Args, print: &mut dyn FnMut(&str)) -> Result<()> {
    let mut guests = Vec::new();
    for file in &args.guests {
        guests.push(Guest {
            name: name_of(file),
            one_core: one_core(args, file)?,
            all_cores: all_cores(args, file)?,
        });
    }
    let report = report(args, &guests)?;
    print(&report);
    if let Some(page) = &args.page {
        write_between(page, &report)?;
    }
    if let Some(picture) = &args.picture {
        let groups: Vec<_> = guests.iter().map(group).collect();
        fs::write(picture, chart::bars(&groups)).with_context(|| picture.display().to_string())?;
    }
    Ok(())
}

fn one_core(args: &Args, guest: &Path) -> Result<Vec<(Host, Round, Option<Latency>)>> {
    let load = Load {
        seconds: args.seconds,
        connections: CONNECTIONS,
        waiting: Waiting::Spinning,
        core: Some(LOAD_CORE),
    };
    let configured = fs::read(guest)?
        .windows(CONFIG.len())
        .any(|name| name == CONFIG);
    let hosts = Host::ALL
        .into_iter()
        .filter(|host| *host != Host::Least || !configured);
    let servers = start(
        args,
        guest,
        &hosts.collect::<Vec<_>>(),
        load,
        Place::OneCore,
    )?;
    let rounds = in_turns(args.rounds, &servers, load)?;
    let mut windows: Vec<_> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        for (((host, server), round), seen) in servers.iter().zip(&rounds).zip(&mut windows) {
            let rate = round.per_second * LOADED;
            let duration = Duration::from_secs(args.seconds);
            let latency = paced::drive(server.address, rate, duration, Some(LOAD_CORE));
            seen.extend(latency.with_context(|| format!("{} at {rate:.0}/s", host.name()))?);
        }
    }
    let measured = servers.iter().zip(rounds).zip(windows);
    Ok(measured
        .map(|(((host, _), round), windows)| (*host, round, paced::median(&windows)))
        .collect())
}

fn all_cores(args: &Args, guest: &Path) -> Result<Vec<(Host, Round)>> {
    let load = Load {
        seconds: args.seconds,
        connections: ALL_CORES_CONNECTIONS,
        waiting: Waiting::Sleeping,
        core: None,
    };
    let hosts = Host::ALL
        .into_iter()
        .filter(|host| !matches!(host, Host::Bare | Host::Least));
    let servers = start(
        args,
        guest,
        &hosts.collect::<Vec<_>>(),
        load,
        Place::AllCores,
    )?;
    let rounds = in_turns(args.rounds, &servers, load)?;
    let hosts = servers.iter().map(|(host, _)| *host);
    Ok(hosts.zip(rounds).collect())
}

/// Starts those hosts that can serve the guest under load: `wasmtime serve` may answer 500 when it reuses an instance.
fn start(
    args: &Args,
    guest: &Path,
    hosts: &[Host],
    load: Load,
    place: Place,
) -> Result<Vec<(Host, Server)>> {
    let mut started = Vec::new();
    for host in hosts {
        let name = || format!("{} {}", host.name(), guest.display());
        let server = host.start(args, guest, place).with_context(name)?;
        match load.round(&server) {
            Ok(_) => started.push((*host, server)),
            Err(error) if host.is_ours() => return Err(error.context(name())),
            Err(error) => eprintln!("{} is left out: {error}", name()),
        }
    }
    Ok(started)
}

/// Measures the servers A B C A B C …, so that changes of the machine's speed affect all of them. Returns the median of each.
fn in_turns(rounds: usize, servers: &[(Host, Server)], load: Load) -> Result<Vec<Round>> {
    let mut measured: Vec<_> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for ((host, server), seen) in servers.iter().zip(&mut measured) {
            let round = load.round(server);
            seen.push(round.with_context(|| host.name())?);
        }
    }
    measured.iter().map(|seen| median(seen)).collect()
}

fn report(args: &Args, guests: &[Guest]) -> Result<String> {
    let mut lines = vec![format!(
        "Measured {} on {}, with {}. Medians of {} rounds.",
        jiff::Zoned::now().date(),
        machine(),
        version(&args.wasmtime)?,
        args.rounds
    )];
    for guest in guests {
        lines.extend([
            format!("\n### {}\n", guest.name),
            "| | CPU µs per request | ÷ node-shim | req/s on one core | p50 µs at 70 % | p99 µs at 70 % |".to_owned(),
            "|---|---|---|---|---|---|".to_owned(),
        ]);
        let shim = guest.one_core.iter().find(|(host, ..)| *host == Host::Shim);
        let (_, base, _) = shim.context("the node-shim was not measured")?;
        lines.extend(guest.one_core.iter().map(|(host, round, latency)| {
            format!(
                "| {} | {:.1} | {:.2} | {:.0} | {} | {} |",
                host.name(),
                round.cpu_micros,
                round.cpu_micros / base.cpu_micros,
                round.per_second,
                micros(*latency, |latency| latency.p50),
                micros(*latency, |latency| latency.p99)
            )
        }));
        lines.extend([
            "\n| all cores, shared with the load generator | req/s | ÷ node-shim | CPU µs per request |".to_owned(),
            "|---|---|---|---|".to_owned(),
        ]);
        let shim = guest.all_cores.iter().find(|(host, _)| *host == Host::Shim);
        let (_, base) = shim.context("the node-shim was not measured")?;
        lines.extend(guest.all_cores.iter().map(|(host, round)| {
            format!(
                "| {} | {:.0} | {:.2} | {:.1} |",
                host.name(),
                round.per_second,
                round.per_second / base.per_second,
                round.cpu_micros
            )
        }));
    }
    Ok(lines.join("\n") + "\n")
}

/// Formats a latency in microseconds; a dash for a guest that serves too few requests for percentiles.
fn micros(latency: Option<Latency>, of: fn(Latency) -> Duration) -> String {
    latency.map_or_else(
        || "–".to_owned(),
        |latency| of(latency).as_micros().to_string(),
    )
}

fn group(guest: &Guest) -> chart::Group {
    let bars = guest.one_core.iter().map(|(host, round, _)| chart::Bar {
        name: host.name().to_owned(),
        value: round.cpu_micros,
        ours: host.is_ours(),
    });
    chart::Group {
        title: format!("{}: CPU time per request, µs", guest.name),
        bars: bars.collect(),
    }
}

/// Returns processor and number of cores, as `/proc/cpuinfo` names them.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{cores} cores of {}",
        name.map_or("an unknown processor", |(_, name)| name)
    )
}

fn version(program: &Path) -> Result<String> {
    let out = Command::new(program).arg("--version").output();
    let out = out.with_context(|| program.display().to_string())?;
    let text = String::from_utf8_lossy(&out.stdout);
    let words: Vec<_> = text.split_whitespace().take(2).collect();
    Ok(words.join(" "))
}

fn write_between(page: &Path, report: &str) -> Result<()> {
    const BEGIN: &str = "<!-- measured -->\n";
    const END: &str = "<!-- /measured -->";
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let (before, rest) = text
        .split_once(BEGIN)
        .context("the page has no begin mark")?;
    let (_, after) = rest.split_once(END).context("the page has no end mark")?;
    fs::write(page, format!("{before}{BEGIN}\n{report}\n{END}{after}"))?;
    Ok(())
}
