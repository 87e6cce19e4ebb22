//! Cheap checks of a component's bytes before compilation.

use node_api::component::{InterfacesError, MAX_DEPTH};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use super::{ErrorReport, RejectReason};

/// Number of functions from which a component is rejected; real programs have far fewer.
const MAX_FUNCTIONS: u64 = 100_000;
const MAX_TYPES: u64 = 50_000;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
const WASM: &[u8] = b"\0asm";
const ELF: &[u8] = b"\x7fELF";

/// Rejects input that is not a component in binary form by its first bytes. Native code is never accepted
/// as input, so ELF files are rejected too.
pub(super) fn check_magic(bytes: &[u8]) -> Result<(), ErrorReport> {
    let refuse = |what: &str| Err(ErrorReport::new(RejectReason::NotAComponent, what));
    match bytes {
        [] => refuse("the file is empty"),
        _ if bytes.starts_with(COMPONENT) => Ok(()),
        _ if bytes.starts_with(CORE_MODULE) => refuse(&InterfacesError::CoreModule.to_string()),
        _ if bytes.starts_with(ELF) => {
            refuse("the file is native code, not a WebAssembly component")
        }
        _ if bytes.starts_with(WASM) => {
            refuse("the file is a WebAssembly binary of an unknown version")
        }
        _ if bytes
            .iter()
            .take(64)
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) =>
        {
            refuse("the file is text, not a WebAssembly component in binary form")
        }
        _ => refuse("the file is not a WebAssembly component"),
    }
}

/// Rejects components with excessive numbers of functions or types or excessive nesting. Reads section
/// headers only.
pub(super) fn check_sizes(bytes: &[u8]) -> Result<(), ErrorReport> {
    let (mut functions, mut types, mut depth) = (0u64, 0u64, 0_usize);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| ErrorReport::new(RejectReason::CompileFailed, error))? {
            Payload::FunctionSection(section) => functions += u64::from(section.count()),
            Payload::TypeSection(section) => types += u64::from(section.count()),
            Payload::ComponentTypeSection(section) => types += u64::from(section.count()),
            Payload::CoreTypeSection(section) => types += u64::from(section.count()),
            Payload::ComponentSection { .. } | Payload::ModuleSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            let message = format!("components are nested {depth} deep; the limit is {MAX_DEPTH}");
            return Err(ErrorReport::new(RejectReason::CompileLimit, message));
        }
        if functions >= MAX_FUNCTIONS {
            let message = format!(
                "the component has at least {functions} functions; the limit is {}",
                MAX_FUNCTIONS - 1
            );
            return Err(ErrorReport::new(RejectReason::CompileLimit, message));
        }
        if types >= MAX_TYPES {
            let message = format!(
                "the component has at least {types} types; the limit is {}",
                MAX_TYPES - 1
            );
            return Err(ErrorReport::new(RejectReason::CompileLimit, message));
        }
    }
    Ok(())
}

/// Returns whether the bytes would be valid with all WebAssembly features enabled. If so, the compiler
/// rejected a disabled feature and not a defect.
pub(super) fn is_valid_with_all_features(bytes: &[u8]) -> bool {
    Validator::new_with_features(WasmFeatures::all())
        .validate_all(bytes)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use node_api::component::Interfaces;

    use super::*;

    /// HG-10: core modules, ELF, text and empty files are recognised by their first bytes.
    #[test]
    fn only_a_binary_component_passes() {
        assert_eq!(check_magic(COMPONENT), Ok(()));
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
                check_magic(bytes).unwrap_err().reason,
                RejectReason::NotAComponent,
                "{bytes:?}"
            );
        }
    }

    /// HG-8: checked before compilation.
    #[test]
    fn the_number_of_functions_is_bounded() {
        let functions = "(func)".repeat(100_000);
        let bomb = wat::parse_str(format!("(component (core module {functions}))")).unwrap();
        assert_eq!(
            check_sizes(&bomb).unwrap_err().reason,
            RejectReason::CompileLimit
        );
        let few = wat::parse_str("(component (core module (func)))").unwrap();
        assert_eq!(check_sizes(&few), Ok(()));
        assert_eq!(
            check_sizes(&few[..few.len() - 3]).unwrap_err().reason,
            RejectReason::CompileFailed
        );
    }

    /// HG-4: many siblings do not count as depth. The limit is that of the operator, which accepts what nodes compile.
    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| {
            (0..levels).fold(COMPONENT.to_vec(), |inner, _| {
                let low = u8::try_from(inner.len() & 0x7f).unwrap() | 0x80;
                let length = [low, u8::try_from(inner.len() >> 7).unwrap()];
                [COMPONENT, &[4], &length, &inner].concat()
            })
        };
        let deepest = nested(MAX_DEPTH);
        assert_eq!(check_sizes(&deepest), Ok(()));
        assert!(Interfaces::read(&deepest).is_ok());
        assert!(is_valid_with_all_features(&deepest));
        let deeper = nested(MAX_DEPTH + 1);
        let ErrorReport { reason, message } = check_sizes(&deeper).unwrap_err();
        assert_eq!(reason, RejectReason::CompileLimit);
        assert!(message.contains("101 deep"), "{message}");
        let error = Interfaces::read(&deeper).unwrap_err();
        assert!(matches!(error, InterfacesError::TooMany), "{error}");
        let modules = "(core module (func))".repeat(200);
        let broad = wat::parse_str(format!("(component {modules})")).unwrap();
        assert_eq!(check_sizes(&broad), Ok(()));
    }

    /// HG-11: the reason distinguishes a disabled feature from a defect.
    #[test]
    fn a_disabled_feature_is_distinguished_from_a_defect() {
        let threads = wat::parse_str("(component (core module (memory 1 2 shared)))").unwrap();
        assert!(is_valid_with_all_features(&threads));
        let mut broken = threads;
        let last = broken.len() - 1;
        broken[last] ^= 0xff;
        assert!(!is_valid_with_all_features(&broken));
    }

    /// HG-9: no input causes a panic. (The tests of the compiler process, which may die of its input, give
    /// a few of them to the compiler itself.)
    #[test]
    fn hg_9_mutated_components_are_inspected_without_a_panic() {
        let text = "(component
            (core module $m (type (func (param i32) (result i32))) (memory 1)
              (func (type 0) (i32.add (local.get 0) (i32.const 1))) (export \"f\" (func 0)))
            (core instance $i (instantiate $m))
            (type $r (record (field \"a\" u8) (field \"b\" (list string))))
            (func (export \"f\") (param \"x\" u32) (result u32) (canon lift (core func $i \"f\"))))";
        let good = wat::parse_str(text).unwrap();
        assert_eq!(check_sizes(&good), Ok(()));
        let mut state = 1_u64;
        let mut below = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % bound
        };
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..10_000 {
            let mut bytes = good.clone();
            for _ in 0..=below(4) {
                let at = below(bytes.len());
                match below(4) {
                    0 => bytes[at] = u8::try_from(below(256)).unwrap(),
                    1 => bytes[at] ^= 1 << below(8),
                    2 => bytes.truncate(at + 1),
                    _ => bytes.insert(at, u8::try_from(below(256)).unwrap()),
                }
            }
            let looked = check_magic(&bytes).and_then(|()| check_sizes(&bytes));
            is_valid_with_all_features(&bytes);
            *if looked.is_ok() {
                &mut taken
            } else {
                &mut refused
            } += 1;
        }
        assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
    }
}
