//! Objects and commands in the documentation, so that tests can try what readers copy.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::selvage::root;

/// Registry that takes the place of `$REGISTRY` in commands.
const REGISTRY: &str = "registry.example/selvage";

/// An object that a page or an example shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Documented {
    /// Path of the file from the root of the repository, and line.
    pub origin: String,
    /// The object. Part of a spec (`rollout: …`) has become a part of the smallest possible EdgeFunction.
    pub object: Value,
}

/// A fenced block of code of a page.
struct Block {
    /// Word after the fence, such as `yaml`.
    language: String,
    /// Line of the fence, from 1.
    line: usize,
    text: String,
}

/// Returns all objects of Selvage in README, `docs` and the examples.
///
/// # Errors
/// If a file cannot be read, or if YAML cannot be parsed.
pub fn objects() -> Result<Vec<Documented>> {
    let mut found = objects_of_all_kinds()?;
    found.retain(|one| {
        let version = one.object["apiVersion"].as_str();
        version.is_some_and(|version| version.starts_with("selvage.dev/"))
    });
    Ok(found)
}

/// Returns all objects in README, `docs` and the examples, those of other projects among them.
///
/// # Errors
/// If a file cannot be read, or if YAML cannot be parsed.
pub fn objects_of_all_kinds() -> Result<Vec<Documented>> {
    objects_in(pages()?)
}

/// Returns the objects in the files of YAML in a folder, a path from the root of the repository.
///
/// # Errors
/// If a file cannot be read, or if YAML cannot be parsed.
pub fn objects_below(folder: &str) -> Result<Vec<Documented>> {
    objects_in(files(&root().join(folder))?)
}

/// Returns the objects in pages and files of YAML.
fn objects_in(paths: Vec<PathBuf>) -> Result<Vec<Documented>> {
    let fields = spec_fields()?;
    let mut found = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root())?.display().to_string();
        let is_page = name.ends_with(".md");
        if !is_page && !name.ends_with(".yaml") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        found.extend(if is_page {
            of_page(&name, &text, &fields)?
        } else {
            of_yaml(&format!("{name}:1"), &text, &fields)?
        });
    }
    Ok(found)
}

/// Returns README and the files in `docs` and the examples.
fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = vec![root().join("README.md")];
    for folder in ["docs", "examples"] {
        pages.extend(files(&root().join(folder))?);
    }
    pages.sort();
    Ok(pages)
}

/// A command of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Path of the page from the root of the repository, and line of the block.
    pub origin: String,
    /// Arguments after the program.
    pub arguments: Vec<String>,
}

/// Returns the commands of a program in README, `docs` and the examples, such as those of `kubectl selvage`.
///
/// # Errors
/// If a page cannot be read.
pub fn invocations(program: &str) -> Result<Vec<Invocation>> {
    let mut found = Vec::new();
    for path in pages()? {
        let name = path.strip_prefix(root())?.display().to_string();
        if name.ends_with(".md") {
            let page = fs::read_to_string(&path)?;
            found.extend(invocations_of_page(&name, &page, program));
        }
    }
    Ok(found)
}

fn invocations_of_page(name: &str, page: &str, program: &str) -> Vec<Invocation> {
    let mut found = Vec::new();
    for block in blocks(page) {
        let text = block.text.replace("\\\n", " ");
        for line in text.lines() {
            // in blocks with output, commands follow a prompt
            let is_command = block.language == "sh" || line.starts_with("$ ");
            let start = line.find(program).filter(|_| is_command);
            let Some((before, after)) = start.map(|at| line.split_at(at)) else {
                continue;
            };
            let is_alone = before.is_empty() || before.ends_with([' ', '(', '/']);
            let after = after
                .strip_prefix(program)
                .and_then(|rest| rest.strip_prefix(' '));
            if let Some(after) = after.filter(|_| is_alone && !before.contains(" #")) {
                found.push(Invocation {
                    origin: format!("{name}:{}", block.line),
                    arguments: words(after),
                });
            }
        }
    }
    found
}

/// Returns the words of a command up to a comment, a pipe or another end, without their quotes.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in command.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, '|' | ';' | '&' | ')' | '>' | '<') => break,
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// Returns the commands that a page in `docs` shows, one text for each block.
///
/// # Errors
/// If the page cannot be read.
pub fn commands(page: &str) -> Result<Vec<String>> {
    let path = root().join("docs").join(page);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(shell(&text))
}

