//! Inspects the imports and exports of a component, from its outermost level. Components are not validated or
//! compiled here: nodes do that, in a process that may crash.

use std::collections::BTreeSet;

use node_api::world::World;
use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use super::{Failure, ResolveError};

const MAX_DEPTH: usize = 64;
const MAX_NAMES: usize = 1000;
const MAX_NAME: usize = 256;

/// Names of the interfaces of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Imported interfaces, for example `wasi:io/streams@0.2.6`.
    pub imports: BTreeSet<String>,
    /// Exported interfaces.
    pub exports: BTreeSet<String>,
}

// === impl Inspection ===

impl Inspection {
    /// World that the component can run in; `None` when it exports no handler that a node can call.
    #[must_use]
    pub fn world(&self) -> Option<World> {
        let imports = self.imports.iter().map(String::as_str);
        World::of(imports, self.exports.iter().map(String::as_str))
    }
}

/// Reads the imports and exports of a component.
///
/// # Errors
/// The bytes are not a component, or are damaged.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, ResolveError> {
    let refuse = |message: String| ResolveError::new(Failure::NotAComponent, message);
    if !bytes.starts_with(b"\0asm") {
        return Err(refuse(describe(bytes).to_owned()));
    }
    let damaged =
        |error: wasmparser::BinaryReaderError| refuse(format!("the component is damaged: {error}"));
    let mut found = Inspection::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(damaged)? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(refuse(
                    "the file is a core module, not a component: build it for the target wasm32-wasip2, or make a component of it with `wasm-tools component new`"
                        .to_owned(),
                ));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found
                        .imports
                        .insert(bounded(&import.map_err(damaged)?.name.full_name()));
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    if export.kind == ComponentExternalKind::Instance {
                        found.exports.insert(bounded(&export.name.full_name()));
                    }
                }
            }
            _ => {}
        }
        if depth > MAX_DEPTH || found.imports.len() > MAX_NAMES || found.exports.len() > MAX_NAMES {
            return Err(refuse(
                "the component is nested too deeply or names too many interfaces".to_owned(),
            ));
        }
    }
    Ok(found)
}

/// Shortens a name for status and messages, and removes control characters.
fn bounded(name: &str) -> String {
    name.chars()
        .take(MAX_NAME)
        .flat_map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
            .to_lowercase()
        })
        .collect()
}

fn describe(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "the file is empty",
        [0x7f, b'E', b'L', b'F', ..] => "the file is an ELF object: native code is never accepted",
        _ => "the file is not WebAssembly",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hg_10_everything_but_a_component_is_refused_by_name() {
        for (bytes, word) in [
            (b"".as_slice(), "empty"),
            (b"\x7fELF\x02\x01", "ELF"),
            (b"hello", "not WebAssembly"),
            (b"\0asm\x01\0\0\0", "core module"),
            (b"\0asm\x0d\0\x01\0\x07\xff", "damaged"),
        ] {
            let error = inspect(bytes).unwrap_err();
            assert_eq!(error.failure, Failure::NotAComponent);
            assert!(error.message.contains(word), "{error}");
        }
    }

    #[test]
    fn an_empty_component_has_no_world() {
        let found = inspect(b"\0asm\x0d\0\x01\0").unwrap();
        assert_eq!(found, Inspection::default());
        assert_eq!(found.world(), None);
    }
}
