//! Lines below each other with branches, as trees are drawn in terminals.

use console::measure_text_width;

use crate::text::wrap;

/// A line with lines below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    text: String,
    below: Vec<Self>,
}

impl Node {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            below: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, node: impl Into<Self>) {
        self.below.push(node.into());
    }

    /// Draws the tree in lines of at most `width` characters.
    pub(super) fn draw(&self, width: usize) -> Vec<String> {
        let mut lines = wrap(&self.text, width);
        self.draw_below("", width, &mut lines);
        lines
    }

    fn draw_below(&self, indent: &str, width: usize, lines: &mut Vec<String>) {
        let last = self.below.len().saturating_sub(1);
        for (at, node) in self.below.iter().enumerate() {
            let (branch, rest) = if at == last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            let room = width.saturating_sub(measure_text_width(indent) + 3).max(20);
            let further = if node.below.is_empty() { "" } else { "│  " };
            for (number, line) in wrap(&node.text, room).into_iter().enumerate() {
                let start = if number == 0 { branch } else { rest };
                let hang = if number == 0 { "" } else { further };
                lines.push(format!("{indent}{start}{hang}{line}").trim_end().to_owned());
            }
            node.draw_below(&format!("{indent}{rest}"), width, lines);
        }
    }
}

impl From<String> for Node {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::Node;

    #[test]
    fn branches_continue_beside_long_lines() {
        let mut root = Node::new("root");
        let mut first = Node::new("a sentence that needs two lines");
        first.add("leaf".to_owned());
        root.add(first);
        root.add("last".to_owned());
        assert_eq!(
            root.draw(23),
            [
                "root",
                "├─ a sentence that",
                "│  │  needs two lines",
                "│  └─ leaf",
                "└─ last",
            ]
        );
    }
}
