//! Generator of the reference of the chart's values from `values.yaml` and its comments.

use std::fmt::Write;

/// One value, or a section of values.
struct Entry {
    path: String,
    /// Default as written; empty for a section.
    default: String,
    comment: String,
}

/// Returns the values of a `values.yaml` as Markdown, in the order of the file.
///
/// Keys are indented by two spaces per level, and the comment of a key is above it.
///
/// # Errors
/// A value has no comment; the message names it.
pub fn values_reference(yaml: &str) -> Result<String, String> {
    let mut page = String::from(
        "# Values of the chart\n\nGenerated from the comments in `charts/selvage/values.yaml` by `make crds`. [install.md](install.md#values) explains how they \
         belong together. Unknown keys are refused.\n",
    );
    let mut section = "";
    let entries = entries(yaml);
    for entry in &entries {
        let top = entry.path.split('.').next().unwrap_or_default();
        if top != section {
            section = top;
            let _ = write!(
                page,
                "\n## {section}\n\n| Value | Default | Meaning |\n|---|---|---|\n"
            );
        }
        let Entry {
            path,
            default,
            comment,
        } = entry;
        match (default.as_str(), comment.as_str()) {
            // a section needs no words of its own
            ("", "") => {}
            (_, "") => return Err(format!("{path} has no comment in values.yaml")),
            ("", comment) => {
                let _ = writeln!(page, "| `{path}` | | {} |", cell(comment));
            }
            (default, comment) => {
                let _ = writeln!(
                    page,
                    "| `{path}` | `{}` | {} |",
                    cell(default),
                    cell(comment)
                );
            }
        }
    }
    Ok(page)
}

fn entries(yaml: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let (mut keys, mut comment): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in yaml.lines() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        if let Some((key, default)) = text.split_once(':') {
            keys.truncate((line.len() - line.trim_start().len()) / 2);
            keys.push(key);
            entries.push(Entry {
                path: keys.join("."),
                default: default.trim().to_owned(),
                comment: comment.join(" "),
            });
        }
        comment.clear();
    }
    entries
}

/// Returns a text as the cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_rows_under_their_sections() {
        let yaml = "# The file.\n\na:\n  # First,\n  # second.\n  b: 1\n  # All of c.\n  c:\n    # x or y|z.\n    d: { e: f }\n# Alone.\ng: []\n";
        let page = values_reference(yaml).unwrap();
        let (_, tables) = page.split_once("refused.\n").unwrap();
        let head = "| Value | Default | Meaning |\n|---|---|---|\n";
        let expected = format!(
            "\n## a\n\n{head}| `a.b` | `1` | First, second. |\n| `a.c` | | All of c. |\n| `a.c.d` | `{{ e: f }}` | x or y\\|z. |\n\
             \n## g\n\n{head}| `g` | `[]` | Alone. |\n"
        );
        assert_eq!(tables, expected);
    }

    #[test]
    fn a_value_without_a_comment_is_named() {
        let yaml = "a:\n  # Described.\n  b: 1\n  c: 2\n";
        let error = values_reference(yaml).unwrap_err();
        assert_eq!(error, "a.c has no comment in values.yaml");
    }
}
