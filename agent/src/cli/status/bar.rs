//! How much of a licence is used, as a bar.

use anstyle::{AnsiColor, Style};

use crate::cli::screen::Piece;

/// How many cells a bar has.
const CELLS: usize = 24;

const COUNTED: &str = "█";
const UNCOUNTED: &str = "▓";
const LEFT: &str = "░";

/// What the server has counted, what it has not, and what is left, out of `cap`; `cells` wide.
fn cells(total: i64, uncounted: i64, cap: i64, cells: usize) -> [usize; 3] {
    let part = |units: i64| {
        let cells = i128::try_from(cells).unwrap_or(0);
        let part = i128::from(units.clamp(0, cap.max(0))) * cells;
        // What is used at all is seen, and what is left at all too.
        let exact = part.checked_div(i128::from(cap)).unwrap_or(0);
        usize::try_from(exact + i128::from(part > 0 && exact == 0)).unwrap_or(0)
    };
    let used = if total < cap {
        part(total).min(cells.saturating_sub(1))
    } else {
        cells
    };
    let uncounted = part(uncounted).min(used);
    [used - uncounted, uncounted, cells - used]
}

/// The bar of a licence; in colours on a terminal.
pub(super) fn bar(total: i64, uncounted: i64, cap: i64) -> Piece {
    let parts = cells(total, uncounted, cap, CELLS);
    let looks = [
        (COUNTED, AnsiColor::Green.on_default()),
        (UNCOUNTED, AnsiColor::Yellow.on_default()),
        (LEFT, Style::new().dimmed()),
    ];
    let parts = parts.into_iter().zip(looks);
    Piece::of(parts.map(|(times, (cell, style))| (cell.repeat(times), style)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(total: i64, uncounted: i64, cap: i64, expected: [usize; 3]) {
        assert_eq!(cells(total, uncounted, cap, 24), expected);
    }

    #[test]
    fn a_bar_shows_what_is_counted_what_is_not_and_what_is_left() {
        check(0, 0, 100, [0, 0, 24]);
        check(50, 25, 100, [6, 6, 12]);
        check(100, 0, 100, [24, 0, 0]);
        check(100, 100, 100, [0, 24, 0]);
    }

    #[test]
    fn a_little_is_seen_and_a_little_that_is_left_too() {
        check(1, 1, 1_000_000, [0, 1, 23]);
        check(999_999, 0, 1_000_000, [23, 0, 1]);
    }

    #[test]
    fn odd_numbers_make_no_bar_longer() {
        check(-5, 0, 100, [0, 0, 24]);
        check(150, 0, 100, [24, 0, 0]);
        check(0, 0, 0, [24, 0, 0]);
        check(5, 5, -1, [24, 0, 0]);
        check(i64::MAX, i64::MAX, i64::MAX, [0, 24, 0]);
    }
}
