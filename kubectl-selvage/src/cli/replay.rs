//! Arguments of `replay`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use jiff::Timestamp;

use super::{Format, duration};
use crate::replay::prometheus::Matcher;
use crate::replay::recording::time;

#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("source").required(true).args(["recording", "prometheus"]))]
pub(crate) struct ReplayArgs {
    /// Name of the EdgeFunction. Default: the one in --filename
    #[arg(value_parser = super::name_of_function)]
    pub(crate) name: Option<String>,
    /// Play the policy of this file, with an EdgeFunction, a RolloutPolicy or both. Default: the policy in the cluster
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: Option<PathBuf>,
    /// Read the requests from this file, in CSV or JSON lines
    #[arg(long, value_name = "FILE", help_heading = "Requests")]
    pub(crate) recording: Option<PathBuf>,
    /// Read the requests from the Prometheus at this URL
    #[arg(long, value_name = "URL", help_heading = "Requests", requires = "from")]
    pub(crate) prometheus: Option<String>,
    /// File with a token for Prometheus
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Requests",
        requires = "prometheus"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// Read only series with this label, such as cluster=east; repeatable. Operators: =, !=, =~ and !~
    #[arg(
        long = "matcher",
        value_name = "MATCHER",
        help_heading = "Requests",
        requires = "prometheus"
    )]
    pub(crate) matchers: Vec<Matcher>,
    /// Write the requests of Prometheus to this file, and play nothing
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Requests",
        requires = "prometheus"
    )]
    pub(crate) record: Option<PathBuf>,
    /// Leave out requests before this time
    #[arg(long, value_name = "TIME", help_heading = "Requests", value_parser = time)]
    pub(crate) from: Option<Timestamp>,
    /// Leave out requests after this time. Default with --prometheus: now
    #[arg(long, value_name = "TIME", help_heading = "Requests", value_parser = time)]
    pub(crate) to: Option<Timestamp>,
    /// Length of an interval. Default: the usual time between two rows
    #[arg(long, value_name = "DURATION", help_heading = "Requests", value_parser = duration)]
    pub(crate) interval: Option<Duration>,
    /// Count every request as fast, for recordings without latencies
    #[arg(long, help_heading = "Requests")]
    pub(crate) ignore_latency: bool,
    /// Revision that is stable. Default: `stable`, or the one that appears first
    #[arg(long, value_name = "REVISION", help_heading = "Rollout")]
    pub(crate) stable: Option<String>,
    /// Revision that is the candidate. Default: `candidate`, or the other one of two
    #[arg(
        long,
        value_name = "REVISION",
        help_heading = "Rollout",
        conflicts_with = "same"
    )]
    pub(crate) candidate: Option<String>,
    /// Compare with stable's requests of this much earlier, such as 24h, if the versions were not served at the same time
    #[arg(long, value_name = "DURATION", help_heading = "Rollout", value_parser = duration, default_value = "0s", conflicts_with = "same", hide_default_value = true)]
    pub(crate) stable_earlier: Duration,
    /// Time at which the rollout starts. Default: when both versions serve requests
    #[arg(long, value_name = "TIME", help_heading = "Rollout", value_parser = time, conflicts_with = "same")]
    pub(crate) start: Option<Timestamp>,
    /// Play stable against itself from many starts: how often would a version that is not different be rolled back?
    #[arg(long, help_heading = "Rollout")]
    pub(crate) same: bool,
    /// Time between two starts of --same. Default: at most 200 starts
    #[arg(long, value_name = "DURATION", help_heading = "Rollout", value_parser = duration, requires = "same")]
    pub(crate) every: Option<Duration>,
    /// Seed of the random choice of requests
    #[arg(
        long,
        value_name = "NUMBER",
        help_heading = "Rollout",
        default_value_t = 1
    )]
    pub(crate) seed: u64,
    /// Print the data for programs
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Draw weight, failures and evidence over time into this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["same", "record"])]
    pub(crate) svg: Option<PathBuf>,
}
