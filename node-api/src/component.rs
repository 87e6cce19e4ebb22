//! Names of the interfaces of a component, read from the sections of its outermost level in microseconds. Nothing is
//! validated or compiled. Operator and nodes read them with the same code, so both see the same imports.

use std::borrow::Cow;

use wasmparser::{
    BinaryReaderError, ComponentAlias, ComponentExternName, ComponentExternalKind,
    ComponentOuterAliasKind, ComponentType, ComponentTypeRef, Encoding, InstanceTypeDeclaration,
    Parser, Payload, TypeBounds,
};

use crate::world::{World, is_needed};

/// Maximum depth of components and modules inside a component. Composed components have a few levels.
pub const MAX_DEPTH: usize = 100;
/// Maximum number of imports, and of exports.
const MAX_NAMES: usize = 1000;

/// Names of the interfaces on the outermost level of a component. They are not trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces<'a> {
    /// Imports that a node has to offer, for example `wasi:io/streams@0.2.6`. One with attributes is written as in the text
    /// format, for example `cache (implements "acme:cache/store@1.0.0")`; nodes offer none.
    pub imports: Vec<Cow<'a, str>>,
    /// Exported interfaces, written like the imports.
    pub exports: Vec<Cow<'a, str>>,
}

/// Why the interfaces of a component cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InterfacesError {
    /// The bytes are a core module.
    #[error(
        "the file is a core module, not a component: build it for the target wasm32-wasip2, or make a component of it with `wasm-tools component new`"
    )]
    CoreModule,
    /// The component exceeds a limit.
    #[error(
        "components are nested more than {MAX_DEPTH} deep, or the component has more than {MAX_NAMES} imports or exports"
    )]
    TooMany,
    /// The bytes are not a component, or are damaged.
    #[error("the component is damaged: {0}")]
    Damaged(#[from] BinaryReaderError),
}

// === impl Interfaces ===

