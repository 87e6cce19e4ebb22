//! Checks `egress.allow` with the code that nodes read it with, so that no node refuses what was accepted.

use crds::EdgeFunctionSpec;
use node_api::egress::{EgressEntry, MAX_ENTRIES};

use super::Violation;

const FIELD: &str = "spec.egress.allow";

/// Reads the entries of a function. Returns their canonical forms in ascending order, so that equal lists are equal however
/// they are written.
pub(super) fn read(spec: &EdgeFunctionSpec, violations: &mut Vec<Violation>) -> Vec<String> {
    let entries = spec.egress.iter().flat_map(|egress| &egress.allow);
    let mut canonical = Vec::new();
    for (index, entry) in entries.enumerate() {
        if index >= MAX_ENTRIES {
            let why = format!("a function has at most {MAX_ENTRIES} entries");
            violations.push(Violation::invalid(FIELD, entry, why));
            break;
        }
        match EgressEntry::parse(entry) {
            Ok(entry) => canonical.push(entry.to_string()),
            Err(error) => violations.push(Violation::invalid(
                format!("{FIELD}[{index}]"),
                entry,
                error,
            )),
        }
    }
    canonical.sort();
    canonical.dedup();
    canonical
}

#[cfg(test)]
mod tests {
    use crds::conditions::reasons;

    use super::super::tests::violations;
    use super::*;

    #[test]
    fn an_entry_that_no_node_could_read_is_named() {
        let found = violations("  egress: { allow: ['https://a.example', 'http://prices'] }");
        let expected = (reasons::INVALID_SPEC, "spec.egress.allow[1]".to_owned());
        assert_eq!(found, [expected]);
        let found = violations("  egress: { allow: ['http://169.254.169.254'] }");
        assert_eq!(found.len(), 1);
        let found = violations("  egress: { allow: ['http://prices.shop.selvage.internal'] }");
        assert_eq!(found.len(), 1);
        let accepted = "  egress: { allow: ['https://*.a.example', 'http://10.0.0.0/8:8080'] }";
        assert_eq!(violations(accepted), []);
        let many: Vec<String> = (0..65).map(|n| format!("https://a{n}.example")).collect();
        let many = format!("  egress: {{ allow: {many:?} }}");
        assert_eq!(
            violations(&many),
            [(reasons::INVALID_SPEC, FIELD.to_owned())]
        );
    }

    /// Whether a function of another namespace exists, and grants calls, decides nothing here: nodes check each call.
    #[test]
    fn calls_into_other_namespaces_are_accepted() {
        for (entry, reason) in [
            ("function://shop/prices", None),
            ("function://Shop/f", None),
            ("function://blog/prices", None),
            (
                "function://prices",
                Some((reasons::INVALID_SPEC, "spec.egress.allow[0]".to_owned())),
            ),
        ] {
            let found = violations(&format!("  egress: {{ allow: ['{entry}'] }}"));
            assert_eq!(found, Vec::from_iter(reason), "{entry}");
        }
    }

    #[test]
    fn entries_are_canonical() {
        let spec: EdgeFunctionSpec = serde_json::from_value(serde_json::json!({
            "source": { "image": "r.example/a:1" },
            "routes": [],
            "egress": { "allow": ["https://B.example:443", "https://a.example", "https://b.example", "function://SHOP/f"] },
        }))
        .unwrap();
        let mut violations = Vec::new();
        let read = read(&spec, &mut violations);
        let expected = [
            "function://shop/f",
            "https://a.example",
            "https://b.example",
        ];
        assert_eq!(read, expected);
        assert_eq!(violations, []);
    }
}
