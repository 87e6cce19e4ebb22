//! CPU time of processes, as the kernel counts it.

use anyhow::{Context, Result};
use std::{fs, time::Duration};

/// Returns the user and system time of all threads of a process so far.
pub(crate) fn of(process: u32) -> Result<Duration> {
    sum(&process.to_string(), 2)
}

/// Returns the user and system time of this process so far, and of its child processes that have ended.
pub(crate) fn with_children() -> Result<Duration> {
    sum("self", 4)
}

/// Adds up the first times of a process. Their order is: user, system, user of children, system of children.
fn sum(process: &str, times: usize) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // the name in parentheses may contain any character
    let after_name = stat.rsplit_once(')').context("stat")?.1;
    let mut ticks = 0;
    for field in after_name.split_whitespace().skip(11).take(times) {
        ticks += field.parse::<u64>().context("stat")?;
    }
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}
