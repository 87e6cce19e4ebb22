//! Extracts the prose of a file as passages of words that belong together.

use crate::rust::{Token as RustToken, tokens};
use ra_ap_rustc_lexer::{DocStyle, LiteralKind, TokenKind};

/// A word in lower case, or one character of punctuation.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
    pub(super) is_word: bool,
}

/// A comment of one or several lines, a string literal, or a paragraph.
#[derive(Debug)]
pub(super) struct Passage {
    pub(super) tokens: Vec<Token>,
    pub(super) is_documentation: bool,
}

impl Passage {
    fn new(is_documentation: bool) -> Self {
        Self {
            tokens: Vec::new(),
            is_documentation,
        }
    }

    pub(super) fn words(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| token.is_word)
    }

    /// Adds lines, without the marks of comments, lists, quotes and tables they begin with.
    fn add(&mut self, text: &str, first_line: usize) {
        for (line, text) in (first_line..).zip(text.split('\n')) {
            let marks = ['/', '!', '*', '#', ';', '>', '|', '-'];
            let text = text.trim_start().trim_start_matches(marks);
            let mut word = String::new();
            for c in text.chars().chain([' ']) {
                if c.is_alphanumeric() || c == '_' || (c == '\'' && !word.is_empty()) {
                    word.extend(c.to_lowercase());
                    continue;
                }
                if !word.is_empty() {
                    self.push(std::mem::take(&mut word), line, true);
                }
                if !c.is_whitespace() {
                    self.push(c.to_string(), line, false);
                }
            }
        }
    }

    fn push(&mut self, text: String, line: usize, is_word: bool) {
        self.tokens.push(Token {
            text,
            line,
            is_word,
        });
    }
}

/// Returns all passages of a file: comments and literals of Rust source, paragraphs of other files.
pub(super) fn passages(path: &str, text: &str) -> Vec<Passage> {
    if path.ends_with(".rs") {
        return of_rust(text);
    }
    let (mut passages, mut open) = (Vec::new(), Passage::new(false));
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() {
            passages.push(std::mem::replace(&mut open, Passage::new(false)));
        } else {
            open.add(text, line);
        }
    }
    passages.push(open);
    passages
}

fn of_rust(source: &str) -> Vec<Passage> {
    let mut passages = Vec::new();
    // a comment continues while lines of the same kind follow each other
    let mut open: Option<(Option<DocStyle>, Passage)> = None;
    for token in tokens(source) {
        let RustToken { kind, text, line } = token;
        let goes_on = match kind {
            TokenKind::Whitespace => text.matches('\n').count() < 2,
            TokenKind::LineComment { doc_style } => {
                open.as_ref().is_some_and(|(style, _)| *style == doc_style)
            }
            _ => false,
        };
        if !goes_on {
            passages.extend(open.take().map(|(_, passage)| passage));
        }
        match kind {
            TokenKind::LineComment { doc_style } => {
                let fresh = || (doc_style, Passage::new(doc_style.is_some()));
                open.get_or_insert_with(fresh).1.add(text, line);
            }
            TokenKind::BlockComment { doc_style, .. } => {
                let mut passage = Passage::new(doc_style.is_some());
                passage.add(text.trim_end_matches("*/"), line);
                passages.push(passage);
            }
            TokenKind::Literal { kind, .. } => {
                if let Some(text) = literal(kind, text) {
                    let mut passage = Passage::new(false);
                    passage.add(&text, line);
                    passages.push(passage);
                }
            }
            _ => {}
        }
    }
    passages.extend(open.map(|(_, passage)| passage));
    passages
}

/// Returns the text of a string literal, with as many lines as in the source. Escapes become spaces.
fn literal(kind: LiteralKind, text: &str) -> Option<String> {
    use LiteralKind::{ByteStr, CStr, RawByteStr, RawCStr, RawStr, Str};
    match kind {
        RawStr { .. } | RawByteStr { .. } | RawCStr { .. } => Some(text.to_owned()),
        Str { .. } | ByteStr { .. } | CStr { .. } => {
            let (mut plain, mut characters) = (String::new(), text.chars());
            while let Some(c) = characters.next() {
                match c {
                    '\\' if characters.next() == Some('\n') => plain.push('\n'),
                    '\\' => plain.push(' '),
                    c => plain.push(c),
                }
            }
            Some(plain)
        }
        _ => None,
    }
}
