//! Printing: tables for people, JSON for scripts, one clear line for what went wrong.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{
    args::JsonArgs,
    screen::{self, Screen},
};
use crate::{foreign, http::Resolved};

/// How a command ended, where it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// As asked.
    Done,
    /// Refused, or not finished; what and why was printed.
    Refused,
}

/// Prints a page on stdout, in colours only on a terminal that wants them. Its cells and lines went through
/// [`foreign::shown`] one by one; what did not drives no terminal either.
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    own(&foreign::shown_page(text))
}

/// Prints text of our own on stdout as it is. A reader that went away (`| head`) is no error.
pub(super) fn own(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints a line on stdout.
pub(super) fn line(line: &str) -> anyhow::Result<()> {
    text(&format!("{}\n", foreign::shown(line)))
}

/// Prints a value as indented JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    json_text(&serde_json::to_string_pretty(value)?)
}

/// Prints what is JSON already.
pub(super) fn json_text(text: &str) -> anyhow::Result<()> {
    own(&format!("{}\n", foreign::json(text)))
}

/// Prints what a person's decision did, and the row of the ledger that keeps it.
pub(super) fn decided(
    JsonArgs { json: as_json }: JsonArgs,
    resolved: &Resolved,
    what: &str,
) -> anyhow::Result<()> {
    if as_json {
        json(resolved)
    } else {
        line(&format!(
            "{what}; row {} of the ledger says so",
            resolved.seq
        ))
    }
}

/// Says what went wrong, with its causes, on one line of stderr.
pub(super) fn error(error: &anyhow::Error) {
    let mut out = io::stderr().lock();
    // Nobody is left to tell where stderr is gone.
    let _ = writeln!(out, "tally: {}", foreign::shown(&format!("{error:#}")));
}

/// Says something beside the result, on a line of stderr.
pub(super) fn note(text: &str) {
    let mut out = io::stderr().lock();
    // The result stands without it.
    let _ = writeln!(out, "tally: {}", foreign::shown(text));
}

/// Lines up columns, two spaces apart; numbers to the right. The first row is the head. On a terminal it
/// fits the width.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let shown = |cell: &String| foreign::shown(cell).into_owned();
    let rows = rows.iter().map(|row| row.iter().map(shown).collect());
    let rows: Vec<Vec<String>> = rows.collect();
    fit(rows, Screen::of_stdout().width)
}

/// What does not fit loses its columns without news, then the ends of long texts; where even that is too
/// wide, each row becomes a paragraph.
fn fit(mut rows: Vec<Vec<String>>, room: Option<usize>) -> String {
    let Some(room) = room.filter(|room| total(&widths(&rows)) > *room) else {
        return lined_up(&rows);
    };
    drop_empty_columns(&mut rows);
    let widths = widths(&rows);
    let excess = total(&widths).saturating_sub(room);
    let texts: Vec<usize> = (0..widths.len())
        .filter(|column| {
            !rows
                .iter()
                .skip(1)
                .all(|row| cell(row, *column).is_none_or(is_number))
        })
        .collect();
    let limit = narrow(&widths, &texts, excess);
    let Some(limit) = limit else {
        return paragraphs(&rows, room);
    };
    for row in &mut rows {
        for column in &texts {
            if let Some(cell) = row.get_mut(*column) {
                *cell = screen::clip(cell, limit);
            }
        }
    }
    lined_up(&rows)
}

/// A text with less than this says too little.
const NARROWEST: usize = 10;

/// The width that the widest texts may have for the table to fit.
fn narrow(widths: &[usize], texts: &[usize], excess: usize) -> Option<usize> {
    let widest = texts
        .iter()
        .filter_map(|column| widths.get(*column))
        .max()?;
    (NARROWEST..=*widest).rev().find(|limit| {
        let widths = texts.iter().filter_map(|column| widths.get(*column));
        let saved: usize = widths.map(|width| width.saturating_sub(*limit)).sum();
        saved >= excess
    })
}

fn drop_empty_columns(rows: &mut [Vec<String>]) {
    let columns = rows.first().map_or(0, Vec::len);
    for column in (0..columns).rev() {
        let says_nothing =
            |row: &Vec<String>| cell(row, column).is_none_or(|cell| matches!(cell, "" | "0"));
        if rows.len() > 1 && rows.iter().skip(1).all(says_nothing) {
            for row in rows.iter_mut() {
                row.remove(column);
            }
        }
    }
}

fn paragraphs(rows: &[Vec<String>], room: usize) -> String {
    let Some((head, rows)) = rows.split_first() else {
        return String::new();
    };
    let names = head
        .iter()
        .map(|name| screen::width(name))
        .max()
        .unwrap_or(0);
    let rows = rows.iter().map(|row| {
        let lines = head.iter().zip(row).map(|(name, cell)| {
            let padding = " ".repeat(names.saturating_sub(screen::width(name)));
            screen::clip(&format!("{name}{padding}  {cell}"), room) + "\n"
        });
        lines.collect::<String>()
    });
    rows.collect::<Vec<_>>().join("\n")
}

fn cell(row: &[String], column: usize) -> Option<&str> {
    row.get(column).map(String::as_str)
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column| {
        let cells = rows.iter().filter_map(|row| cell(row, column));
        cells.map(screen::width).max().unwrap_or(0)
    };
    (0..columns).map(width).collect()
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

/// A number, or a time: half of one would be another.
fn is_number(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
        && cell
            .chars()
            .all(|c| c.is_ascii_digit() || "-+.: ?".contains(c))
}

fn lined_up(rows: &[Vec<String>]) -> String {
    let widths = widths(rows);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = " ".repeat(width.saturating_sub(screen::width(cell)));
            let cell = if is_number(cell) {
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

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        vec![
            row(["PRODUCT", "LICENCE", "USED", "HELD"]),
            row(["inspect", "somebody@subsidiary.example.com", "12", "0"]),
        ]
    }

    #[track_caller]
    fn check_fits(room: usize, expected: &str) {
        let text = fit(rows(), Some(room));
        assert_eq!(text, expected);
        assert!(
            text.lines().all(|line| screen::width(line) <= room),
            "{text}"
        );
    }

    #[test]
    fn no_time_is_cut() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = vec![
            row(["TIME", "LICENCE"]),
            row(["2026-11-25 08:04:43?", "AAAA-BBBB-CCCC-DDDD"]),
        ];
        assert_eq!(
            fit(rows, Some(34)),
            "TIME                  LICENCE\n2026-11-25 08:04:43?  AAAA-BBBB-C…\n"
        );
    }

    #[test]
    fn what_does_not_fit_loses_first_what_says_least() {
        check_fits(
            80,
            "PRODUCT  LICENCE                          USED  HELD\n\
             inspect  somebody@subsidiary.example.com    12     0\n",
        );
        check_fits(
            47,
            "PRODUCT  LICENCE                          USED\n\
             inspect  somebody@subsidiary.example.com    12\n",
        );
        check_fits(
            30,
            "PRODUCT  LICENCE          USED\n\
             inspect  somebody@subsi…    12\n",
        );
        check_fits(20, "PRODUCT  inspect\nLICENCE  somebody@s…\nUSED     12\n");
    }
}
