//! Output: lines that stay, and on a terminal a block of lines that is redrawn.

use std::io::{self, Write};

use console::{Term, truncate_str};
use jiff::Timestamp;

use crate::text::Paint;
use crate::view::Style;

/// Width of lines where no terminal has one.
const WIDTH: usize = 120;

/// Standard output, whose last lines can be drawn again if it is a terminal.
pub(crate) struct Screen {
    term: Term,
    /// Number of lines of the block, as drawn.
    drawn: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            term: Term::buffered_stdout(),
            drawn: 0,
        }
    }

    /// Whether a block can be redrawn.
    pub(crate) fn is_terminal(&self) -> bool {
        self.term.is_term() && !console::is_dumb()
    }

    /// Width, colours and present time.
    pub(crate) fn style(&self) -> Style {
        let (_, columns) = self.size().unwrap_or((0, WIDTH));
        Style {
            paint: Paint {
                on: console::colors_enabled(),
            },
            width: columns,
            now: Timestamp::now(),
        }
    }

    /// Rows and columns of the terminal, if it has any.
    fn size(&self) -> Option<(usize, usize)> {
        let (rows, columns) = self.term.size_checked()?;
        let usable = rows > 1 && columns > 20;
        usable.then_some((usize::from(rows), usize::from(columns)))
    }

    /// Prints lines that stay.
    pub(crate) fn print(&mut self, lines: &[String]) -> io::Result<()> {
        self.erase()?;
        for line in lines {
            self.term.write_line(line)?;
        }
        self.term.flush()
    }

    /// Replaces the block. What does not fit on the terminal is left out, because it could not be erased.
    pub(crate) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        self.erase()?;
        let (rows, columns) = self.size().unwrap_or((usize::MAX, WIDTH));
        let room = rows.saturating_sub(1);
        let hidden = lines.len().saturating_sub(room);
        let shown = if hidden > 0 {
            room.saturating_sub(1)
        } else {
            lines.len()
        };
        for line in lines.iter().take(shown) {
            self.term.write_line(&truncate_str(line, columns, "…"))?;
        }
        self.drawn = shown;
        if hidden > 0 {
            let left_out = lines.len() - shown;
            self.term.write_line(&format!(
                "… {left_out} lines are left out: enlarge the terminal"
            ))?;
            self.drawn += 1;
        }
        self.term.flush()
    }

    /// Leaves the block on the terminal; the next one is drawn below it.
    pub(crate) fn keep(&mut self) {
        self.drawn = 0;
    }

    fn erase(&mut self) -> io::Result<()> {
        let drawn = std::mem::take(&mut self.drawn);
        if drawn > 0 {
            self.term.clear_last_lines(drawn)?;
        }
        Ok(())
    }
}

/// Writes a text as it is.
pub(crate) fn write_all(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}
