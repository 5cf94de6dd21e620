//! The fields of a line of the log. Whatever they say, they stay on the line, and drive no terminal that shows it.

use std::fmt::Write as _;

use tracing_subscriber::{
    field::MakeExt as _,
    fmt::format::{self, FormatFields},
};

use crate::foreign::Shown;

/// Writes the message, then `name=value` for each other field. Texts are quoted.
pub(super) fn fields() -> impl for<'a> FormatFields<'a> + 'static {
    format::debug_fn(|writer, field, value| {
        let mut shown = Shown(writer);
        match field.name() {
            "message" => write!(shown, "{value:?}"),
            name => write!(shown, "{name}={value:?}"),
        }
    })
    .delimited(" ")
}
