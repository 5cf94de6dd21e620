//! Texts that others control: names of licences, devices and features, messages and codes of servers, names of files.
//!
//! They are data wherever they are kept and sent. Before a person sees one, it goes through [`shown`], so that it
//! neither drives the terminal, nor turns the direction of what stands beside it, nor makes a line of its own. The
//! command line does so for each cell and line, the log for each field, and [`json`] for what programs read.

use std::{borrow::Cow, fmt};

/// What stands in the place of a character that would do something.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Whether a character does something else than to be seen: it controls a terminal, ends a line, or changes the
/// direction of the characters around it.
pub const fn is_active(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{61c}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text as it may stand on a line that a person reads.
pub fn shown(text: &str) -> Cow<'_, str> {
    if text.contains(is_active) {
        Cow::Owned(text.replace(is_active, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A page of several lines, of which some pieces are in colours: the backstop for what was not shown piece by piece.
pub(crate) fn shown_page(page: &str) -> Cow<'_, str> {
    let mut rest = page;
    let mut shown = String::new();
    while let Some(at) = rest.find(|c| is_active(c) && c != '\n') {
        let (before, from) = rest.split_at(at);
        shown.push_str(before);
        let end = style_end(from);
        if let Some((style, after)) = end.and_then(|end| from.split_at_checked(end)) {
            shown.push_str(style);
            rest = after;
        } else {
            shown.push(REPLACEMENT);
            let mut after = from.chars();
            after.next();
            rest = after.as_str();
        }
    }
    if rest.len() == page.len() {
        return Cow::Borrowed(page);
    }
    Cow::Owned(shown + rest)
}

/// Where a sequence that only sets colours ends, if the text begins with one.
fn style_end(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !(c.is_ascii_digit() || c == ';'))?;
    let is_style = parameters.get(end..)?.starts_with('m');
    is_style.then_some("\u{1b}[".len() + end + "m".len())
}

/// JSON that drives no terminal: what could stands as an escape of JSON's, so that programs read the same as before.
pub fn json(text: &str) -> Cow<'_, str> {
    let drives = |c: char| is_active(c) && !matches!(c, '\n' | '\r' | '\t');
    if !text.contains(drives) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if drives(c) {
            let mut units = [0; 2];
            let units = c.encode_utf16(&mut units).iter();
            escaped.extend(units.map(|unit| format!("\\u{unit:04x}")));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// Writes what it is given as [`shown`].
#[derive(Debug)]
pub struct Shown<W>(pub W);

impl<W: fmt::Write> fmt::Write for Shown<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&shown(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_or_turns_a_line_is_replaced_and_nothing_else() {
        for text in ["", "Prüfgerät 7", "検査 – “x”", "👩‍🔧 ok", "שלום"] {
            assert!(matches!(shown(text), Cow::Borrowed(same) if same == text));
        }
        let evil = "a\u{1b}[2Jb\u{9b}c\u{202e}d\u{2066}e\u{2028}f\u{7f}g\r\nh\u{e0041}i\tj";
        let expected = "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}g\u{fffd}\u{fffd}h\u{fffd}i\u{fffd}j";
        assert_eq!(shown(evil), expected);
    }

    #[test]
    fn a_page_keeps_its_lines_and_colours() {
        let page = "\u{1b}[1mname\u{1b}[0m\n\u{1b}[38;5;1mx\u{1b}[0m\n";
        assert_eq!(shown_page(page), page);
        assert_eq!(shown_page("plain\n"), "plain\n");
        assert_eq!(
            shown_page("a\u{1b}[2Jb\u{1b}]0;t\u{7}\u{1b}[1\nc\u{202e}\u{1b}"),
            "a\u{fffd}[2Jb\u{fffd}]0;t\u{fffd}\u{fffd}[1\nc\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn json_is_the_same_to_a_program() {
        let value = serde_json::json!({"name": "a\u{1b}\u{9b}\u{202e}\u{7f}\u{e0041}b\n"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let escaped = json(&text);
        assert!(
            !escaped.contains(|c| is_active(c) && c != '\n'),
            "{escaped}"
        );
        let read: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(read, value);
    }
}
