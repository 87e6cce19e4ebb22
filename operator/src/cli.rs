//! Command line of the operator.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::probe::ProbeArgs;
use crate::run::RunArgs;

/// Rolls out edge functions and proves every new version on live traffic.
#[derive(Debug, Parser)]
#[command(name = "operator", version)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconcile edge functions and serve the node API.
    Run(Box<RunArgs>),
    /// Wait until Services are ready.
    Probe(ProbeArgs),
    /// Print the custom resource definitions as YAML.
    Crds,
    /// Compute the expectations of a sample document with the production code.
    Replay {
        /// Sample document, as JSON.
        file: PathBuf,
    },
}

impl Args {
    /// Runs the chosen subcommand to its end.
    ///
    /// # Errors
    /// The failure that ended the subcommand, as one sentence.
    pub async fn execute(self) -> anyhow::Result<()> {
        let Self { command } = self;
        match command {
            Command::Run(args) => crate::run::run(*args).await,
            Command::Probe(args) => crate::probe::run(&args).await,
            Command::Crds => print_crds(),
            Command::Replay { file } => crate::replay::run(&file),
        }
    }
}

fn print_crds() -> anyhow::Result<()> {
    use std::io::Write;
    let yaml = crds::to_yaml()?;
    std::io::stdout().write_all(yaml.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Args::command().debug_assert();
    }

    /// A pod of the chart would not start with an unknown argument.
    #[test]
    fn the_arguments_in_the_chart_exist() {
        let program = Args::command();
        for (subcommand, template, least) in [
            (
                "run",
                include_str!("../../charts/selvage/templates/operator.yaml"),
                16,
            ),
            (
                "probe",
                include_str!("../../charts/selvage/templates/test.yaml"),
                3,
            ),
        ] {
            let known = program.find_subcommand(subcommand).unwrap();
            let known: Vec<&str> = known
                .get_arguments()
                .filter_map(clap::Arg::get_long)
                .collect();
            let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
            let used: Vec<&str> = template
                .split([' ', '"'])
                .filter_map(|word| word.strip_prefix("--")?.split_once('='))
                .map(|(flag, _)| flag)
                .filter(|flag| flag.chars().all(is_name))
                .collect();
            assert!(used.len() >= least, "{used:?}");
            for flag in used {
                assert!(known.contains(&flag), "{subcommand} --{flag}");
            }
        }
    }

    #[test]
    fn defaults_are_those_of_the_chart() {
        let Args {
            command: Command::Run(args),
        } = Args::parse_from(["operator", "run"])
        else {
            unreachable!()
        };
        assert_eq!(args.lease_duration, Duration::from_secs(15));
        assert_eq!(args.unsupervised_ttl, Duration::from_secs(600));
        assert_eq!(args.node_api_addr.port(), 9443);
        assert!(args.prometheus_url.is_empty());
    }
}
