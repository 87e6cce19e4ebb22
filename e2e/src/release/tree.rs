//! Reads the output of `cargo tree --prefix depth`.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Name and version of a crate.
pub(super) type Crate = (String, String);

/// Dependencies of crates, as cargo selects them for a build of several programs together.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<Crate, BTreeSet<Crate>>);

impl Tree {
    /// Reads lines such as `2 clap_builder v4.6.7`, which begin with the depth of a crate.
    ///
    /// # Errors
    /// Returns an error when a line has another form.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut tree = Self::default();
        // the crates from a root to the present line
        let mut path: Vec<Crate> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let mut words = line.split(' ');
            let mut next = || words.next().filter(|word| !word.is_empty());
            let (depth, name, version) = (next(), next(), next());
            let depth = depth.and_then(|depth| depth.parse::<usize>().ok());
            let version = version.and_then(|version| version.strip_prefix('v'));
            let (Some(depth), Some(name), Some(version)) = (depth, name, version) else {
                anyhow::bail!("cargo tree printed {line:?}, not `DEPTH NAME vVERSION`");
            };
            let found = (name.to_owned(), version.to_owned());
            path.truncate(depth);
            if depth > 0 {
                let parent = path.last().cloned();
                let parent = parent.with_context(|| format!("{line:?} has no parent"))?;
                tree.0.entry(parent).or_default().insert(found.clone());
            }
            tree.0.entry(found.clone()).or_default();
            path.push(found);
        }
        Ok(tree)
    }

    /// Returns a crate of the workspace and everything that it depends on. Empty if the tree does not contain it.
    pub(super) fn below(&self, name: &str) -> BTreeSet<Crate> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&Crate> = self.0.keys().filter(|(of, _)| of == name).collect();
        while let Some(next) = open.pop() {
            if found.insert(next.clone()) {
                open.extend(self.0.get(next).into_iter().flatten());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "0 harness v0.1.0 (/build/harness)\n1 tar v0.4.45\n1 bytes v1.0.0\n\n\
        0 operator v0.1.0 (/build/operator)\n1 kube v5.0.0\n2 bytes v1.0.0\n2 serde_derive v1.0.2 (proc-macro)\n3 syn v3.0.0\n\
        1 old v1.0.0\n2 syn v2.0.0\n\
        0 shim v0.1.0 (/build/shim)\n1 kube v5.0.0 (*)\n";

    fn names(crates: &BTreeSet<Crate>) -> String {
        let names: Vec<_> = crates
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        names.join(", ")
    }

    #[test]
    fn a_subtree_that_is_printed_once_belongs_to_all_programs() {
        let tree = Tree::parse(PRINTED).unwrap();
        assert_eq!(
            names(&tree.below("operator")),
            "bytes 1.0.0, kube 5.0.0, old 1.0.0, operator 0.1.0, serde_derive 1.0.2, syn 2.0.0, syn 3.0.0"
        );
        assert_eq!(
            names(&tree.below("shim")),
            "bytes 1.0.0, kube 5.0.0, serde_derive 1.0.2, shim 0.1.0, syn 3.0.0"
        );
        assert!(tree.below("absent").is_empty());
    }

    #[test]
    fn other_output_is_an_error() {
        for text in ["error: no such crate", "1 orphan v1.0.0", "0 name 1.0.0"] {
            assert!(Tree::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
