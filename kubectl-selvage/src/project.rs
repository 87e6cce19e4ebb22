//! Files of a new project: an example of the repository with its own name, in a folder of its own. Pure.

use crate::cli::Language;

/// A file of a project.
#[derive(Debug)]
pub(crate) struct File {
    /// Path below the folder of the project.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Whether the file is a program: a script that the build runs by its path.
    pub(crate) executable: bool,
}

/// An example and what its files must say elsewhere.
struct Template {
    files: &'static [(&'static str, &'static str)],
    /// Files that the example shares with others.
    shared: &'static [&'static [(&'static str, &'static str)]],
    /// Texts of the files and their replacements, in which `NAME` is the name of the project and `CRATE` the name that
    /// cargo gives to its library.
    replacements: &'static [(&'static str, &'static str)],
    commands: &'static [&'static str],
}

macro_rules! example {
    ($folder:literal: $($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../examples/", $folder, "/", $path)))),+]
    };
}

/// Interfaces that the examples in other languages than Rust share.
const WIT: &[(&str, &str)] = example!(".":
    "wit/world.wit",
    "wit/deps/cli.wit",
    "wit/deps/clocks.wit",
    "wit/deps/config.wit",
    "wit/deps/filesystem.wit",
    "wit/deps/http.wit",
    "wit/deps/io.wit",
    "wit/deps/random.wit",
    "wit/deps/sockets.wit",
);

/// The script that makes a component of a module, for the examples in C and Go.
const COMPONENT: &[(&str, &str)] = example!(".": "component.sh");

const DEV: &str = "node-shim dev function.yaml";

const RUST: Template = Template {
    files: example!("cart": "Cargo.toml", "Cargo.lock", "README.md", "function.yaml", "src/lib.rs", "wit/world.wit"),
    shared: &[],
    replacements: &[
        ("name = \"cart\"", "name = \"NAME\""),
        ("name: cart", "name: NAME"),
        ("patch ef cart", "patch ef NAME"),
        ("/cart:v1", "/NAME:v1"),
        ("cart.example", "NAME.example"),
        (
            "../../target/examples/cart.wasm",
            "target/wasm32-wasip2/release/CRATE.wasm",
        ),
        (
            "../build.sh ../../target/examples cart",
            "cargo build --release --target wasm32-wasip2",
        ),
        ("release/cart.wasm", "release/CRATE.wasm"),
        ("; [`../build.sh`](../build.sh) makes one of 49 kB", ""),
        (
            "[key-value store](../../docs/functions.md#key-value-stores)",
            "key-value store",
        ),
    ],
    commands: &["rustup target add wasm32-wasip2", DEV],
};

const JAVASCRIPT: Template = Template {
    files: example!("javascript":
        ".npmrc", "README.md", "build.js", "function.yaml", "package-lock.json", "package.json", "src/function.js"),
    shared: &[WIT],
    replacements: &[
        ("\"javascript-function\"", "\"NAME\""),
        ("name: convert", "name: NAME"),
        ("/convert:v1", "/NAME:v1"),
        ("convert.example", "NAME.example"),
        ("javascript.wasm", "NAME.wasm"),
        ("'../wit'", "'wit'"),
        ("[`../wit`](../wit)", "[`wit`](wit)"),
        (
            "([outbound requests](../../docs/functions.md#outbound-requests))",
            "",
        ),
    ],
    commands: &["npm ci", DEV],
};

const PYTHON: Template = Template {
    files: example!("python": "README.md", "app.py", "function.yaml", "requirements.txt"),
    shared: &[WIT],
    replacements: &[
        ("name: timetable", "name: NAME"),
        ("/timetable:v1", "/NAME:v1"),
        ("timetable.example", "NAME.example"),
        ("python.wasm", "NAME.wasm"),
        ("--wit-path ../wit", "--wit-path wit"),
    ],
    commands: &["python3 -m pip install -r requirements.txt", DEV],
};

const C: Template = Template {
    files: example!("c": "README.md", "build.sh", "function.c", "function.yaml", "requirements.txt", "wasi.h"),
    shared: &[WIT, COMPONENT],
    replacements: &[
        ("name: base64", "name: NAME"),
        ("/base64:v1", "/NAME:v1"),
        ("base64.example", "NAME.example"),
        ("c.wasm", "NAME.wasm"),
        ("wit-bindgen c ../wit", "wit-bindgen c wit"),
        ("../component.sh \"$module\"", "./component.sh \"$module\""),
        (
            "[`../component.sh`](../component.sh)",
            "[`component.sh`](component.sh)",
        ),
        ("[trap](../../docs/functions.md#interfaces)", "trap"),
        (
            "[reuse](../../docs/functions.md#reuse-of-instances)",
            "reuse of its instances",
        ),
    ],
    commands: &["python3 -m pip install -r requirements.txt", DEV],
};

const GO: Template = Template {
    files: example!("go":
        "README.md", "build.sh", "function.yaml", "go.mod", "main.go", "wasi/http.go", "wasi/imports.go", "wasi/memory.go"),
    shared: &[WIT, COMPONENT],
    replacements: &[
        ("name: clock", "name: NAME"),
        ("/clock:v1", "/NAME:v1"),
        ("clock.example", "NAME.example"),
        ("go.wasm", "NAME.wasm"),
        // a module with the name of a package of the library, such as time, would be that package
        ("module clock", "module example.com/NAME"),
        ("\"clock/wasi\"", "\"example.com/NAME/wasi\""),
        ("../component.sh \"$module\"", "./component.sh \"$module\""),
        (
            "[`../component.sh`](../component.sh)",
            "[`component.sh`](component.sh)",
        ),
    ],
    commands: &[DEV],
};

const fn template(language: Language) -> &'static Template {
    match language {
        Language::Rust => &RUST,
        Language::Js => &JAVASCRIPT,
        Language::Python => &PYTHON,
        Language::C => &C,
        Language::Go => &GO,
    }
}

