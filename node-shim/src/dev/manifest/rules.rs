//! Forms of texts in a manifest, with the messages of the definition of the kind, or of the operator. Pure.

use node_api::egress::EgressEntry;
use node_api::store_label;

/// Rules of one kind of text. Tests compare the messages with those of the definition.
pub(super) type Checked = Result<String, String>;

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

/// Returns the text, or the message of the first case that holds.
fn unless(text: &str, cases: &[(bool, &str)]) -> Checked {
    match cases.iter().find(|(holds, _)| *holds) {
        Some((_, message)) => Err((*message).to_owned()),
        None => Ok(text.to_owned()),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "has the form of the other rules")]
pub(super) fn any(text: &str) -> Checked {
    Ok(text.to_owned())
}

/// Returns whether a text has letters and digits in lower case and `-`, which is neither first nor last.
fn is_label(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inside = |byte| word(byte) || byte == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x");
    let hexadecimal =
        hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    hexadecimal || label.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn host(text: &str) -> Checked {
    if text == "*" {
        // refused with its reason, together with everything else that is wrong with the routes
        return any(text);
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    let labels = || name.split('.');
    let valid = text.len() <= 253 && labels().all(|label| label.len() <= 63 && is_label(label));
    unless(
        text,
        &[
            (
                text.contains('/'),
                "a host has no scheme and no path: write shop.example",
            ),
            (
                text.contains('['),
                "an IP address is not a host name: write a host name",
            ),
            (
                text.contains(':'),
                "a host has no port: write shop.example; requests to any port match",
            ),
            (
                text.bytes().any(|byte| byte.is_ascii_uppercase()),
                "write a host in lower case",
            ),
            (text.contains('_'), "a host has no underscore"),
            (text.ends_with('.'), "a host does not end with a dot"),
            (
                name.contains('*'),
                "a host has one wildcard at most, as its whole first label: *.shop.example",
            ),
            (
                labels().next_back().is_some_and(is_number) && !text.is_empty(),
                "the last label of a host must not be a number: an IP address is not a host name",
            ),
            (
                !valid,
                "a host has labels of letters, digits and '-' with dots between them, each label at most 63 characters",
            ),
        ],
    )
}

pub(super) fn path(text: &str) -> Checked {
    let dots = text.split('/').any(|segment| matches!(segment, "." | ".."));
    let lower = text.to_ascii_lowercase();
    let encoded = ["%2f", "%5c", "%00"]
        .iter()
        .any(|code| lower.contains(code));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte);
    unless(
        text,
        &[
            (!text.starts_with('/'), "a path begins with /"),
            (
                text.contains('?'),
                "a path has no query: write the part before ?",
            ),
            (
                text.contains('#'),
                "a path has no fragment: write the part before #",
            ),
            (
                text.contains("//"),
                "a path has no empty segment: write / once",
            ),
            (dots, "a path has no segment . or .."),
            (
                encoded,
                "a path has no encoded slash, backslash or zero byte",
            ),
            (
                !text.bytes().all(allowed) || text.len() > 1024,
                "a path has letters, digits and -._~!$&'()*+,;=:@%/ only: encode everything else",
            ),
        ],
    )
}

pub(super) fn method(text: &str) -> Checked {
    if METHODS.contains(&text) {
        return any(text);
    }
    Err(format!("write one of {}", METHODS.join(", ")))
}

pub(super) fn header_name(text: &str) -> Checked {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let wrong = text.is_empty() || text.len() > 256 || !text.bytes().all(token);
    unless(
        text,
        &[(
            wrong,
            "a header name has letters, digits and !#$%&'*+-.^_`|~ only",
        )],
    )
}

pub(super) fn variable_name(text: &str) -> Checked {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = text.bytes().next();
    let wrong = first.is_none_or(|byte| byte.is_ascii_digit())
        || text.len() > 256
        || !text.bytes().all(word);
    unless(
        text,
        &[(
            wrong,
            "the name of a variable has letters, digits and _, and does not start with a digit",
        )],
    )
}

pub(super) fn label(text: &str) -> Checked {
    unless(
        text,
        &[(
            text.len() > 63 || !is_label(text),
            "use lower case letters, digits and '-', first and last a letter or digit",
        )],
    )
}

pub(super) fn store_label(text: &str) -> Checked {
    unless(text, &[(!store_label::is_label(text), store_label::RULE)])
}

pub(super) fn name(text: &str) -> Checked {
    unless(
        text,
        &[(
            text.len() > 63 || !is_label(text),
            "the name of an EdgeFunction becomes a label: at most 63 lower case letters, digits and '-', first and last a letter or digit, no dots",
        )],
    )
}

pub(super) fn target(text: &str) -> Checked {
    match EgressEntry::parse(text) {
        Ok(entry) => Ok(entry.to_string()),
        Err(node_api::egress::EgressEntryError::Function) => Err(format!(
            "a call of another function ({text:?}) is not yet supported by this version"
        )),
        Err(error) => Err(error.to_string()),
    }
}
