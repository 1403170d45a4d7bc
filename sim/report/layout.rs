//! Columns, wrapping and colour: plain text first, so that a pipe, a narrow terminal and `NO_COLOR` get the same words.

use console::{Style, measure_text_width};

/// Widest layout: longer lines are hard to follow, however wide the terminal.
const MOST_WIDTH: usize = 120;

/// Narrowest layout; a terminal below it wraps by itself.
const LEAST_WIDTH: usize = 60;

/// What a summary is laid out for.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    width: usize,
    colours: bool,
}

impl Terminal {
    /// The terminal on standard output; without one, wide and without colours. `NO_COLOR` and `CLICOLOR` are obeyed.
    #[must_use]
    pub fn stdout() -> Terminal {
        let width = console::Term::stdout().size_checked().map_or(MOST_WIDTH, |(_rows, columns)| columns.into());
        Terminal::new(width, console::colors_enabled())
    }

    /// A layout of this width, with or without colours.
    #[must_use]
    pub fn new(width: usize, colours: bool) -> Terminal {
        Terminal { width: width.clamp(LEAST_WIDTH, MOST_WIDTH), colours }
    }

    pub(super) fn width(self) -> usize {
        self.width
    }

    pub(super) fn heading(self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint(Style::new().dim(), text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.paint(Style::new().green().bold(), text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint(Style::new().red().bold(), text)
    }

    pub(super) fn doubtful(self, text: &str) -> String {
        self.paint(Style::new().yellow().bold(), text)
    }

    fn paint(self, style: Style, text: &str) -> String {
        match text {
            "" => String::new(),
            _ => style.force_styling(self.colours).apply_to(text).to_string(),
        }
    }
}

/// How a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows as aligned columns, two blanks apart, each line behind `indent`. A last cell on the left that does not fit is
/// wrapped below itself; it makes no column wider, so a row may end early in a sentence.
pub(super) fn columns(rows: &[Vec<String>], align: &[Align], indent: &str, width: usize) -> String {
    let width_of = |row: &Vec<String>, column: usize| match row.get(column) {
        Some(_) if column + 1 == row.len() && align[column] == Align::Left => 0,
        Some(cell) => measure_text_width(cell),
        None => 0,
    };
    let widths: Vec<usize> =
        (0..align.len()).map(|column| rows.iter().map(|row| width_of(row, column)).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            let blanks = " ".repeat(widths[column].saturating_sub(measure_text_width(cell)));
            if column > 0 {
                line.push_str("  ");
            }
            match align[column] {
                Align::Right => line.extend([blanks.as_str(), cell]),
                Align::Left if column == last => {
                    let begins = measure_text_width(&line);
                    line.push_str(&wrapped(cell, begins, width));
                }
                Align::Left => line.extend([cell.as_str(), &blanks]),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `text` broken between words so that, begun at column `begins`, no line is beyond `width`; further lines are indented to
/// `begins`.
pub(super) fn wrapped(text: &str, begins: usize, width: usize) -> String {
    // A sliver at the edge is worse to read than a line that is too long.
    let room = width.saturating_sub(begins).max(24);
    broken(text, room).join(&format!("\n{}", " ".repeat(begins)))
}

/// `text` broken between words into lines of at most `room`, but for a word that is longer.
pub(super) fn broken(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if measure_text_width(line) + 1 + measure_text_width(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