/// Returns the files of a project.
pub(crate) fn files(language: Language, name: &str) -> Vec<File> {
    let template = template(language);
    let shared = template.shared.iter().copied().flatten();
    let all = template.files.iter().chain(shared);
    let mut files: Vec<File> = all
        .map(|(path, text)| File {
            path: (*path).to_owned(),
            text: replaced(text, template, name),
            executable: path.ends_with(".sh"),
        })
        .collect();
    files.push(File {
        path: ".gitignore".to_owned(),
        text: ignored(language).to_owned(),
        executable: false,
    });
    files
}

/// What the build writes.
const fn ignored(language: Language) -> &'static str {
    match language {
        Language::Rust => "/target\n",
        Language::Js => "/node_modules\n*.wasm\n",
        Language::Python => "__pycache__\n*.wasm\n",
        Language::C | Language::Go => "*.wasm\n",
    }
}

fn replaced(text: &str, template: &Template, name: &str) -> String {
    let mut text = text.to_owned();
    for (from, to) in template.replacements {
        let to = to.replace("NAME", name);
        text = text.replace(from, &to.replace("CRATE", &name.replace('-', "_")));
    }
    text
}

/// Returns the commands that build the project and serve it without a cluster.
pub(crate) const fn commands(language: Language) -> &'static [&'static str] {
    template(language).commands
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use crds::EdgeFunction;

    fn text_of(files: &[File], path: &str) -> String {
        let found = files.iter().find(|file| file.path == path);
        found.unwrap().text.clone()
    }

    #[test]
    fn nothing_leads_out_of_a_project() {
        for &language in Language::value_variants() {
            for File { path, text, .. } in files(language, "shop") {
                assert!(
                    !text.contains("../") && !path.contains(".."),
                    "{path}: {text}"
                );
            }
        }
    }

    /// An example that was changed must not lose its new name unnoticed.
    #[test]
    fn every_replacement_finds_its_text() {
        for &language in Language::value_variants() {
            let template = template(language);
            for (from, _) in template.replacements {
                let found = template.files.iter().any(|(_, text)| text.contains(from));
                assert!(found, "{from}");
            }
        }
    }

    #[test]
    fn manifests_have_the_name_and_build_what_they_load() {
        for (language, component) in [
            (Language::Rust, "target/wasm32-wasip2/release/my_shop.wasm"),
            (Language::Js, "my-shop.wasm"),
            (Language::Python, "my-shop.wasm"),
            (Language::C, "my-shop.wasm"),
            (Language::Go, "my-shop.wasm"),
        ] {
            let files = files(language, "my-shop");
            let manifest = text_of(&files, "function.yaml");
            let function: EdgeFunction = serde_yaml::from_str(&manifest).unwrap();
            assert_eq!(function.metadata.name.as_deref(), Some("my-shop"));
            assert_eq!(function.spec.routes[0].hosts, ["my-shop.example"]);
            let image = function.spec.source.image.unwrap();
            assert_eq!(image, "registry.example/my-shop:v1");
            let annotations = function.metadata.annotations.unwrap();
            assert_eq!(annotations["selvage.dev/component"], component);
            assert!(annotations.contains_key("selvage.dev/build"));
        }
        let rust = files(Language::Rust, "my-shop");
        assert!(text_of(&rust, "Cargo.toml").contains("name = \"my-shop\""));
        assert!(text_of(&rust, "Cargo.lock").contains("name = \"my-shop\""));
        let lock = text_of(&files(Language::Js, "my-shop"), "package-lock.json");
        assert_eq!(lock.matches("\"name\": \"my-shop\"").count(), 2);
        let build = text_of(&files(Language::Js, "my-shop"), "build.js");
        assert!(
            build.contains("my-shop.wasm") && build.contains("'wit'"),
            "{build}"
        );
    }

    #[test]
    fn scripts_of_a_project_can_be_run() {
        for &language in Language::value_variants() {
            let files = files(language, "shop");
            let scripts = files.iter().filter(|file| file.executable);
            let scripts: Vec<&str> = scripts.map(|file| file.path.as_str()).collect();
            let function: EdgeFunction =
                serde_yaml::from_str(&text_of(&files, "function.yaml")).unwrap();
            let build = function.metadata.annotations.unwrap()["selvage.dev/build"].clone();
            if let Some(script) = build.strip_prefix("./") {
                assert_eq!(scripts, [script, "component.sh"], "{language:?}");
                assert!(text_of(&files, script).contains("\n./component.sh "));
            } else {
                assert!(scripts.is_empty(), "{language:?}: {scripts:?}");
            }
        }
    }

    #[test]
    fn a_module_of_go_is_no_package_of_the_library() {
        let files = files(Language::Go, "time");
        assert!(text_of(&files, "go.mod").starts_with("module example.com/time\n"));
        assert!(text_of(&files, "main.go").contains("\t\"example.com/time/wasi\"\n"));
    }
}