/// Returns the blocks of commands in the text of a page.
#[must_use]
pub fn shell(page: &str) -> Vec<String> {
    let blocks = blocks(page).into_iter();
    let commands = blocks.filter(|block| block.language == "sh");
    commands.map(|block| block.text).collect()
}

/// Returns the only block of commands of a page in `docs` that begins with a text.
///
/// # Errors
/// If the page cannot be read, or if it has no such block or several.
pub fn block(page: &str, begins: &str) -> Result<String> {
    only(commands(page)?, begins).with_context(|| page.to_owned())
}

fn only(mut blocks: Vec<String>, begins: &str) -> Result<String> {
    blocks.retain(|block| block.starts_with(begins));
    ensure!(
        blocks.len() == 1,
        "{} blocks begin with {begins:?}",
        blocks.len()
    );
    blocks.pop().context("a block")
}

/// Returns the commands of a block without here-documents. A command that ends with a backslash continues on the next line.
#[must_use]
pub fn lines(block: &str) -> Vec<String> {
    let whole = block.replace("\\\n", " ");
    let lines = whole.lines().filter(|line| !line.trim().is_empty());
    lines.map(str::to_owned).collect()
}

/// Returns the files of a folder and of the folders in it, without those that `npm` and `cargo` write.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let generated = entry.file_name() == "node_modules" || entry.file_name() == "target";
        if entry.file_type()?.is_file() {
            found.push(entry.path());
        } else if entry.file_type()?.is_dir() && !generated {
            found.extend(files(&entry.path())?);
        }
    }
    Ok(found)
}

/// Returns the names of the fields of the spec of an EdgeFunction.
fn spec_fields() -> Result<BTreeSet<String>> {
    let definition = fs::read_to_string(root().join("crds/yaml/edgefunctions.yaml"))?;
    let definition: Value = serde_yaml::from_str(&definition)?;
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let fields = schema["properties"]["spec"]["properties"].as_object();
    Ok(fields.context("a schema")?.keys().cloned().collect())
}

