//! A first look at a component's bytes, before the compiler spends anything on them.

use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use super::Reason;

/// This many functions or types are a bomb, not a program.
const MAX_FUNCTIONS: u64 = 100_000;
const MAX_TYPES: u64 = 50_000;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
const WASM: &[u8] = b"\0asm";
const ELF: &[u8] = b"\x7fELF";

/// Refuses by the first bytes whatever is not a component in binary form. Native code comes from
/// nobody but this node's own compiler, so ELF, in which it travels, is refused like text.
pub(super) fn magic(bytes: &[u8]) -> Result<(), (Reason, String)> {
    let refuse = |what: &str| Err((Reason::NotAComponent, what.to_string()));
    match bytes {
        [] => refuse("the file is empty"),
        _ if bytes.starts_with(COMPONENT) => Ok(()),
        _ if bytes.starts_with(CORE_MODULE) => refuse("a core module, not a component"),
        _ if bytes.starts_with(ELF) => refuse("native code; only WebAssembly components are taken"),
        _ if bytes.starts_with(WASM) => refuse("a WebAssembly binary of an unknown version"),
        _ if bytes
            .iter()
            .take(64)
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) =>
        {
            refuse("text; only the binary form is taken")
        }
        _ => refuse("not a WebAssembly component"),
    }
}

/// Refuses sizes that only a bomb has; reads section headers, not bodies.
pub(super) fn counts(bytes: &[u8]) -> Result<(), (Reason, String)> {
    let (mut functions, mut types) = (0u64, 0u64);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| (Reason::CompileFailed, error.to_string()))? {
            Payload::FunctionSection(section) => functions += u64::from(section.count()),
            Payload::TypeSection(section) => types += u64::from(section.count()),
            Payload::ComponentTypeSection(section) => types += u64::from(section.count()),
            Payload::CoreTypeSection(section) => types += u64::from(section.count()),
            _ => {}
        }
        if functions >= MAX_FUNCTIONS {
            let message =
                format!("{functions} functions or more; fewer than {MAX_FUNCTIONS} are taken");
            return Err((Reason::CompileLimit, message));
        }
        if types >= MAX_TYPES {
            let message = format!("{types} types or more; fewer than {MAX_TYPES} are taken");
            return Err((Reason::CompileLimit, message));
        }
    }
    Ok(())
}

/// Whether the bytes would be valid if every proposal were on: then what the compiler refused is a
/// feature and not a defect.
pub(super) fn valid_with_everything(bytes: &[u8]) -> bool {
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(bytes)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HG-10
    #[test]
    fn only_a_binary_component_passes_by_its_first_bytes() {
        assert_eq!(magic(COMPONENT), Ok(()));
        let refused: [&[u8]; 7] = [
            b"",
            CORE_MODULE,
            b"\x7fELF\x02\x01",
            b"(component)",
            b"  (module)",
            b"\0asm\x0e\0\x01\0",
            b"\x80\x81\x82",
        ];
        for bytes in refused {
            assert_eq!(
                magic(bytes).unwrap_err().0,
                Reason::NotAComponent,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn numbers_of_functions_and_types_are_bounded() {
        let functions = "(func)".repeat(100_000);
        let bomb = wat::parse_str(format!("(component (core module {functions}))")).unwrap();
        assert_eq!(counts(&bomb).unwrap_err().0, Reason::CompileLimit);
        let few = wat::parse_str("(component (core module (func)))").unwrap();
        assert_eq!(counts(&few), Ok(()));
        assert_eq!(
            counts(&few[..few.len() - 3]).unwrap_err().0,
            Reason::CompileFailed
        );
    }

    #[test]
    fn a_feature_is_told_from_a_defect() {
        let threads = wat::parse_str("(component (core module (memory 1 2 shared)))").unwrap();
        assert!(valid_with_everything(&threads));
        let mut broken = threads;
        let last = broken.len() - 1;
        broken[last] ^= 0xff;
        assert!(!valid_with_everything(&broken));
    }
}
