//! Check of a component's imports and exports before compilation, which takes seconds for a component of some
//! megabytes.

use node_api::component::{Interfaces, InterfacesError};
use node_api::world;

use super::{ErrorReport, RejectReason};
use crate::engine::LoadError;

/// Rejects components that do not fit a world that nodes offer, and names everything that does not fit. Reads the
/// sections of the outermost level. Types are compared when the native code is linked.
pub(super) fn check_world(bytes: &[u8]) -> Result<(), ErrorReport> {
    let found = match Interfaces::read(bytes) {
        Ok(found) => found,
        Err(error @ InterfacesError::TooMany) => {
            return Err(ErrorReport::new(RejectReason::CompileLimit, error));
        }
        // the compiler names the defect of damaged bytes
        Err(InterfacesError::CoreModule | InterfacesError::Damaged(_)) => return Ok(()),
    };
    let mismatches = world::mismatches(&found.imports, &found.exports);
    if mismatches.is_empty() {
        return Ok(());
    }
    Err(ErrorReport::new(
        RejectReason::WorldMismatch,
        LoadError::WorldMismatch(mismatches),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANDLER: &str = "(component $c) (instance $i (instantiate $c))
        (export \"wasi:http/incoming-handler@0.2.9\" (instance $i))";

    fn check(items: &str) -> Result<(), ErrorReport> {
        check_world(&wat::parse_str(format!("(component {items})")).unwrap())
    }

    /// HG-12: the message lists all that does not fit.
    #[test]
    fn hg_12_everything_that_does_not_fit_is_listed() {
        let offered = "(import \"wasi:filesystem/types@0.2.3\" (instance))";
        assert_eq!(check(&format!("{offered} {HANDLER}")), Ok(()));
        let refused = check(&format!(
            "(import \"acme:store/all@1.0.0\" (instance (export \"get\" (func)))) {offered} (import \"other\" (func))"
        ));
        let expected = "the component does not fit the world wasi:http/proxy@0.2 or wasi:http/service@0.3: \
            imports acme:store/all@1.0.0, other, which no node offers; \
            lacks the export wasi:http/incoming-handler@0.2 or wasi:http/handler@0.3";
        assert_eq!(
            refused,
            Err(ErrorReport::new(RejectReason::WorldMismatch, expected))
        );
    }

    /// HG-12: components inside are instantiated with what the outer one has.
    #[test]
    fn hg_12_only_the_outermost_level_counts() {
        let inner =
            "(component (import \"inner\" (func)) (core module (import \"a\" \"b\" (func))))";
        assert_eq!(check(&format!("{inner} {HANDLER}")), Ok(()));
        let hidden = format!("(component {HANDLER})");
        assert_eq!(
            check(&hidden).unwrap_err().reason,
            RejectReason::WorldMismatch
        );
    }

    /// HG-12: so many names are not even counted.
    #[test]
    fn hg_12_too_many_imports_are_refused_before_the_component_is_compiled() {
        let imports = (0..1001).map(|number| format!("(import \"f{number}\" (func))"));
        let refused = check(&imports.collect::<String>());
        assert_eq!(refused.unwrap_err().reason, RejectReason::CompileLimit);
    }

    /// HG-9: damaged bytes are left to the compiler.
    #[test]
    fn hg_9_damaged_bytes_are_no_mismatch() {
        let text = format!("(component (import \"other\" (func)) {HANDLER})");
        let whole = wat::parse_str(text).unwrap();
        assert!(check_world(&whole).is_err());
        assert_eq!(check_world(&whole[..whole.len() - 3]), Ok(()));
    }
}
