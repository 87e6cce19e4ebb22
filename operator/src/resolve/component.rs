//! Inspects the imports and exports of a component, from its outermost level. Components are not validated or
//! compiled here: nodes do that, in a process that may crash.

use std::collections::BTreeSet;

use node_api::world::{self, World};
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentType,
    ComponentTypeRef, Encoding, InstanceTypeDeclaration, Parser, Payload, TypeBounds,
};

use super::{Failure, ResolveError};

const MAX_DEPTH: usize = 64;
const MAX_NAMES: usize = 1000;
const MAX_NAME: usize = 256;

/// Names of the interfaces of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Imported interfaces that a node has to offer, for example `wasi:io/streams@0.2.6`.
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
    // whether each type of the outermost level is an instance with nothing but types
    let mut only_types = Vec::new();
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
            Payload::ComponentTypeSection(section) if depth == 0 => {
                for declared in section {
                    only_types.push(has_only_types(&declared.map_err(damaged)?));
                }
            }
            Payload::ComponentAliasSection(section) if depth == 0 => {
                for alias in section {
                    only_types.extend(is_type(&alias.map_err(damaged)?).then_some(false));
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(damaged)?;
                    let only_types = match import.ty {
                        ComponentTypeRef::Instance(ty) => only_types.get(ty as usize).copied(),
                        ComponentTypeRef::Type(_) => {
                            only_types.push(false);
                            None
                        }
                        _ => None,
                    };
                    let name = import.name.full_name();
                    if world::is_needed(&name, only_types.unwrap_or_default()) {
                        found.imports.insert(bounded(&name));
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    let is_type = export.kind == ComponentExternalKind::Type;
                    only_types.extend(is_type.then_some(false));
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

/// Returns whether an alias adds a type to the types of its level.
fn is_type(alias: &ComponentAlias<'_>) -> bool {
    match alias {
        ComponentAlias::InstanceExport { kind, .. } => *kind == ComponentExternalKind::Type,
        ComponentAlias::Outer { kind, .. } => *kind == ComponentOuterAliasKind::Type,
        ComponentAlias::CoreInstanceExport { .. } => false,
    }
}

/// Returns whether a type is that of an instance with neither functions nor resources of its own.
fn has_only_types(declared: &ComponentType<'_>) -> bool {
    let ComponentType::Instance(declarations) = declared else {
        return false;
    };
    declarations.iter().all(|declaration| match declaration {
        InstanceTypeDeclaration::Export { ty, .. } => {
            matches!(ty, ComponentTypeRef::Type(TypeBounds::Eq(_)))
        }
        _ => true,
    })
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

    /// A node has to offer functions and resources, and what it offers is listed whatever a component takes from it.
    #[test]
    fn an_import_with_nothing_but_types_is_not_needed() {
        let text = r#"(component
            (type $a u8)
            (import "wasi:http/types@0.3.0" (instance $types (export "fields" (type (sub resource)))))
            (alias export $types "fields" (type $fields))
            (import "acme:a/types" (instance
                (alias outer 1 $fields (type $outer)) (export "f" (type (eq $outer)))))
            (import "acme:b/empty" (instance))
            (import "acme:c/plain" (type $plain (eq $a)))
            (type $only (instance (type $r (record (field "x" u8))) (export "r" (type (eq $r)))))
            (import "acme:d/types" (instance (type $only)))
            (import "acme:e/func" (instance (export "f" (func))))
            (import "acme:f/resource" (instance (export "r" (type (sub resource)))))
            (import "acme:g/both" (instance (type $r (list u8)) (export "r" (type (eq $r))) (export "f" (func))))
            (import "wasi:clocks/types@0.3.0" (instance)))"#;
        let found = inspect(&wat::parse_str(text).unwrap()).unwrap();
        let expected = [
            "acme:c/plain",
            "acme:e/func",
            "acme:f/resource",
            "acme:g/both",
            "wasi:clocks/types@0.3.0",
            "wasi:http/types@0.3.0",
        ];
        assert_eq!(found.imports.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_empty_component_has_no_world() {
        let found = inspect(b"\0asm\x0d\0\x01\0").unwrap();
        assert_eq!(found, Inspection::default());
        assert_eq!(found.world(), None);
    }
}
