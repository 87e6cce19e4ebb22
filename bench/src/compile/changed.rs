//! A changed version of a component whose program is data, such as one in JavaScript or Python.

use anyhow::{Context, Result};
use wasmparser::{Parser, Payload};

/// Returns the component with another byte at the end of its largest data segment. Toolchains of interpreted languages store
/// the memory of the initialised interpreter there, with the program, so an edit of the program changes data and no functions.
///
/// # Errors
/// Returns an error when the input is not a valid component or has no data.
pub(super) fn with_changed_data(component: &[u8]) -> Result<Vec<u8>> {
    let (mut largest, mut last) = (0, None);
    for payload in Parser::new(0).parse_all(component) {
        let Payload::DataSection(segments) = payload? else {
            continue;
        };
        for segment in segments {
            let segment = segment?;
            if segment.data.len() > largest {
                largest = segment.data.len();
                last = segment.range.end.checked_sub(1);
            }
        }
    }
    let mut changed = component.to_vec();
    let byte = last.and_then(|last| changed.get_mut(last));
    *byte.context("the component has no data to change")? ^= 1;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_of_the_largest_data_segment_changes() {
        let with = |source: &str| {
            let data = format!("(data (i32.const 0) \"short\") (data (i32.const 16) \"{source}\")");
            let modules = "(core module) (core module (memory 1)";
            wat::parse_str(format!("(component {modules} {data}))")).unwrap()
        };
        let changed = with_changed_data(&with("the program `")).unwrap();
        assert!(changed == with("the program a"));
        let empty = wat::parse_str("(component (core module))").unwrap();
        assert!(with_changed_data(&empty).is_err());
        assert!(with_changed_data(b"text").is_err());
    }
}
