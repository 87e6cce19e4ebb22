//! Completion of a command line that begins with `kubectl selvage`. Pure.
//!
//! A shell asks kubectl, and kubectl asks the program `kubectl_complete-selvage` in the protocol of cobra: the arguments are the words
//! of the command line after the name of the plugin, of which the last may be incomplete or empty. The answer is a candidate a line,
//! with a tab before its description, and a last line with a colon and the sum of the directives.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, CommandFactory, ValueHint};

use crate::cli::{Cli, Connection};

/// First argument of the program that asks for a completion, as in programs that use cobra.
const COMPLETE: &str = "__complete";
/// Directive: the shell may complete the name of a file.
const DEFAULT: u32 = 0;
/// Directive: the shell does not complete names of files.
const NO_FILES: u32 = 4;

/// A word that can be the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) word: String,
    /// Empty if there is none.
    pub(crate) description: String,
}

/// What can be in the place of the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One of these words.
    Words(Vec<Candidate>),
    /// The name of a file.
    File,
    /// The name of a function in the namespace.
    Function,
    /// The name of a namespace.
    Namespace,
}

/// A command line whose last word is to be completed.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) wanted: Wanted,
    /// Part of the word that the user has typed.
    pub(crate) typed: String,
    /// The cluster that the words before name.
    pub(crate) connection: Connection,
}

/// Returns the words of the command line, if the arguments of the process ask for a completion.
pub(crate) fn words(arguments: &[OsString]) -> Option<Vec<String>> {
    let [_, command, words @ ..] = arguments else {
        return None;
    };
    let words = words.iter().map(|word| word.to_string_lossy().into_owned());
    (command == COMPLETE).then(|| words.collect())
}

/// Returns the answer in the protocol of cobra. Candidates that do not begin with what the user has typed are left out. `None` leaves
/// the completion to the shell, which knows the files.
pub(crate) fn answer(candidates: Option<&[Candidate]>, typed: &str) -> String {
    let mut text = String::new();
    let all = candidates.unwrap_or_default().iter();
    for Candidate { word, description } in all.filter(|one| one.word.starts_with(typed)) {
        text.push_str(word);
        // a description is the rest of the line
        if let Some(first) = description.lines().next() {
            text.push('\t');
            text.push_str(first);
        }
        text.push('\n');
    }
    let directive = candidates.map_or(DEFAULT, |_| NO_FILES);
    format!("{text}:{directive}\n")
}

/// Reads a command line.
pub(crate) fn read(words: &[String]) -> Request {
    let mut root = Cli::command();
    // gives the options of kubectl to each command
    root.build();
    let (typed, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let mut line = Line::new(&root);
    for word in before {
        line.take(word);
    }
    let (wanted, typed) = line.wanted(typed);
    Request {
        wanted,
        typed: typed.to_owned(),
        connection: line.connection(),
    }
}

/// What the words of a command line were, so far.
struct Line<'a> {
    command: &'a Command,
    /// Number of values without a flag that the command has.
    positionals: usize,
    /// Whether a word was `--`: none of those after it is a flag.
    escaped: bool,
    /// Whether a word is no command, so that nothing is known of those after it.
    unknown: bool,
    /// The option whose value is the next word.
    pending: Option<&'a Arg>,
    /// Flags that are there.
    used: BTreeSet<&'a str>,
    /// Values of options.
    values: BTreeMap<&'a str, String>,
}

impl<'a> Line<'a> {
    const fn new(root: &'a Command) -> Self {
        Self {
            command: root,
            positionals: 0,
            escaped: false,
            unknown: false,
            pending: None,
            used: BTreeSet::new(),
            values: BTreeMap::new(),
        }
    }

    fn find(&self, matches: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
        self.command.get_arguments().find(|arg| matches(arg))
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.find(|arg| arg.get_long() == Some(name))
    }

    /// Takes a word that is complete.
    fn take(&mut self, word: &str) {
        if let Some(arg) = self.pending.take() {
            self.values.insert(arg.get_id().as_str(), word.to_owned());
        } else if self.escaped || word == "-" || !word.starts_with('-') {
            if !self.command.has_subcommands() {
                self.positionals += 1;
            } else if let Some(command) = self.command.find_subcommand(word) {
                self.command = command;
            } else {
                self.unknown = true;
            }
        } else if word == "--" {
            self.escaped = true;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            if let Some(arg) = self.long(name) {
                self.take_flag(arg, value);
            }
        } else {
            self.take_shorts(word);
        }
    }

