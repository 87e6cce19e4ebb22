//! Checks that `docs/kubectl.md` names every command and flag of the plugin.

use crate::tree::{read, rust_files};
use std::collections::BTreeSet;

/// Returns a name in Rust as clap shows it: `PromoteFull` and `dry_run` become `promote-full` and `dry-run`.
fn kebab(name: &str) -> String {
    let mut shown = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !shown.is_empty() {
            shown.push('-');
        }
        shown.push(if c == '_' {
            '-'
        } else {
            c.to_ascii_lowercase()
        });
    }
    shown
}

/// Returns the long flags of a command line that clap derives: fields whose attribute `arg` has `long`.
fn flags(source: &str) -> BTreeSet<String> {
    let fields = source.split("#[arg(").skip(1).filter_map(|rest| {
        let (attribute, rest) = rest.split_once(")]\n")?;
        let is_long = attribute
            .split([',', '\n'])
            .any(|word| word.trim() == "long");
        let field = rest.trim_start().trim_start_matches("pub(crate) ");
        is_long.then(|| format!("--{}", kebab(field.split(':').next().unwrap_or_default())))
    });
    fields.collect()
}

/// Returns the commands: the variants of the enumeration `Command`.
fn commands(source: &str) -> BTreeSet<String> {
    let (_, body) = source.split_once("enum Command {\n").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let variants = body.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.split(['(', ' ', ',']).next()?;
        name.starts_with(|c: char| c.is_ascii_uppercase())
            .then(|| kebab(name))
    });
    variants.collect()
}

#[test]
fn the_page_of_the_plugin_names_every_command_and_flag() {
    let files = rust_files().into_iter();
    let files = files.filter(|path| path.starts_with("kubectl-selvage/src/cli"));
    let source: String = files.map(|path| read(&path)).collect();
    let (flags, commands) = (flags(&source), commands(&source));
    assert!(
        flags.len() > 15 && commands.len() > 12,
        "{flags:?} {commands:?}"
    );
    let page = read("docs/kubectl.md");
    let words: BTreeSet<&str> = page
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .collect();
    let missing: Vec<_> = flags
        .iter()
        .chain(&commands)
        .filter(|name| !words.contains(name.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/kubectl.md does not name {missing:?}"
    );
}

#[test]
fn commands_and_flags_are_found() {
    let source = "enum Command {\n    /// Text\n    PromoteFull(A),\n    Completion {\n        shell: Shell,\n    },\n    Version,\n}\n\
        #[arg(short, long, value_name = \"A\")]\n    pub(crate) dry_run: bool,\n#[arg(value_enum)]\n    name: String,\n";
    assert_eq!(flags(source), ["--dry-run".to_owned()].into());
    assert_eq!(
        commands(source),
        ["promote-full", "completion", "version"]
            .map(str::to_owned)
            .into()
    );
}
