//! What the files on disk ask for: functions, their components, and the commands that build them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use node_api::FunctionKey;

use super::DevArgs;
use super::component::Origin;
use super::files::{Stamps, Tree, stamps};
use super::manifest::{self, Function, ManifestText};

/// A command and the folder in which it runs.
pub(super) type BuildCommand = (String, PathBuf);

/// What is to be served.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) functions: Vec<(Function, Origin)>,
    pub(super) builds: Vec<BuildCommand>,
    pub(super) remarks: Vec<String>,
}

impl Plan {
    /// Returns the keys of the functions.
    pub(super) fn keys(&self) -> impl Iterator<Item = &FunctionKey> {
        self.functions.iter().map(|(function, _)| &function.key)
    }

    /// Reads the manifests.
    ///
    /// # Errors
    /// Returns a sentence about the first file that cannot be read or is wrong.
    pub(super) fn read(args: &DevArgs) -> anyhow::Result<Self> {
        let mut texts = Vec::new();
        for path in args.manifests() {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            texts.push(ManifestText {
                path: path.clone(),
                text,
            });
        }
        let mut manifests = manifest::read(&texts)?;
        let several = manifests.functions.len() > 1;
        if several && (args.component.is_some() || args.build.is_some()) {
            bail!(
                "--component and --build are for a manifest with one function; with several, annotate each with {} and {}",
                manifest::COMPONENT,
                manifest::BUILD
            );
        }
        let mut builds = Vec::new();
        let mut functions = Vec::new();
        for function in manifests.functions {
            manifests.remarks.extend(rollout_remark(args, &function)?);
            let origin = Origin::of(&function, args.component.as_deref())?;
            let command = args.build.as_ref().or(function.build.as_ref());
            let build = command.map(|command| (command.clone(), function.folder.clone()));
            // functions of one project often have one command
            builds.extend(build.filter(|build| !builds.contains(build)));
            functions.push((function, origin));
        }
        Ok(Self {
            functions,
            builds,
            remarks: manifests.remarks,
        })
    }
}

/// Returns a line about settings of the rollout that have no effect.
///
/// # Errors
/// Fails when a rollout needs a RolloutPolicy that no manifest has.
fn rollout_remark(args: &DevArgs, function: &Function) -> anyhow::Result<Option<String>> {
    let (key, settings) = (&function.key, &function.rollout);
    if !args.rollout {
        return Ok(settings
            .is_written
            .then(|| format!("{key}: spec.rollout has no effect without --rollout")));
    }
    if let Some(name) = &settings.missing {
        bail!(
            "{key}: spec.rollout.policyRef.name: the RolloutPolicy {name:?} does not exist in this namespace ({}): add it to \
             the manifest, or name its file with -f",
            key.namespace
        );
    }
    Ok(settings
        .has_gates
        .then(|| format!("{key}: gates of the rollout without effect here")))
}

/// Files on disk that a session depends on, with their stamps.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) sources: Stamps,
    pub(super) manifests: Stamps,
    pub(super) components: Stamps,
    /// Folders of all of these.
    pub(super) folders: BTreeSet<PathBuf>,
}

impl Snapshot {
    /// Reads the stamps of the manifests.
    pub(super) fn manifests(args: &DevArgs) -> Stamps {
        stamps(
            &args
                .manifests()
                .map(|path| located(path))
                .collect::<Vec<_>>(),
        )
    }

    /// Reads the files of the folder of the manifest, and those that the plan names.
    pub(super) fn read(args: &DevArgs, plan: &Plan) -> Self {
        let manifests: BTreeSet<PathBuf> = args.manifests().map(|path| located(path)).collect();
        let files = plan
            .functions
            .iter()
            .filter_map(|(_, origin)| origin.file());
        let components: BTreeSet<PathBuf> = files.map(|path| located(path)).collect();
        let root = located(&args.manifest).parent().map(Path::to_owned);
        let Tree {
            files: mut sources,
            mut folders,
        } = Tree::read(&root.unwrap_or_default());
        sources.retain(|path, _| !manifests.contains(path) && !components.contains(path));
        let parents = manifests
            .iter()
            .chain(&components)
            .filter_map(|path| path.parent());
        folders.extend(parents.map(Path::to_owned));
        Self {
            sources,
            manifests: stamps(&manifests),
            components: stamps(&components),
            folders,
        }
    }
}

/// Returns the path by which a reading of its folder finds a file. The file itself may not exist yet.
fn located(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (Some(folder), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return absolute;
    };
    match folder.canonicalize() {
        Ok(folder) => folder.join(name),
        Err(_) => absolute,
    }
}
