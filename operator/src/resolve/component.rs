//! Inspects the imports and exports of a component, from its outermost level. Components are not validated or
//! compiled here: nodes do that, in a process that may crash.

use std::borrow::Cow;
use std::collections::BTreeSet;

use node_api::component::Interfaces;
use node_api::world::World;

use super::{Failure, ResolveError};

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
    let found = Interfaces::read(bytes).map_err(|error| refuse(error.to_string()))?;
    let all = |names: &[Cow<'_, str>]| names.iter().map(|name| bounded(name)).collect();
    Ok(Inspection {
        imports: all(&found.imports),
        exports: all(&found.exports),
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

    /// HG-12: the names come from the component.
    #[test]
    fn hg_12_names_are_bounded_and_in_lower_case() {
        let long = "x".repeat(2 * MAX_NAME);
        let text = format!(r#"(component (import "{long}" (func)) (import "FUNC" (func)))"#);
        let found = inspect(&wat::parse_str(text).unwrap()).unwrap();
        let expected = [long[..MAX_NAME].to_owned(), "func".to_owned()];
        assert_eq!(found.imports, BTreeSet::from(expected));
    }

    #[test]
    fn an_empty_component_has_no_world() {
        let found = inspect(b"\0asm\x0d\0\x01\0").unwrap();
        assert_eq!(found, Inspection::default());
        assert_eq!(found.world(), None);
    }
}