    /// Takes several flags of one letter, of which the last may have a value.
    fn take_shorts(&mut self, word: &str) {
        let mut letters = word.chars();
        // the hyphen
        letters.next();
        while let Some(letter) = letters.next() {
            let Some(arg) = self.find(|arg| arg.get_short() == Some(letter)) else {
                return;
            };
            if arg.get_action().takes_values() {
                let rest = letters.as_str();
                let value = rest.strip_prefix('=').unwrap_or(rest);
                self.take_flag(arg, Some(value).filter(|_| !rest.is_empty()));
                return;
            }
            self.take_flag(arg, None);
        }
    }

    fn take_flag(&mut self, arg: &'a Arg, value: Option<&str>) {
        let id = arg.get_id().as_str();
        self.used.insert(id);
        match value {
            Some(value) => drop(self.values.insert(id, value.to_owned())),
            None => self.pending = Some(arg).filter(|arg| arg.get_action().takes_values()),
        }
    }

    /// Returns what can be in the place of the last word, and the part of it that is completed.
    fn wanted<'t>(&self, typed: &'t str) -> (Wanted, &'t str) {
        let nothing = Wanted::Words(Vec::new());
        if self.unknown {
            return (nothing, typed);
        }
        if let Some(arg) = self.pending {
            return (value(arg), typed);
        }
        if !self.escaped && typed.starts_with('-') {
            let option = typed.strip_prefix("--").and_then(|it| it.split_once('='));
            return match option {
                // shells complete the part after the sign alone
                Some((name, typed)) => (self.long(name).map_or(nothing, value), typed),
                None => (Wanted::Words(self.flags(typed)), typed),
            };
        }
        if self.command.has_subcommands() {
            return (Wanted::Words(self.commands()), typed);
        }
        let positional = self.command.get_positionals().nth(self.positionals);
        (positional.map_or(nothing, value), typed)
    }

    fn commands(&self) -> Vec<Candidate> {
        let shown = self
            .command
            .get_subcommands()
            .filter(|it| !it.is_hide_set());
        shown
            .map(|command| candidate(command.get_name(), command.get_about()))
            .collect()
    }

    /// Flags that are not there yet, or may be repeated. Those of one letter are not offered beside their names.
    fn flags(&self, typed: &str) -> Vec<Candidate> {
        let shown = self.command.get_arguments().filter(|arg| {
            let repeats = matches!(arg.get_action(), ArgAction::Append | ArgAction::Count);
            !arg.is_hide_set() && (repeats || !self.used.contains(arg.get_id().as_str()))
        });
        let names = shown.filter_map(|arg| {
            let name = format!("--{}", arg.get_long()?);
            let short = arg.get_short().map(|letter| format!("-{letter}"));
            let name = short.filter(|short| short == typed).unwrap_or(name);
            Some(candidate(&name, arg.get_help()))
        });
        names.collect()
    }

    fn connection(&self) -> Connection {
        let value = |name: &str| self.values.get(name).cloned();
        Connection {
            kubeconfig: value("kubeconfig").map(Into::into),
            context: value("context"),
            cluster: value("cluster"),
            user: value("user"),
            namespace: value("namespace"),
        }
    }
}

fn candidate(word: &str, description: Option<&clap::builder::StyledStr>) -> Candidate {
    Candidate {
        word: word.to_owned(),
        description: description.map(ToString::to_string).unwrap_or_default(),
    }
}