impl<'a> Interfaces<'a> {
    /// Reads the names.
    ///
    /// # Errors
    /// Returns an error when the bytes are no component, are damaged, or exceed a limit.
    pub fn read(bytes: &'a [u8]) -> Result<Self, InterfacesError> {
        let (mut found, mut types, mut depth) = (Self::default(), Types::default(), 0_usize);
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version {
                    encoding: Encoding::Module,
                    ..
                } if depth == 0 => return Err(InterfacesError::CoreModule),
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                section if depth == 0 => found.read_section(section, &mut types)?,
                _ => {}
            }
            if depth > MAX_DEPTH {
                return Err(InterfacesError::TooMany);
            }
        }
        Ok(found)
    }

    /// Reads a section of the outermost level.
    fn read_section(
        &mut self,
        section: Payload<'a>,
        types: &mut Types,
    ) -> Result<(), InterfacesError> {
        match section {
            Payload::ComponentTypeSection(section) => {
                for declared in section {
                    types.only_types.push(has_only_types(&declared?));
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    types.add_other_if(is_type(&alias?));
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    types.add_other_if(matches!(import.ty, ComponentTypeRef::Type(_)));
                    let name = written(import.name);
                    // nodes refuse attributes whatever their import is
                    let has_attributes = matches!(name, Cow::Owned(_));
                    if has_attributes || is_needed(&name, types.are_all_of(import.ty)) {
                        add(&mut self.imports, name)?;
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    types.add_other_if(export.kind == ComponentExternalKind::Type);
                    if export.kind == ComponentExternalKind::Instance {
                        add(&mut self.exports, written(export.name))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns the world that the component can run in; `None` when it exports no handler that a node can call.
    #[must_use]
    pub fn world(&self) -> Option<World> {
        let imports = self.imports.iter().map(Cow::as_ref);
        World::of(imports, self.exports.iter().map(Cow::as_ref))
    }
}

/// Returns a name as the text format writes it, which is without spaces unless it has attributes. Attributes are part of it
/// because the engine of nodes refuses them: the name alone may be one that nodes offer.
fn written(name: ComponentExternName<'_>) -> Cow<'_, str> {
    let attributes = [
        ("implements", name.implements),
        ("version-suffix", name.version_suffix),
        ("external-id", name.external_id),
    ];
    let mut text = Cow::Borrowed(name.name);
    for (attribute, value) in attributes {
        if let Some(value) = value {
            text = Cow::Owned(format!("{text} ({attribute} \"{value}\")"));
        }
    }
    text
}

fn add<'a>(names: &mut Vec<Cow<'a, str>>, name: Cow<'a, str>) -> Result<(), InterfacesError> {
    if names.len() == MAX_NAMES {
        return Err(InterfacesError::TooMany);
    }
    names.push(name);
    Ok(())
}

/// The types of the outermost level, in the order of their indices.
#[derive(Default)]
struct Types {
    /// Whether the type is that of an instance with nothing but types.
    only_types: Vec<bool>,
}

// === impl Types ===

impl Types {
    /// Adds a type that is no declared instance, if there is one.
    fn add_other_if(&mut self, is_type: bool) {
        self.only_types.extend(is_type.then_some(false));
    }

    /// Returns whether an import of this type is an instance with nothing but types.
    fn are_all_of(&self, import: ComponentTypeRef) -> bool {
        let ComponentTypeRef::Instance(index) = import else {
            return false;
        };
        let only_types = self.only_types.get(index as usize);
        only_types.copied().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn component(items: &str) -> Vec<u8> {
        wat::parse_str(format!("(component {items})")).unwrap()
    }

    /// Returns the names of the imports of a component that a node has to offer.
    fn needed(items: &str) -> Vec<String> {
        let bytes = component(items);
        let found = Interfaces::read(&bytes).unwrap();
        found.imports.into_iter().map(Cow::into_owned).collect()
    }

    /// A node has to offer functions and resources, and what it offers is listed whatever a component takes from it.
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
        let offered = r#"(import "wasi:clocks/types@0.3.0" (instance))"#;
        assert_eq!(needed(offered), ["wasi:clocks/types@0.3.0"]);
        let resource = r#"(import "a:b/c" (instance (export "r" (type (sub resource)))))"#;
        assert_eq!(needed(resource), ["a:b/c"]);
        let list = r#"(import "a:b/c" (instance (type $r (list u8)) (export "r" (type (eq $r)))))"#;
        assert_eq!(needed(list), [""; 0]);
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

    /// Nodes refuse each of these imports, also where its name alone is one that they offer, or it has nothing but types.
    #[test]
    fn an_import_with_attributes_is_written_with_them() {
        for import in [
            r#"cache (implements "wasi:keyvalue/store@0.2.0-draft2")"#,
            r#"wasi:http/types@0.2 (version-suffix ".9")"#,
            r#"wasi:http/types@0.2.9 (external-id "a")"#,
            r#"cache (implements "a:b/c@1") (version-suffix ".2.3") (external-id "a")"#,
        ] {
            let (name, attributes) = import.split_once(' ').unwrap();
            let bytes = component(&format!(r#"(import "{name}" {attributes} (instance))"#));
            let found = Interfaces::read(&bytes).unwrap();
            assert_eq!(found.imports, [import]);
            let handler = ["wasi:http/handler@0.3.0"];
            assert_eq!(
                crate::world::mismatches(&found.imports, &handler.map(Cow::Borrowed)),
                [format!("imports {import}, which no node offers")]
            );
        }
        let handler = r#"wasi:http/handler@0.3 (version-suffix ".0")"#;
        let (name, attributes) = handler.split_once(' ').unwrap();
        let bytes = component(&format!(
            r#"(instance $i) (export "{name}" {attributes} (instance $i))"#
        ));
        let found = Interfaces::read(&bytes).unwrap();
        assert_eq!(found.exports, [handler]);
        assert_eq!(found.world(), None);
    }

    #[test]
    fn the_names_are_those_of_instances_on_the_outermost_level() {
        let bytes = component(
            r#"(component (import "inner" (func)) (core module (import "a" "b" (func))))
            (type $n u8) (export "n" (type $n))
            (instance $i) (export "wasi:http/handler@0.3.0" (instance $i))"#,
        );
        let found = Interfaces::read(&bytes).unwrap();
        assert_eq!(found.imports, [""; 0]);
        assert_eq!(found.exports, ["wasi:http/handler@0.3.0"]);
        assert_eq!(found.world(), Some(World::Service));
        let empty = component("");
        let found = Interfaces::read(&empty).unwrap();
        assert_eq!((found.world(), found), (None, Interfaces::default()));
    }

    /// HG-10: everything but a component is refused.
    #[test]
    fn hg_10_modules_and_damaged_bytes_are_refused() {
        let refused = |bytes: &[u8]| Interfaces::read(bytes).unwrap_err();
        let module = wat::parse_str("(module)").unwrap();
        assert!(matches!(refused(&module), InterfacesError::CoreModule));
        for bytes in [b"hello".as_slice(), b"\0asm\x0d\0\x01\0\x07\xff"] {
            let error = refused(bytes);
            assert!(matches!(error, InterfacesError::Damaged(_)), "{error}");
        }
    }

    /// HG-4, HG-12: neither the depth nor the number of names is decided by the component.
    #[test]
    fn hg_12_depth_and_numbers_are_bounded() {
        let nested = |levels: usize| {
            (0..levels).fold(component(""), |inner, _| {
                let mut outer = component("");
                // a section with a component, whose length has seven bits in a byte
                let (low, high) = (inner.len() & 0x7f, inner.len() >> 7);
                outer.extend([4, low as u8 | 0x80, high as u8]);
                outer.extend(inner);
                outer
            })
        };
        let imports = |count: usize| {
            let import = |number| format!(r#"(import "f{number}" (func))"#);
            component(&(0..count).map(import).collect::<String>())
        };
        for (fits, exceeds) in [
            (nested(MAX_DEPTH), nested(MAX_DEPTH + 1)),
            (imports(MAX_NAMES), imports(MAX_NAMES + 1)),
        ] {
            assert!(Interfaces::read(&fits).is_ok());
            let error = Interfaces::read(&exceeds).unwrap_err();
            assert!(matches!(error, InterfacesError::TooMany), "{error}");
        }
    }
}