/// Returns the objects in the blocks of YAML of a page, and in the here-documents of its commands.
fn of_page(name: &str, page: &str, fields: &BTreeSet<String>) -> Result<Vec<Documented>> {
    let mut found = Vec::new();
    for block in blocks(page) {
        let origin = format!("{name}:{}", block.line);
        match block.language.as_str() {
            "yaml" => found.extend(of_yaml(&origin, &block.text, fields)?),
            "sh" => {
                for document in block.text.split("<<EOF\n").skip(1) {
                    let end = document.find("\nEOF").context("a here-document ends")?;
                    let text = document[..end].replace("$REGISTRY", REGISTRY);
                    found.extend(of_yaml(&origin, &text, fields)?);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Returns the fenced blocks of a page, without the indentation of their fences.
fn blocks(page: &str) -> Vec<Block> {
    let (mut found, mut open): (Vec<Block>, Option<(Block, usize)>) = (Vec::new(), None);
    for (at, line) in page.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => {
                let (language, text) = (language.trim().to_owned(), String::new());
                let block = Block {
                    language,
                    line: at + 1,
                    text,
                };
                open = Some((block, line.len() - line.trim_start().len()));
            }
            (Some(_), Some(_)) => found.extend(open.take().map(|(block, _)| block)),
            (Some((block, indent)), None) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// Returns the objects among the documents of a text.
fn of_yaml(origin: &str, text: &str, fields: &BTreeSet<String>) -> Result<Vec<Documented>> {
    let mut found = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).with_context(|| origin.to_owned())?;
        let object = if value["apiVersion"].is_string() {
            value
        } else {
            match part_of_a_function(&value, fields) {
                Some(object) => object,
                None => continue,
            }
        };
        ensure!(object["kind"].is_string(), "{origin}: an object has a kind");
        let origin = origin.to_owned();
        found.push(Documented { origin, object });
    }
    Ok(found)
}

/// Returns the function that has this part of a spec, `None` if the value is something else.
fn part_of_a_function(value: &Value, fields: &BTreeSet<String>) -> Option<Value> {
    let part = match value.as_object()? {
        whole if whole.len() == 1 => whole.get("spec").and_then(Value::as_object),
        _ => None,
    };
    let part = part.or(value.as_object())?;
    if part.is_empty() || !part.keys().all(|key| fields.contains(key)) {
        return None;
    }
    let mut spec = json!({ "source": { "image": "registry.example/shop/checkout:1.4.0" }, "routes": [{ "hosts": ["shop.example"] }] });
    for (key, value) in part {
        spec[key] = value.clone();
    }
    Some(json!({
        "apiVersion": "selvage.dev/v1alpha1", "kind": "EdgeFunction", "metadata": { "name": "checkout" }, "spec": spec
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_parts_and_here_documents_are_found() -> Result<()> {
        let fields = ["rollout", "egress"].map(str::to_owned).into();
        let page = "```yaml\napiVersion: v1\nkind: Secret\n---\napiVersion: selvage.dev/v1alpha1\nkind: RolloutPolicy\n```\n\
            text `rollout: {}`\n\n  ```yaml\n  rollout: { policyRef: { name: a } }\n  ```\n\n```yaml\nimages: {}\n```\n\n\
            ```sh\nkubectl apply -f - <<EOF\napiVersion: selvage.dev/v1alpha1\nkind: EdgeFunction\nimage: $REGISTRY/a\nEOF\n```\n";
        let found = of_page("a.md", page, &fields)?;
        let kinds: Vec<_> = found
            .iter()
            .map(|one| (one.origin.as_str(), &one.object["kind"]))
            .collect();
        assert_eq!(
            kinds,
            [
                ("a.md:1", &json!("Secret")),
                ("a.md:1", &json!("RolloutPolicy")),
                ("a.md:10", &json!("EdgeFunction")),
                ("a.md:18", &json!("EdgeFunction")),
            ]
        );
        assert_eq!(found[2].object["spec"]["rollout"]["policyRef"]["name"], "a");
        assert_eq!(found[3].object["image"], format!("{REGISTRY}/a"));
        Ok(())
    }

    #[test]
    fn commands_are_found_with_their_arguments() {
        let page = "```sh\nimage=$(kubectl selvage push a.wasm b:1 --note 'x # y')\n../dist/tool \"--a b\" c \\\n  d   # kubectl selvage no\n\
            kubectl selvage get | wc\nkubectl selvages x\n```\n\n```\n$ kubectl selvage get -n \"\" > f\nkubectl selvage output\n```\n";
        let found = |program| {
            let found = invocations_of_page("a.md", page, program).into_iter();
            found.map(|one| one.arguments).collect::<Vec<_>>()
        };
        assert_eq!(
            found("kubectl selvage"),
            [
                vec!["push", "a.wasm", "b:1", "--note", "x # y"],
                vec!["get"],
                vec!["get", "-n", ""],
            ]
        );
        assert_eq!(found("tool"), [["--a b", "c", "d"]]);
    }

    #[test]
    fn a_block_is_found_by_its_begin() -> Result<()> {
        let blocks =
            || ["kubectl get ef\nb \\\n  c\n\nd # e\n", "kubectl get en\n"].map(str::to_owned);
        let found = only(blocks().into(), "kubectl get ef")?;
        assert_eq!(lines(&found), ["kubectl get ef", "b    c", "d # e"]);
        for (begins, number) in [
            ("kubectl get pods", "0 blocks"),
            ("kubectl get", "2 blocks"),
        ] {
            let error = only(blocks().into(), begins)
                .err()
                .map(|error| error.to_string());
            ensure!(
                error.as_ref().is_some_and(|it| it.starts_with(number)),
                "{error:?}"
            );
        }
        ensure!(
            block("tutorial.md", "export REGISTRY=")?.contains("helm test"),
            "another block"
        );
        Ok(())
    }

    #[test]
    fn the_documentation_shows_objects() -> Result<()> {
        let objects = objects()?;
        for (kind, least) in [("EdgeFunction", 10), ("RolloutPolicy", 3)] {
            let number = objects.iter().filter(|one| one.object["kind"] == kind);
            ensure!(number.count() >= least, "{kind}: {objects:?}");
        }
        Ok(())
    }
}