/// Returns what can be the value of an argument.
fn value(arg: &Arg) -> Wanted {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        let shown = shown.map(|value| candidate(value.get_name(), value.get_help()));
        return Wanted::Words(shown.collect());
    }
    match (arg.get_id().as_str(), arg.get_value_hint()) {
        (_, ValueHint::AnyPath | ValueHint::FilePath) => Wanted::File,
        (_, ValueHint::Other) => Wanted::Words(Vec::new()),
        ("name", _) if arg.is_positional() => Wanted::Function,
        ("namespace" | "system_namespace", _) => Wanted::Namespace,
        _ => Wanted::Words(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Request {
        let words: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        read(&words)
    }

    /// Returns the answer without descriptions.
    fn answered(line: &str) -> Vec<String> {
        let Request { wanted, typed, .. } = of(line);
        let Wanted::Words(words) = wanted else {
            panic!("{line}: {wanted:?}");
        };
        let text = answer(Some(&words), &typed);
        let lines = text.lines();
        lines
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn commands_and_their_descriptions_are_offered() {
        assert_eq!(answered("pro"), ["promote", "promote-full", ":4"]);
        assert_eq!(answered("-n shop pro"), ["promote", "promote-full", ":4"]);
        assert!(answered("").len() > 15);
        let Wanted::Words(words) = of("").wanted else {
            panic!("no words");
        };
        let text = answer(Some(&words), "versi");
        assert_eq!(
            text,
            "version\tPrint the version of the plugin and of the API that it reads\n:4\n"
        );
        // nothing is known of a command that does not exist
        assert_eq!(answered("sttaus "), [":4"]);
    }

    #[test]
    fn flags_are_those_of_the_command_and_of_kubectl_once() {
        assert_eq!(
            answered("status checkout --wa"),
            ["--watch", "--wait", ":4"]
        );
        assert_eq!(answered("status --watch --wa"), ["--wait", ":4"]);
        assert_eq!(answered("status -w --wa"), ["--wait", ":4"]);
        assert_eq!(answered("status --nam"), ["--namespace", ":4"]);
        assert_eq!(answered("-n shop status --nam"), [":4"]);
        assert_eq!(answered("status -w"), ["-w", ":4"]);
        // a header field may be repeated
        assert_eq!(answered("invoke a -H b:c --hea"), ["--header", ":4"]);
        // after --, a word is a name
        assert_eq!(of("status -- --wa").wanted, Wanted::Function);
    }

    #[test]
    fn values_of_options_are_offered() {
        for line in [
            "get -o j",
            "get --output j",
            "get -A -o j",
            "get --output=j",
        ] {
            assert_eq!(answered(line), ["json", ":4"], "{line}");
        }
        assert_eq!(
            answered("new shop --lang "),
            ["rust", "js", "python", "c", "go", ":4"]
        );
        assert!(answered("completion ").contains(&"bash".to_owned()));
        assert_eq!(answered("status checkout --timeout "), [":4"]);
        assert_eq!(of("status -n ").wanted, Wanted::Namespace);
        assert_eq!(
            of("logs checkout --system-namespace ").wanted,
            Wanted::Namespace
        );
        for line in ["push ", "replay -f ", "--kubeconfig ", "bundle a --file="] {
            assert_eq!(of(line).wanted, Wanted::File, "{line}");
        }
        assert_eq!(answer(None, "a"), ":0\n");
    }

    #[test]
    fn every_command_that_takes_a_function_completes_its_name() {
        let mut found = 0;
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            if command.get_positionals().any(|arg| arg.get_id() == "name") {
                // the function of a new project does not exist
                if name == "new" {
                    assert_eq!(answered("new "), [":4"]);
                    continue;
                }
                assert_eq!(of(&format!("{name} ")).wanted, Wanted::Function, "{name}");
                assert_eq!(of(&format!("{name} --user u ")).wanted, Wanted::Function);
                found += 1;
            }
        }
        assert!(found > 12, "{found}");
        // one name is enough
        assert_eq!(answered("status checkout "), [":4"]);
    }

    #[test]
    fn the_cluster_is_the_one_that_the_command_line_names() {
        let line = "--kubeconfig=f --context c status -n shop --cluster d --user=u ";
        let Connection {
            kubeconfig,
            context,
            cluster,
            user,
            namespace,
        } = of(line).connection;
        assert_eq!(kubeconfig.unwrap().to_str(), Some("f"));
        let all = [context, cluster, user, namespace].map(Option::unwrap);
        assert_eq!(all, ["c", "d", "u", "shop"]);
        for joined in ["-nshop status ", "-n=shop status "] {
            let connection = of(joined).connection;
            assert_eq!(connection.namespace.as_deref(), Some("shop"), "{joined}");
        }
    }

    #[test]
    fn only_the_first_argument_asks_for_a_completion() {
        let words_of = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            words(&arguments)
        };
        assert_eq!(words_of("kubectl-selvage __complete ").unwrap(), [""]);
        assert_eq!(words_of("p __complete -n a").unwrap(), ["-n", "a"]);
        assert_eq!(words_of("kubectl-selvage status __complete"), None);
        assert_eq!(words_of("kubectl-selvage"), None);
    }
}
