//! The command line.

mod function;
mod replay;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::action::Action;

pub(crate) use function::{InvokeArgs, Language, NewArgs, PushArgs};
pub(crate) use replay::ReplayArgs;

/// Version of the plugin and of the API that it reads.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{}, API {}", env!("CARGO_PKG_VERSION"), crds::API_VERSION));

/// Shows rollouts of edge functions, requests actions, and creates, publishes and calls functions.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-selvage",
    bin_name = "kubectl selvage",
    version = VERSION.as_str()
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to reach the cluster, as in kubectl.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Connection {
    /// Kubeconfig file. Default: KUBECONFIG, then ~/.kube/config
    #[arg(long, global = true, help_heading = "Cluster", value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: the current one
    #[arg(long, global = true, help_heading = "Cluster", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Cluster of the kubeconfig. Default: the cluster of the context
    #[arg(long, global = true, help_heading = "Cluster", value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// User of the kubeconfig. Default: the user of the context
    #[arg(long, global = true, help_heading = "Cluster", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Namespace of the function. Default: the namespace of the context
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Cluster",
        value_name = "NAME"
    )]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a function, its revisions and its rollout
    Status(StatusArgs),
    /// List functions
    Get(GetArgs),
    /// Show the outcomes of past rollouts
    History(ObjectArgs),
    /// Explain why the last rollout was rolled back, or what the present one waits for
    Explain(NameArgs),
    /// End the current step, or the bake, now
    Promote(ActionArgs),
    /// Start the bake now, without the remaining steps
    PromoteFull(ActionArgs),
    /// Send all requests to stable and reject the candidate
    Abort(ActionArgs),
    /// Pass the approval gates that the rollout waits for
    Approve(ApproveArgs),
    /// Try the rejected revision again
    Retry(ActionArgs),
    /// Stop the weight from rising; rollback continues
    Pause(ActionArgs),
    /// End a pause, or a hold of the backstop
    Resume(ActionArgs),
    /// Write the code and configuration of a kept revision back to the spec
    Undo(UndoArgs),
    /// Print the lines that a function logs, of all nodes
    Logs(LogsArgs),
    /// Write objects, Events and logs to an archive for support, without values of Secrets and variables
    Bundle(BundleArgs),
    /// Send a request to a function through a node and print the response
    Invoke(InvokeArgs),
    /// Push a component to a registry and print the image for spec.source.image
    Push(PushArgs),
    /// Play a rollout policy on recorded requests: what would it have done, and when?
    Replay(ReplayArgs),
    /// Write the project of a small function into a new folder
    New(NewArgs),
    /// Print the completion script of a shell, for the program kubectl-selvage
    Completion {
        /// Shell that runs the script
        shell: clap_complete::Shell,
    },
    /// Print the version of the plugin and of the API that it reads
    Version,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct NameArgs {
    /// Name of the EdgeFunction
    #[arg(value_parser = name_of_function)]
    pub(crate) name: String,
}

