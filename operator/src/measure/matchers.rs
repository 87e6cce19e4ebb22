//! Label matchers that select the series of the node-shims, as the administrator wrote them.
//!
//! They are parsed and written again, so that no other PromQL can be part of a query.

use std::fmt;
use std::iter::Peekable;
use std::str::{Chars, FromStr};

/// Longest accepted text in bytes.
const MAX_TEXT: usize = 4096;

/// Label matchers of PromQL, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matchers(Vec<Matcher>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Matcher {
    label: String,
    operator: &'static str,
    value: String,
}

/// Why a text is not a list of label matchers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; label matchers look like namespace=\"selvage-system\",pod=~\"selvage-node-shim-.+\"")]
pub struct InvalidMatchers(String);

impl Matchers {
    /// Selects the pods of the node-shims of the release in `namespace`. The labels `namespace` and `pod` are those of a
    /// PodMonitor, and of the usual discovery of pods by annotation.
    #[must_use]
    pub fn of_release(namespace: &str) -> Self {
        let matcher = |label: &str, operator, value: String| Matcher {
            label: label.to_owned(),
            operator,
            value,
        };
        Self(vec![
            matcher("namespace", "=", namespace.to_owned()),
            matcher("pod", "=~", "selvage-node-shim-.+".to_owned()),
        ])
    }
}

impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, matcher) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let Matcher {
                label,
                operator,
                value,
            } = matcher;
            write!(f, "{comma}{label}{operator}\"{}\"", quoted(value))?;
        }
        Ok(())
    }
}

/// Escapes a text for a string in double quotes.
pub(super) fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    text.replace('\n', "\\n")
}

impl FromStr for Matchers {
    type Err = InvalidMatchers;

    fn from_str(text: &str) -> Result<Self, InvalidMatchers> {
        let inner = text.trim();
        let inner = inner.strip_prefix('{').unwrap_or(inner);
        let inner = inner.strip_suffix('}').unwrap_or(inner);
        if text.len() > MAX_TEXT {
            return Err(InvalidMatchers(format!("longer than {MAX_TEXT} bytes")));
        }
        let mut chars = inner.chars().peekable();
        let mut matchers = Vec::new();
        loop {
            skip_spaces(&mut chars);
            if chars.peek().is_none() {
                return Ok(Self(matchers));
            }
            matchers.push(matcher(&mut chars)?);
            skip_spaces(&mut chars);
            match chars.next() {
                Some(',') | None => {}
                Some(other) => {
                    return Err(InvalidMatchers(format!("{other:?} instead of a comma")));
                }
            }
        }
    }
}

fn skip_spaces(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(char::is_ascii_whitespace).is_some() {}
}

fn matcher(chars: &mut Peekable<Chars<'_>>) -> Result<Matcher, InvalidMatchers> {
    let mut label = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        label.push(c);
    }
    if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(InvalidMatchers("the name of a label is missing".to_owned()));
    }
    if label == "__name__" {
        let text = "the names of the metrics cannot be selected";
        return Err(InvalidMatchers(text.to_owned()));
    }
    skip_spaces(chars);
    let operator = match (chars.next(), chars.next_if(|c| matches!(c, '=' | '~'))) {
        (Some('='), None) => "=",
        (Some('='), Some('~')) => "=~",
        (Some('!'), Some('=')) => "!=",
        (Some('!'), Some('~')) => "!~",
        _ => return Err(InvalidMatchers(format!("no operator after {label}"))),
    };
    skip_spaces(chars);
    let value = string(chars).ok_or_else(|| {
        InvalidMatchers(format!("no text in double quotes after {label}{operator}"))
    })?;
    Ok(Matcher {
        label,
        operator,
        value,
    })
}

/// Parses a text in double quotes with the escapes `\\`, `\"` and `\n`.
fn string(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    chars.next_if_eq(&'"')?;
    let mut value = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_written_as_they_were_read() {
        for (text, written) in [
            ("", ""),
            (" ", ""),
            (r#"{job="shim"}"#, r#"job="shim""#),
            (r#" a = "x" , b!~"y|z", "#, r#"a="x",b!~"y|z""#),
            (r#"a!="\\d\"\n",_b2=~"""#, r#"a!="\\d\"\n",_b2=~"""#),
        ] {
            let matchers: Matchers = text.parse().unwrap();
            assert_eq!(matchers.to_string(), written);
            assert_eq!(written.parse(), Ok(matchers));
        }
        let release = r#"namespace="edge",pod=~"selvage-node-shim-.+""#;
        assert_eq!(Matchers::of_release("edge").to_string(), release);
    }

    #[test]
    fn other_promql_is_refused() {
        for text in [
            "pod",
            "pod=shim",
            r#"pod=="x""#,
            r#"pod="x" or vector(1)"#,
            r#"pod="x"} or up{a="b""#,
            r#"pod="x"#,
            r#"pod="\x""#,
            r#"2pod="x""#,
            r#"="x""#,
            r#"__name__="up""#,
            &format!(r#"pod="{}""#, "x".repeat(MAX_TEXT)),
        ] {
            assert!(text.parse::<Matchers>().is_err(), "{text}");
        }
    }
}
