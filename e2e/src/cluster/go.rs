//! Builds programs from Go modules.

use super::cache::{self, on_path};
use crate::progress::{Plan, run_with_progress};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A program that is built from the source of a Go module in `e2e`. The build takes minutes.
pub(super) struct Program {
    /// Name of the step, under which its duration is remembered.
    pub(super) step: &'static str,
    /// Name and version, for the display of progress.
    pub(super) title: String,
    /// Path of the package, relative to the module or complete.
    pub(super) package: &'static str,
    /// Build tags, separated by commas.
    pub(super) tags: &'static str,
    /// Values of variables of packages, as `PACKAGE.NAME=VALUE`.
    pub(super) variables: Vec<String>,
}

impl Program {
    /// Compiles the program and shows how many of its packages are compiled.
    ///
    /// # Errors
    /// Returns an error when there is no Go toolchain, or the source cannot be downloaded or compiled.
    pub(super) fn build(&self, module: &Path, out: &Path) -> Result<()> {
        let Self { step, title, .. } = self;
        if !on_path("go") {
            bail!(
                "Go 1.26 or newer is needed to build {title} for the local cluster: install it from https://go.dev/dl"
            );
        }
        // a line of output without spaces is the name of a package; other lines are messages of the tool
        let is_package = |line: &str| !line.is_empty() && !line.contains(' ');
        let sources = Plan {
            title: format!("Source of {title}"),
            unit: "packages found".into(),
            ..Plan::default()
        };
        let list = run_with_progress(&mut self.list(module), &sources, is_package)
            .with_context(|| format!("fetch the source of {title}"))?;
        let plan = Plan {
            title: format!("{title} from source"),
            unit: "packages compiled".into(),
            total: Some(list.parts),
            last_time: cache::last_duration(step),
        };
        let built = run_with_progress(&mut self.compile(module, out), &plan, is_package)
            .with_context(|| format!("build {title}"))?;
        cache::remember_duration(step, built.took);
        Ok(())
    }

    /// Returns the command that downloads the source and prints the names of all packages.
    fn list(&self, module: &Path) -> Command {
        let mut command = go(module);
        command.args(["list", "-mod=readonly", "-deps", "-tags", self.tags]);
        command.arg(self.package);
        command
    }

    /// Returns the command that compiles the program and prints the names of the packages that it compiles.
    pub(super) fn compile(&self, module: &Path, out: &Path) -> Command {
        let mut command = go(module);
        let mut flags = String::from("-ldflags=-s -w");
        for variable in &self.variables {
            flags.push_str(" -X ");
            flags.push_str(variable);
        }
        command
            .args(["build", "-v", "-mod=readonly", "-trimpath"])
            .args(["-tags", self.tags])
            .arg(flags)
            .arg("-o")
            .arg(out)
            .arg(self.package);
        command
    }
}

/// Returns the path of a Go module in `e2e`.
pub(super) fn module(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(module).env("CGO_ENABLED", "0");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_tags_and_variables() {
        let program = Program {
            step: "step",
            title: "Title 1.2".into(),
            package: "./part",
            tags: "one,two",
            variables: vec!["p.a=1".into(), "p.b=2".into()],
        };
        let command = program.compile(Path::new("/module"), Path::new("/out"));
        let words: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        assert_eq!(
            words.join("|"),
            "build|-v|-mod=readonly|-trimpath|-tags|one,two|-ldflags=-s -w -X p.a=1 -X p.b=2|-o|/out|./part"
        );
        assert_eq!(command.get_current_dir(), Some(Path::new("/module")));
    }
}
