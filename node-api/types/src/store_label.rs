//! Labels by which components open key-value stores.
//!
//! A component has the label in its source, so a label may be any name that toolchains, templates and other hosts use, also
//! the empty one.
//!
//! ```
//! use node_api_types::store_label::{field, is_label};
//!
//! assert!(is_label("in_memory") && is_label(""));
//! assert!(!is_label("two words"));
//! assert_eq!(field("carts"), "spec.keyValue[carts]");
//! assert_eq!(field(""), r#"spec.keyValue[""]"#);
//! ```

/// Maximum length of a label, in bytes.
pub const MAX_LABEL: usize = 63;
/// Regular expression of a label whose length is checked separately. It is the same in the syntaxes of RE2 and Rust.
pub const FORM: &str = "^[-A-Za-z0-9_./:]*$";
/// How to mend a text that is not a label.
pub const RULE: &str = "use at most 63 letters, digits and the characters - _ . / :";

/// Returns whether components can open a store by this text.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    text.len() <= MAX_LABEL && text.bytes().all(allowed)
}

/// Returns the path of the store with a label in an `EdgeFunction`, for messages. The empty label is in quotes.
#[must_use]
pub fn field(label: &str) -> String {
    let label = if label.is_empty() { r#""""# } else { label };
    format!("spec.keyValue[{label}]")
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn labels_are_names_that_components_open() {
        let longest = "l".repeat(MAX_LABEL);
        for label in [
            "",
            "default",
            "in_memory",
            "in-memory",
            "Cart",
            "0",
            "_",
            "-a-",
            ".",
            "/",
            "a.b",
            "wasmcloud:kv/store",
            "https://vault.example/v1",
            longest.as_str(),
        ] {
            assert!(is_label(label), "{label:?}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "l".repeat(MAX_LABEL + 1);
        for text in [
            " ", "a b", "a\n", "a\0", "a=b", "a#1", "a,b", "a*", "\"\"", "a]", "{a}", "\u{e9}",
            "\u{430}", &long,
        ] {
            assert!(!is_label(text), "{text:?}");
        }
    }

    /// The API server checks the length and this form.
    #[test]
    fn the_form_accepts_the_bytes_of_labels() {
        let form = Regex::new(FORM).unwrap();
        assert!(form.is_match(""));
        for code in 0..0x250_u32 {
            let text = char::from_u32(code).unwrap().to_string();
            for text in [text.clone(), format!("a{text}")] {
                assert_eq!(form.is_match(&text), is_label(&text), "{text:?}");
            }
        }
        assert!(RULE.contains(&MAX_LABEL.to_string()));
    }
}
