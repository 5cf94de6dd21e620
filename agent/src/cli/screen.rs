//! Text that fits the terminal. Where there is none, nothing is cut and nothing is broken, so that
//! other programs get everything.

use std::io::{self, IsTerminal as _};

use anstyle::Style;
use terminal_size::{Height, Width};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::foreign::shown;

/// Columns of a terminal that does not say how many it has.
const UNKNOWN_WIDTH: usize = 80;

/// How much room there is; `None` where standard output is no terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Screen {
    /// Columns.
    pub(super) width: Option<usize>,
    /// Lines; `None` also where a terminal does not say how many it has.
    pub(super) height: Option<usize>,
}

impl Screen {
    /// That of standard output.
    pub(super) fn of_stdout() -> Self {
        let out = io::stdout();
        if !out.is_terminal() {
            return Self::default();
        }
        let size = terminal_size::terminal_size_of(out);
        Self::of_terminal(size, |name| std::env::var(name).ok())
    }

    /// That of a terminal. A serial line, or one inside another program, may say 0 by 0; then what the shell
    /// says is asked.
    fn of_terminal(
        size: Option<(Width, Height)>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        if let Some((Width(width), Height(height))) = size {
            return Self {
                width: Some(usize::from(width)),
                height: Some(usize::from(height)),
            };
        }
        let said = |name| {
            let number = variable(name)?.trim().parse().ok()?;
            (number > 0).then_some(number)
        };
        Self {
            width: Some(said("COLUMNS").unwrap_or(UNKNOWN_WIDTH)),
            height: said("LINES"),
        }
    }
}

/// A piece of a line, in one style. What it says comes from others too, so it is [`shown`].
#[derive(Clone, Debug)]
pub(super) struct Piece {
    parts: Vec<(String, Style)>,
}

impl Piece {
    pub(super) fn new(text: impl AsRef<str>, style: Style) -> Self {
        Self::of([(text.as_ref().to_owned(), style)])
    }

    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Style::new())
    }

    /// Several styles side by side, which stay on one line.
    pub(super) fn of(parts: impl IntoIterator<Item = (String, Style)>) -> Self {
        let parts = parts
            .into_iter()
            .map(|(text, style)| (shown(&text).into_owned(), style));
        Self {
            parts: parts.collect(),
        }
    }

    /// Puts words before it, on the same line.
    pub(super) fn prepend(&mut self, text: &str, style: Style) {
        self.parts.insert(0, (shown(text).into_owned(), style));
    }

    /// Puts words behind it, on the same line.
    pub(super) fn append(mut self, text: &str, style: Style) -> Self {
        self.parts.push((shown(text).into_owned(), style));
        self
    }

    fn width(&self) -> usize {
        self.parts.iter().map(|(text, _)| width(text)).sum()
    }

    /// As it is written, cut to so many columns.
    fn cut(&self, mut room: usize) -> String {
        let mut text = String::new();
        for (part, style) in &self.parts {
            let part = clip(part, room);
            room = room.saturating_sub(width(&part));
            if !part.is_empty() {
                let styled = format!("{style}{part}{style:#}");
                text.push_str(&styled);
            }
        }
        text
    }
}

/// Puts pieces side by side, with a separator between them, on as many lines as they need; further lines
/// are indented like the first. A piece that is wider than a line is cut.
pub(super) fn flow(pieces: &[Piece], separator: &str, indent: usize, screen: Screen) -> String {
    let room = screen.width.unwrap_or(usize::MAX).saturating_sub(indent);
    let margin = " ".repeat(indent);
    let mut text = margin.clone();
    let mut used = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let wide = piece.width();
        if index > 0 {
            if used + width(separator) + wide > room {
                let end = separator.trim_end();
                if used + width(end) <= room {
                    text += end;
                }
                text = text + "\n" + &margin;
                used = 0;
            } else {
                text += separator;
                used += width(separator);
            }
        }
        text += &piece.cut(room);
        used += wide.min(room);
    }
    text + "\n"
}

/// Lines of words, each as long as fits.
pub(super) fn paragraph(text: &str, style: Style, indent: usize, screen: Screen) -> String {
    let words: Vec<Piece> = text.split(' ').map(Piece::plain).collect();
    let lines = flow(&words, " ", 0, narrower(screen, indent));
    let margin = " ".repeat(indent);
    let styled = lines
        .lines()
        .map(|line| format!("{margin}{style}{line}{style:#}\n"));
    styled.collect()
}

/// What is left of a screen beside a margin.
fn narrower(screen: Screen, margin: usize) -> Screen {
    Screen {
        width: screen.width.map(|width| width.saturating_sub(margin)),
        ..screen
    }
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// A text that is too wide ends in an ellipsis.
pub(super) fn clip(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut clipped = String::new();
    let mut used = 0;
    for char in text.chars() {
        let wide = char.width().unwrap_or(0);
        if used + wide + 1 > room {
            break;
        }
        clipped.push(char);
        used += wide;
    }
    if room > 0 {
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(width: usize) -> Screen {
        Screen {
            width: Some(width),
            height: None,
        }
    }

    #[track_caller]
    fn check_unknown_size(variables: &[(&str, &str)], width: usize, height: Option<usize>) {
        let variable = |name: &str| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        };
        let expected = Screen {
            width: Some(width),
            height,
        };
        assert_eq!(Screen::of_terminal(None, variable), expected);
    }

    #[test]
    fn a_terminal_of_unknown_size_is_a_terminal() {
        check_unknown_size(&[], 80, None);
        check_unknown_size(&[("COLUMNS", "132"), ("LINES", "43")], 132, Some(43));
        check_unknown_size(&[("COLUMNS", "0"), ("LINES", "many")], 80, None);
    }

    #[test]
    fn what_a_terminal_says_of_its_size_is_believed() {
        let size = Some((Width(100), Height(30)));
        let screen = Screen::of_terminal(size, |_| Some("40".to_owned()));
        let expected = Screen {
            width: Some(100),
            height: Some(30),
        };
        assert_eq!(screen, expected);
    }

    #[test]
    fn pieces_go_to_the_next_line_and_none_is_wider_than_the_screen() {
        let pieces = ["online", "synced 3 s ago", "25 units owed"].map(Piece::plain);
        let flow = |screen| flow(&pieces, " · ", 2, screen);
        assert_eq!(
            flow(Screen::default()),
            "  online · synced 3 s ago · 25 units owed\n"
        );
        assert_eq!(
            flow(wide(28)),
            "  online · synced 3 s ago ·\n  25 units owed\n"
        );
        assert_eq!(flow(wide(12)), "  online ·\n  synced 3 …\n  25 units …\n");
    }

    #[test]
    fn a_line_of_words_has_its_style_as_a_whole() {
        let bold = Style::new().bold();
        assert_eq!(
            paragraph("one two three", bold, 2, wide(9)),
            "  \u{1b}[1mone two\u{1b}[0m\n  \u{1b}[1mthree\u{1b}[0m\n"
        );
    }

    #[test]
    fn what_is_cut_says_so_by_columns_and_not_by_characters() {
        assert_eq!(clip("inspect", 7), "inspect");
        assert_eq!(clip("inspect", 4), "ins…");
        assert_eq!(clip("検査装置", 5), "検査…");
        assert_eq!(clip("inspect", 0), "");
    }

    #[test]
    fn no_name_drives_the_terminal() {
        let text = flow(&[Piece::plain("a\x1b[2Jb\r")], " ", 0, Screen::default());
        assert_eq!(text, "a\u{fffd}[2Jb\u{fffd}\n");
    }
}
