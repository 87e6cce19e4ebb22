//! What a file contains, as far as it matters before a push, and the description of a component in a registry. Pure.

use serde::Serialize;
use wasmparser::{ComponentExternalKind, Parser, Payload, Validator, WasmFeatures};

/// Largest component in bytes that operator and nodes accept: 50 MiB.
const MAX_SIZE: usize = 50 << 20;
/// Starts of the names of the interfaces that nodes call.
const HANDLERS: [&str; 2] = ["wasi:http/incoming-handler@0.2.", "wasi:http/handler@0.3."];

/// Names of the interfaces on the outermost level of a component.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Interfaces {
    exports: Vec<String>,
    imports: Vec<String>,
}

/// Configuration of the image of a component, as the WebAssembly working group of the CNCF specifies it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    layer_digests: [&'a str; 1],
    component: &'a Interfaces,
}

/// Reads the interfaces of a component.
///
/// # Errors
/// The file is not a component that a node can send requests to. The text continues a sentence about the file.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Interfaces, String> {
    if bytes.is_empty() {
        return Err("is empty.".to_owned());
    }
    if !bytes.starts_with(b"\0asm") {
        return Err("is not WebAssembly.".to_owned());
    }
    if Parser::is_core_wasm(bytes) {
        return Err(
            "is a core module, not a component. Build it for the target wasm32-wasip2, or make a component of it: \
             wasm-tools component new."
                .to_owned(),
        );
    }
    if bytes.len() > MAX_SIZE {
        let size = bytes.len();
        return Err(format!(
            "has {size} bytes, and a component has at most {MAX_SIZE}."
        ));
    }
    let damaged = |error| format!("is damaged: {error}.");
    // nodes decide which features they offer; here a file must only be whole
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(bytes)
        .map_err(damaged)?;
    let found = interfaces(bytes).map_err(damaged)?;
    let is_handler = |name: &String| HANDLERS.iter().any(|handler| name.starts_with(handler));
    if !found.exports.iter().any(is_handler) {
        let exports = match found.exports.as_slice() {
            [] => "nothing".to_owned(),
            exports => exports.join(", "),
        };
        return Err(format!(
            "does not export wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3, so nodes cannot send it requests. \
             It exports {exports}."
        ));
    }
    Ok(found)
}

fn interfaces(bytes: &[u8]) -> wasmparser::Result<Interfaces> {
    let mut found = Interfaces::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    found.imports.push(import?.name.full_name().to_string());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    let export = export?;
                    if export.kind == ComponentExternalKind::Instance {
                        found.exports.push(export.name.full_name().to_string());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Returns the configuration of the image that has the component in the layer `digest`. Its time is fixed, so that the
/// same component always has the same digest, and pushing it again is no new revision.
pub(crate) fn configuration(component: &Interfaces, digest: &str) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Description {
        created: "1970-01-01T00:00:00Z",
        architecture: "wasm",
        os: "wasip2",
        layer_digests: [digest],
        component,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        inspect(&wat::parse_str(text).unwrap()).unwrap_err()
    }

    #[test]
    fn a_component_with_a_handler_is_accepted_with_its_interfaces() {
        let text = r#"(component
            (import "wasi:io/error@0.2.6" (instance))
            (component (instance $i) (export "inner:not/seen" (instance $i)))
            (instance $handler)
            (export "wasi:http/incoming-handler@0.2.3" (instance $handler)))"#;
        let found = inspect(&wat::parse_str(text).unwrap()).unwrap();
        assert_eq!(found.exports, ["wasi:http/incoming-handler@0.2.3"]);
        assert_eq!(found.imports, ["wasi:io/error@0.2.6"]);
    }

    #[test]
    fn a_component_of_wasi_0_3_is_accepted() {
        let text = r#"(component (instance $i) (export "wasi:http/handler@0.3.0" (instance $i)))"#;
        let found = inspect(&wat::parse_str(text).unwrap()).unwrap();
        assert_eq!(found.exports, ["wasi:http/handler@0.3.0"]);
    }

    #[test]
    fn everything_else_is_named_as_what_it_is() {
        assert_eq!(inspect(b"").unwrap_err(), "is empty.");
        assert_eq!(inspect(b"\x7fELF").unwrap_err(), "is not WebAssembly.");
        assert!(refused("(module)").starts_with("is a core module, not a component. "));
        assert!(refused("(component)").ends_with("It exports nothing."));
        let other = r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#;
        assert!(refused(other).ends_with("It exports wasi:cli/run@0.2.0."));
        let whole = wat::parse_str("(component (core module (func)))").unwrap();
        let cut = whole.get(..whole.len() - 2).unwrap();
        assert!(inspect(cut).unwrap_err().starts_with("is damaged: "));
    }

    #[test]
    fn the_configuration_is_that_of_the_specification() {
        let component = Interfaces {
            exports: vec!["a:b/c".to_owned()],
            imports: Vec::new(),
        };
        let bytes = configuration(&component, "sha256:0").unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            r#"{"created":"1970-01-01T00:00:00Z","architecture":"wasm","os":"wasip2","layerDigests":["sha256:0"],"component":{"exports":["a:b/c"],"imports":[]}}"#
        );
    }
}
