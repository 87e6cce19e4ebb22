//! Names of the interfaces of a component, and the world that follows from them. They are read from the sections of the
//! outermost level, in microseconds and before anything is compiled.

use node_api::world::World;
use wasmparser::{Parser, Payload};

/// Names of what the outermost component imports and exports.
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
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        imports.push(import?.name.name);
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        exports.push(export?.name.name);
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

/// Returns the world of a component whose engine compiles it. That of the world `wasi:http/proxy` compiles what is damaged
/// or of no world, to name the defect.
pub(crate) fn world_to_compile(bytes: &[u8]) -> World {
    let names = InterfaceNames::read(bytes).ok();
    let world = names.and_then(|names| names.world());
    world.unwrap_or(World::Proxy)
}
