//! Programs that test what GitOps tools make of the objects of Selvage: a small one that runs the scripts of
//! `integrations`, and the controllers of Argo CD and Flux. All are built from Go modules in `e2e`; the controllers take
//! five to seven minutes of CPU time each, so only `make gitops` needs them.

use super::{
    cache::{self, run},
    go::{Program, module},
};
use anyhow::{Context, Result};
use std::{
    io::ErrorKind,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

/// Version of Argo CD that `e2e/argo-cd/go.mod` pins.
pub const ARGO_CD: &str = "3.1.16";

/// Names under which the program of Argo CD runs as its parts.
const ARGO_CD_PROGRAMS: [&str; 5] = [
    "argocd",
    "argocd-application-controller",
    "argocd-applicationset-controller",
    "argocd-repo-server",
    "argocd-server",
];

/// Returns the path of the program that checks what Argo CD and Flux make of the objects of Selvage. The first call builds
/// it, which takes less than a minute.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn customizations() -> Result<PathBuf> {
    let program = Program {
        step: "customizations",
        title: "Test of health checks and actions".into(),
        package: ".",
        tags: "",
        variables: Vec::new(),
    };
    let dir = build(&program, &[], |_| Ok(()))?;
    Ok(dir.join("customizations"))
}

/// Returns a folder with the programs of Argo CD, and with the manifests of their version in `manifests`.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn argo_cd() -> Result<PathBuf> {
    let library = "github.com/argoproj/argo-cd/v3";
    let program = Program {
        step: "argo-cd",
        title: format!("Argo CD {ARGO_CD}"),
        package: "github.com/argoproj/argo-cd/v3/cmd",
        tags: "",
        variables: vec![format!("{library}/common.version={ARGO_CD}")],
    };
    build(&program, &ARGO_CD_PROGRAMS, |dir| {
        copy_from(&program, library, "manifests", dir)
    })
}

/// Returns a folder with the program `source-controller` of Flux, and with its definitions in `config/crd/bases`.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn source_controller() -> Result<PathBuf> {
    flux("source-controller", "github.com/fluxcd/source-controller")
}

/// Returns a folder with the program `kustomize-controller` of Flux, and with its definitions in `config/crd/bases`.
///
/// # Errors
/// Returns an error when there is no Go toolchain or the build fails.
pub fn kustomize_controller() -> Result<PathBuf> {
    flux(
        "kustomize-controller",
        "github.com/fluxcd/kustomize-controller",
    )
}

/// Returns a folder with the definitions of the kinds of Flux's image controllers, which controller-gen makes of their types.
///
/// # Errors
/// Returns an error when there is no Go toolchain, or the build or controller-gen fails.
pub fn flux_image_definitions() -> Result<PathBuf> {
    let name = "flux-images";
    let program = Program {
        step: name,
        title: "controller-gen for the image kinds of Flux".into(),
        package: "sigs.k8s.io/controller-tools/cmd/controller-gen",
        tags: "",
        variables: Vec::new(),
    };
    let definitions = "definitions";
    let dir = build(&program, &[], |dir| {
        let mut generate = Command::new(dir.join(name));
        generate.current_dir(module(name)).arg("crd");
        for controller in ["image-reflector-controller", "image-automation-controller"] {
            generate.arg(format!("paths=github.com/fluxcd/{controller}/api/v1"));
        }
        let out = dir.join(definitions);
        run(generate.arg(format!("output:crd:dir={}", out.display())))?;
        Ok(())
    })?;
    Ok(dir.join(definitions))
}

fn flux(name: &'static str, package: &'static str) -> Result<PathBuf> {
    let program = Program {
        step: name,
        title: format!("Flux {name}"),
        package,
        tags: "",
        variables: Vec::new(),
    };
    build(&program, &[], |dir| {
        copy_from(&program, package, "config", dir)
    })
}

/// Builds the program from the module of the name of its step, once for each content of the module. The folder also has a
/// link to the program for each of `links`, and what `rest` adds.
fn build(
    program: &Program,
    links: &[&str],
    rest: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let name = program.step;
    let module = module(name);
    let key = cache::content_key(&module).with_context(|| format!("read e2e/{name}"))?;
    let dir = cache::entry(&format!("{name}-{key}"), |dir| {
        program.build(&module, &dir.join(name))?;
        rest(dir)
    })?;
    // outside of the entry, because its key does not contain them
    for link in links {
        match symlink(name, dir.join(link)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("link {link}"));
            }
            _ => {}
        }
    }
    Ok(dir)
}

/// Copies a folder of the source of a Go module.
fn copy_from(program: &Program, library: &str, folder: &str, dir: &Path) -> Result<()> {
    let mut list = Command::new("go");
    list.current_dir(module(program.step)).args([
        "list",
        "-mod=readonly",
        "-m",
        "-f",
        "{{.Dir}}",
        library,
    ]);
    let source = PathBuf::from(run(&mut list)?.trim()).join(folder);
    let mut copy = Command::new("cp");
    // the source is read-only, which would make the folder hard to remove
    copy.args(["--recursive", "--no-preserve=mode"])
        .arg(&source);
    run(copy.arg(dir)).with_context(|| format!("copy {}", source.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module() {
        let text = std::fs::read_to_string(module("argo-cd").join("go.mod")).unwrap();
        assert!(text.contains(&format!("github.com/argoproj/argo-cd/v3 v{ARGO_CD}")));
    }
}
