//! Names of the interfaces of a component, and the world that follows from them. They are read from the sections of the
//! outermost level, in microseconds and before anything is compiled.

use node_api::world::{self, World};
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentType,
    ComponentTypeRef, InstanceTypeDeclaration, Parser, Payload, TypeBounds,
};

/// Names of what the outermost component needs from a node, and of what it exports.
pub(crate) struct InterfaceNames<'a> {
    pub(crate) imports: Vec<&'a str>,
    pub(crate) exports: Vec<&'a str>,
}

impl<'a> InterfaceNames<'a> {
    /// Reads the names.
    ///
    /// # Errors
    /// Returns an error when the bytes are damaged.
    pub(crate) fn read(bytes: &'a [u8]) -> wasmparser::Result<Self> {
        let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0_usize);
        // whether each type of the outermost level is an instance with nothing but types
        let mut only_types = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentTypeSection(section) if depth == 0 => {
                    for declared in section {
                        only_types.push(has_only_types(&declared?));
                    }
                }
                Payload::ComponentAliasSection(section) if depth == 0 => {
                    for alias in section {
                        only_types.extend(is_type(&alias?).then_some(false));
                    }
                }
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        let import = import?;
                        let only_types = match import.ty {
                            ComponentTypeRef::Instance(ty) => only_types.get(ty as usize).copied(),
                            ComponentTypeRef::Type(_) => {
                                only_types.push(false);
                                None
                            }
                            _ => None,
                        };
                        if world::is_needed(import.name.name, only_types.unwrap_or_default()) {
                            imports.push(import.name.name);
                        }
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        let export = export?;
                        exports.push(export.name.name);
                        let is_type = export.kind == ComponentExternalKind::Type;
                        only_types.extend(is_type.then_some(false));
                    }
                }
                _ => {}
            }
        }
        Ok(Self { imports, exports })
    }

    /// Returns the world of the component; `None` when it exports no handler.
    pub(crate) fn world(&self) -> Option<World> {
        World::of(self.imports.iter().copied(), self.exports.iter().copied())
    }
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

/// Returns the world of a component whose engine compiles it. That of the world `wasi:http/proxy` compiles what is damaged
/// or of no world, to name the defect.
pub(crate) fn world_to_compile(bytes: &[u8]) -> World {
    let names = InterfaceNames::read(bytes).ok();
    let world = names.and_then(|names| names.world());
    world.unwrap_or(World::Proxy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of the imports of a component that a node has to offer.
    fn needed(items: &str) -> Vec<String> {
        let bytes = wat::parse_str(format!("(component {items})")).unwrap();
        let names = InterfaceNames::read(&bytes).unwrap();
        names.imports.into_iter().map(str::to_owned).collect()
    }

    /// What a node offers is listed whatever a component takes from it.
    #[test]
    fn an_import_with_nothing_but_types_is_not_needed() {
        let types = r#"(import "wasi:http/types@0.3.0" (instance $types (export "response" (type (sub resource)))))
            (alias export $types "response" (type $response))"#;
        let mentioned = r#"(import "wasi:http/handler@0.3.0" (instance
            (alias outer 1 $response (type $outer)) (export "response" (type (eq $outer)))))"#;
        let called = r#"(import "wasi:http/handler@0.3.0" (instance
            (alias outer 1 $response (type $outer)) (export "response" (type (eq $outer)))
            (export "handle" (func (result (own 1))))))"#;
        let offered = ["wasi:http/types@0.3.0"];
        assert_eq!(needed(&format!("{types} {mentioned}")), offered);
        let both = [offered[0], "wasi:http/handler@0.3.0"];
        assert_eq!(needed(&format!("{types} {called}")), both);
        assert_eq!(needed(r#"(import "a:b/c" (instance))"#), [""; 0]);
        let resource = r#"(import "a:b/c" (instance (export "r" (type (sub resource)))))"#;
        assert_eq!(needed(resource), ["a:b/c"]);
        assert_eq!(needed(r#"(import "f" (func))"#), ["f"]);
    }

    /// Types that the component declares itself, imports or exports count in the order of all types.
    #[test]
    fn the_type_of_an_import_is_found_after_other_types() {
        let before = r#"(type $only (instance)) (type $n u8)
            (import "plain" (type $plain (eq $n))) (export $again "exported" (type $n))
            (type $f (instance (export "f" (func))))"#;
        let imports =
            r#"(import "a:b/only" (instance (type $only))) (import "a:b/f" (instance (type $f)))"#;
        assert_eq!(needed(&format!("{before} {imports}")), ["plain", "a:b/f"]);
    }
}
