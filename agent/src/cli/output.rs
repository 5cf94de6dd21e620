//! Printing: tables for people, JSON for scripts, one clear line for what went wrong.

use std::io::{self, Write as _};

use serde::Serialize;

/// How a command ended, where it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As asked.
    Done,
    /// Refused, or not finished; what and why was printed.
    Refused,
}

/// Prints text on stdout. A reader that went away (`| head`) is no error.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints a line on stdout.
pub(super) fn line(line: &str) -> anyhow::Result<()> {
    text(&format!("{line}\n"))
}

/// Prints a value as indented JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Says what went wrong, with its causes, on one line of stderr.
pub(super) fn error(error: &anyhow::Error) {
    let mut out = io::stderr().lock();
    // Nobody is left to tell where stderr is gone.
    let _ = writeln!(out, "tally: {error:#}");
}

/// Lines up columns, two spaces apart; numbers to the right. The first row is the head.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let is_number = cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
                && cell
                    .chars()
                    .all(|c| c.is_ascii_digit() || "-+.".contains(c));
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let cell = if is_number {
                padding + cell
            } else {
                cell.clone() + &padding
            };
            line = line + &cell + "  ";
        }
        text = text + line.trim_end() + "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let row = |name: &str, number: &str| [name.to_owned(), number.to_owned()];
        let text = table(&[row("NAME", "UNITS"), row("a", "7"), row("longer", "-12")]);
        assert_eq!(text, "NAME    UNITS\na           7\nlonger    -12\n");
    }
}
