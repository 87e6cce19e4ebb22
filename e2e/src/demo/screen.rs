//! Output of the demo: lines that stay, and below them a block of lines that is redrawn.

use std::{
    io::{IsTerminal, Write, stdout},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
/// A terminal, or a plain stream of lines.
#[derive(Debug)]
pub(super) struct Screen {
    begin: Instant,
    live: bool,
    /// The block below the last permanent line, as drawn.
    block: Mutex<Vec<String>>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        Self {
            begin: Instant::now(),
            live: stdout().is_terminal() && !dumb,
            block: Mutex::new(Vec::new()),
        }
    }

    /// Returns whether blocks are drawn.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Returns the time since the start of the demo.
    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Prints a heading.
    pub(super) fn heading(&self, title: &str) {
        self.print(&format!("\n{}", self.bold(title)));
    }

    /// Prints a line with the time since the start.
    pub(super) fn part(&self, text: &str) {
        self.print(&format!("{:>6.1} s  {text}", self.elapsed().as_secs_f64()));
    }

    /// Prints a line without a time.
    pub(super) fn print(&self, text: &str) {
        let mut block = self.block.lock();
        self.erase(&block);
        write(&format!("{text}\n"));
        self.draw(&block);
        if !self.live {
            block.clear();
        }
    }

    /// Replaces the block. Does nothing where the output is not a terminal.
    pub(super) fn block(&self, lines: Vec<String>) {
        if !self.live {
            return;
        }
        let mut block = self.block.lock();
        self.erase(&block);
        let width = width();
        *block = lines
            .iter()
            .flat_map(|line| wrap(line, width))
            .map(|line| clip(&line, width))
            .collect();
        self.draw(&block);
    }

    /// Removes the block.
    pub(super) fn clear(&self) {
        self.block(Vec::new());
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.colour("1", text)
    }

    pub(super) fn good(&self, text: &str) -> String {
        self.colour("32", text)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.colour("31", text)
    }

    fn colour(&self, code: &str, text: &str) -> String {
        if self.live {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn erase(&self, block: &[String]) {
        if self.live && !block.is_empty() {
            write(&format!("\x1b[{}A\x1b[J", block.len()));
        }
    }

    fn draw(&self, block: &[String]) {
        if self.live {
            let lines: String = block.iter().map(|line| format!("{line}\n")).collect();
            write(&lines);
        }
    }
}

/// Writes text and ignores errors, because a closed terminal must not stop the demo.
fn write(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn width() -> usize {
    rustix::termios::tcgetwinsize(stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 20)
        .unwrap_or(100)
}

/// Breaks a long line between words and indents the following lines like the first.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let indent: String = line.chars().take_while(|letter| *letter == ' ').collect();
    let mut lines = vec![];
    let mut current = String::new();
    for word in line.trim_start().split(' ') {
        if !current.is_empty()
            && indent.len() + current.chars().count() + 1 + word.chars().count() >= width
        {
            lines.push(format!("{indent}{current}"));
            current.clear();
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines.push(format!("{indent}{current}"));
    lines
}

/// Shortens a line to the width of the terminal, because a wrapped line could not be erased. Colour codes have no
/// width; blocks use them around whole words only.
fn clip(line: &str, width: usize) -> String {
    let mut shown = 0;
    let mut escape = false;
    let mut out = String::new();
    for letter in line.chars() {
        if letter == '\x1b' {
            escape = true;
        }
        if !escape {
            shown += 1;
            if shown >= width {
                out.push('…');
                break;
            }
        }
        out.push(letter);
        if escape && letter == 'm' {
            escape = false;
        }
    }
    if out.contains('\x1b') {
        out.push_str("\x1b[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_clipped_by_what_is_seen() {
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("abc", 10), "abc");
        assert_eq!(clip("\x1b[1mabc\x1b[0m", 10), "\x1b[1mabc\x1b[0m\x1b[0m");
    }

    #[test]
    fn long_lines_break_between_words() {
        assert_eq!(
            wrap("  at 25 %: 1156 requests", 16),
            ["  at 25 %: 1156", "  requests"]
        );
        assert_eq!(wrap("  v1    75 %", 80), ["  v1    75 %"]);
    }
}
