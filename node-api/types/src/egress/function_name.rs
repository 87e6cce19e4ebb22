//! Names by which functions call each other: `<function>.<namespace>.selvage.internal`. They exist only between functions:
//! nodes neither resolve them nor serve clients by them.
//!
//! ```
//! use node_api_types::FunctionKey;
//! use node_api_types::egress::{called_function, function_name};
//!
//! let prices = FunctionKey::new("shop", "prices");
//! assert_eq!(function_name(&prices), "prices.shop.selvage.internal");
//! assert_eq!(called_function("prices.shop.selvage.internal"), Some(prices));
//! assert_eq!(called_function("prices.selvage.internal"), None);
//! ```

use crate::FunctionKey;

/// Domain of the names of functions.
pub const FUNCTION_DOMAIN: &str = "selvage.internal";
/// Maximum length of a label, in bytes.
const MAX_LABEL: usize = 63;

/// Returns whether a name, in lower case and without a trailing dot, is in the domain of functions.
#[must_use]
pub fn is_function_domain(name: &str) -> bool {
    name.strip_suffix(FUNCTION_DOMAIN)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Returns the function that a name in the domain of functions stands for; `None` when it stands for none.
#[must_use]
pub fn called_function(name: &str) -> Option<FunctionKey> {
    let labels = name.strip_suffix(FUNCTION_DOMAIN)?.strip_suffix('.')?;
    let (function, namespace) = labels.split_once('.')?;
    function_key(namespace, function)
}

/// Returns the name by which other functions call a function.
#[must_use]
pub fn function_name(function: &FunctionKey) -> String {
    format!("{}.{}.{FUNCTION_DOMAIN}", function.name, function.namespace)
}

/// Returns the key with these names, in lower case, if both are DNS labels.
pub(super) fn function_key(namespace: &str, name: &str) -> Option<FunctionKey> {
    let (namespace, name) = (namespace.to_ascii_lowercase(), name.to_ascii_lowercase());
    (is_label(&namespace) && is_label(&name)).then(|| FunctionKey::new(namespace, name))
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
