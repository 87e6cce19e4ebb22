//! Checks the manifests of the crates.

use crate::tree::{packages, read};

/// Returns whether a manifest inherits the lints of the workspace and adds none.
fn inherits_lints(manifest: &str) -> bool {
    let lines = manifest.lines().map(|line| {
        let code = line.split('#').next().unwrap_or_default();
        code.split_whitespace().collect::<String>()
    });
    let section: Vec<_> = lines
        .filter(|line| !line.is_empty())
        .skip_while(|line| line != "[lints]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .collect();
    section == ["workspace=true"]
}

#[test]
fn every_crate_inherits_the_lints_of_the_workspace() {
    for package in packages() {
        let manifest = format!("{}/Cargo.toml", package.folder);
        assert!(
            inherits_lints(&read(&manifest)),
            "{manifest} lacks `[lints] workspace = true`"
        );
    }
}

#[test]
fn only_an_exact_section_inherits() {
    assert!(inherits_lints("[lints] # all\n\nworkspace  = true\n[a]\n"));
    for manifest in [
        "[package]\nworkspace = true\n",
        "# [lints]\n# workspace = true\n",
        "[lints]\nworkspace = false\n",
        "[lints.rust]\nunsafe_code = \"allow\"\n",
    ] {
        assert!(!inherits_lints(manifest), "{manifest}");
    }
}