/// Format for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Json,
    Yaml,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ObjectArgs {
    /// Name of the EdgeFunction
    #[arg(value_parser = name_of_function)]
    pub(crate) name: String,
    /// Print the data for programs
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// Name of the EdgeFunction
    #[arg(value_parser = name_of_function)]
    pub(crate) name: String,
    /// Print the object for programs
    #[arg(short, long, value_name = "FORMAT", conflicts_with_all = ["watch", "wait"])]
    pub(crate) output: Option<Format>,
    /// Show changes until the command is interrupted
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// End with 0 when the spec is live, 1 when it was rolled back or stalled, 2 when the timeout has passed
    #[arg(long)]
    pub(crate) wait: bool,
    /// Time limit of --wait, such as 90s or 1h; 0s: none
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration, requires = "wait")]
    pub(crate) timeout: Duration,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct GetArgs {
    /// List functions of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Print the objects for programs
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ActionArgs {
    /// Name of the EdgeFunction
    #[arg(value_parser = name_of_function)]
    pub(crate) name: String,
    /// Do not ask. Without a terminal, nothing is asked
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Time to wait until the operator has handled the action; 0s: do not wait
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Name that the status and Events show as the author of the action
    #[arg(long, value_name = "NAME", default_value = "kubectl-selvage", value_parser = field_manager)]
    pub(crate) field_manager: String,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    pub(crate) action: ActionArgs,
    /// Approve only if this gate is the one that is waited for
    pub(crate) gate: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UndoArgs {
    /// Name of the EdgeFunction
    #[arg(value_parser = name_of_function)]
    pub(crate) name: String,
    /// Name or number of the kept EdgeRevision. Default: stable while another revision is desired, else the one before it
    #[arg(long, value_name = "REVISION")]
    pub(crate) to_revision: Option<String>,
    /// Do not ask. Without a terminal, nothing is asked
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Print the changes and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LogsArgs {
    /// Name of the EdgeFunction
    #[arg(value_parser = name_of_function)]
    pub(crate) name: String,
    /// Print new lines until the command is interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print lines of this EdgeRevision only
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Print lines that are at most this old, such as 5m. Default: all lines that the nodes have
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) since: Option<Duration>,
    /// Print the lines as the nodes write them
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    pub(crate) output: Option<String>,
    #[command(flatten)]
    pub(crate) system: System,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct BundleArgs {
    /// Name of the EdgeFunction
    #[arg(value_parser = name_of_function)]
    pub(crate) name: String,
    /// File to write. Default: selvage-NAME.tar.gz in the current folder
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Number of lines of each log, counted from its end
    #[arg(long, value_name = "COUNT", default_value_t = 5000)]
    pub(crate) log_lines: u32,
    #[command(flatten)]
    pub(crate) system: System,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct System {
    /// Namespace in which Selvage is installed
    #[arg(long, value_name = "NAME", default_value = "selvage-system")]
    pub(crate) system_namespace: String,
}

/// Parses the arguments of the process.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Cli, Box<clap::Error>> {
    Cli::try_parse_from(arguments).map_err(Box::new)
}

impl Command {
    /// Returns the action that the command requests, if it requests one.
    pub(crate) const fn action(&self) -> Option<(Action, &ActionArgs)> {
        Some(match self {
            Self::Promote(args) => (Action::Promote, args),
            Self::PromoteFull(args) => (Action::PromoteFull, args),
            Self::Abort(args) => (Action::Abort, args),
            Self::Approve(args) => (Action::Approve, &args.action),
            Self::Retry(args) => (Action::Retry, args),
            Self::Pause(args) => (Action::Pause, args),
            Self::Resume(args) => (Action::Resume, args),
            _ => return None,
        })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<crds::Duration>();
    parsed
        .map(crds::Duration::to_std)
        .map_err(|error| error.to_string())
}

/// Takes a name as `kubectl get ef -o name` prints it, too: `edgefunction.selvage.dev/checkout`.
fn name_of_function(text: &str) -> Result<String, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("ef", text));
    let kind = kind.strip_suffix(".selvage.dev").unwrap_or(kind);
    match kind {
        "ef" | "edgefunction" | "edgefunctions" => Ok(name.to_owned()),
        _ => Err("write the name of an EdgeFunction, such as checkout or ef/checkout".to_owned()),
    }
}

/// Checks what the API server would refuse.
fn field_manager(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && text.chars().all(|c| !c.is_control()) {
        Ok(text.to_owned())
    } else {
        Err("a field manager has 1 to 128 printable characters".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(line: &str) -> Result<Cli, Box<clap::Error>> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_kubectl_stand_before_and_after_the_command() {
        for line in [
            "kubectl-selvage -n shop --context c status checkout",
            "kubectl-selvage status checkout --namespace shop --context c",
        ] {
            let cli = parsed(line).unwrap();
            assert_eq!(cli.connection.namespace.as_deref(), Some("shop"), "{line}");
            assert_eq!(cli.connection.context.as_deref(), Some("c"), "{line}");
        }
    }

    #[test]
    fn durations_are_those_of_the_api() {
        let cli = parsed("kubectl-selvage status checkout --wait --timeout 1m30s").unwrap();
        let Command::Status(args) = cli.command else {
            panic!("not a status");
        };
        assert_eq!(args.timeout, Duration::from_secs(90));
        let error = parsed("kubectl-selvage status checkout --wait --timeout soon").unwrap_err();
        assert!(error.to_string().contains("5s, 1m30s or 2h"), "{error}");
    }

    #[test]
    fn a_function_is_named_as_kubectl_prints_it_too() {
        for name in [
            "checkout",
            "ef/checkout",
            "edgefunction/checkout",
            "edgefunction.selvage.dev/checkout",
            "edgefunctions.selvage.dev/checkout",
        ] {
            for command in ["status", "history", "invoke", "promote", "approve", "undo"] {
                let line = format!("kubectl-selvage {command} {name}");
                let named = match parsed(&line).unwrap().command {
                    Command::Status(args) => args.name,
                    Command::History(args) => args.name,
                    Command::Invoke(args) => args.name,
                    Command::Promote(args) => args.name,
                    Command::Approve(args) => args.action.name,
                    Command::Undo(args) => args.name,
                    other => panic!("{line}: {other:?}"),
                };
                assert_eq!(named, "checkout", "{line}");
            }
        }
        for other in ["deployment/checkout", "selvage.dev/checkout"] {
            let error = parsed(&format!("kubectl-selvage status {other}")).unwrap_err();
            assert!(error.to_string().contains("such as checkout"), "{error}");
        }
    }

    #[test]
    fn a_time_limit_without_a_wait_is_refused() {
        assert!(parsed("kubectl-selvage status checkout --timeout 5s").is_err());
        assert!(parsed("kubectl-selvage status checkout --watch -o json").is_err());
    }

    #[test]
    fn every_action_has_a_command() {
        for action in Action::ALL {
            let cli = parsed(&format!("kubectl-selvage {} checkout", action.as_str())).unwrap();
            assert_eq!(cli.command.action().map(|(a, _)| a), Some(action));
        }
    }
}
