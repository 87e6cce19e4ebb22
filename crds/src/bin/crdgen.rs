//! Writes the definitions, one file per kind: to `crds/yaml` and the chart's copy, or to the folders given;
//! `docs/fields.md`, and `docs/values.md` from the values of the chart.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if folders.is_empty() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::write(root.join("docs/fields.md"), crds::field_reference()?)?;
        let values = std::fs::read_to_string(root.join("charts/selvage/values.yaml"))?;
        std::fs::write(
            root.join("docs/values.md"),
            crds::values_reference(&values)?,
        )?;
        folders = vec![
            root.join("crds/yaml"),
            root.join("charts/selvage/files/crds"),
        ];
    }
    for folder in folders {
        std::fs::create_dir_all(&folder)?;
        for (name, text) in crds::files()? {
            std::fs::write(folder.join(name), text)?;
        }
    }
    Ok(())
}
