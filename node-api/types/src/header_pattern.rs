//! Regular expressions of `routes[].headers`. The operator refuses what a node could not compile.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Maximum size of a compiled expression, in bytes: thousands of functions may have one each.
const MAX_SIZE: usize = 256 * 1024;

/// Why an expression is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderPatternError {
    /// The expression has a syntax error.
    Syntax(String),
    /// The compiled expression would exceed 256 KiB.
    TooLarge,
}

impl fmt::Display for HeaderPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(reason) => f.write_str(reason),
            Self::TooLarge => write!(f, "it exceeds {} KiB when compiled", MAX_SIZE / 1024),
        }
    }
}

impl std::error::Error for HeaderPatternError {}

/// Compiles an expression that has to match a whole header value.
///
/// # Errors
/// The expression has a syntax error or is too large.
///
/// # Examples
/// ```
/// use node_api_types::header_pattern;
///
/// let digits = header_pattern("[0-9]+").unwrap();
/// assert!(digits.is_match("42") && !digits.is_match("42a"));
/// assert_eq!(header_pattern("(").unwrap_err().to_string(), "unclosed group");
/// ```
pub fn header_pattern(pattern: &str) -> Result<Regex, HeaderPatternError> {
    let compile = |text: &str| {
        let built = RegexBuilder::new(text).size_limit(MAX_SIZE).build();
        built.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => HeaderPatternError::TooLarge,
            error => HeaderPatternError::Syntax(last_line(&error.to_string())),
        })
    };
    // By itself first: `a)|(b` has no meaning, but it would have one between the parentheses below.
    compile(pattern)?;
    compile(&format!("^(?:{pattern})$"))
}

/// The sentence without the drawing of the expression above it.
fn last_line(text: &str) -> String {
    let last = text.lines().last().unwrap_or_default();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_stays_between_the_anchors() {
        let either = header_pattern("a|b").unwrap();
        assert!(either.is_match("a") && either.is_match("b") && !either.is_match("ab"));
        assert!(header_pattern("a)|(b").is_err());
        let large = header_pattern("(?:[a-z]{100}){100}{10}");
        assert_eq!(large.unwrap_err(), HeaderPatternError::TooLarge);
    }
}
