//! Splits Rust source into tokens with the lexer of the compiler.

use ra_ap_rustc_lexer::{FrontmatterAllowed, TokenKind, tokenize};

/// A token with its text and the line it starts on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind,
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// Returns all tokens, including white space and comments.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut at, mut line) = (0, 1);
    tokenize(source, FrontmatterAllowed::No)
        .map(|token| {
            let text = &source[at..at + token.len as usize];
            let here = Token {
                kind: token.kind,
                text,
                line,
            };
            at += text.len();
            line += text.matches('\n').count();
            here
        })
        .collect()
}

/// Returns the tokens without white space and comments.
pub(crate) fn code(source: &str) -> Vec<Token<'_>> {
    let skipped = |kind| {
        matches!(
            kind,
            TokenKind::Whitespace | TokenKind::LineComment { .. } | TokenKind::BlockComment { .. }
        )
    };
    let mut tokens = tokens(source);
    tokens.retain(|token| !skipped(token.kind));
    tokens
}
