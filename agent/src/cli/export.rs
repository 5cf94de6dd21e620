//! `tally export`

use std::{
    fs::File,
    io::{self, BufWriter, Write},
};

use anyhow::Context as _;

use super::{
    args::{ExportArgs, ExportFormat},
    output::Outcome,
    progress::Progress,
};
use crate::{
    config::paths::DataDir,
    ledger::reader::{self, LogRow, Page},
};

/// The columns, in the words of `tally log --json`.
const COLUMNS: [&str; 16] = [
    "seq",
    "kind",
    "at",
    "time_proven",
    "app",
    "product",
    "holder",
    "holder_value",
    "feature",
    "hardware_id",
    "units",
    "total",
    "event",
    "state",
    "late",
    "batch",
];

/// Reads the ledger itself, a page at a time: it works whether the agent runs or not, and takes no more
/// memory for many rows than for few.
pub(super) fn run(data_dir: &DataDir, args: &ExportArgs) -> anyhow::Result<Outcome> {
    let written = match &args.output {
        None => export(data_dir, args, io::stdout().lock()),
        Some(path) => {
            let file = File::create(path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            export(data_dir, args, file)
        }
    };
    match written {
        // A reader that went away (`| head`) is no error.
        Err(error) if is_broken_pipe(&error) => Ok(Outcome::Done),
        other => other.map(|()| Outcome::Done),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_it = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        cause.downcast_ref().is_some_and(is_it)
            || matches!(
                cause.downcast_ref().map(csv::Error::kind),
                Some(csv::ErrorKind::Io(error)) if is_it(error)
            )
    })
}

fn export(data_dir: &DataDir, args: &ExportArgs, out: impl Write) -> anyhow::Result<()> {
    let mut out = BufWriter::new(out);
    match args.format {
        ExportFormat::Jsonl => {
            for_each_row(data_dir, args, |row| {
                serde_json::to_writer(&mut out, row)?;
                Ok(out.write_all(b"\n")?)
            })?;
            out.flush()?;
        }
        ExportFormat::Csv => {
            let mut table = csv::Writer::from_writer(out);
            table.write_record(COLUMNS)?;
            for_each_row(data_dir, args, |row| Ok(table.write_record(record(row))?))?;
            table.flush()?;
        }
    }
    Ok(())
}

fn for_each_row(
    data_dir: &DataDir,
    args: &ExportArgs,
    mut write: impl FnMut(&LogRow) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let newest = Page {
        limit: Some(1),
        ..Page::default()
    };
    let newest = reader::rows(&data_dir.ledger(), &newest)?.rows;
    let newest = newest.last().map_or(0, |row| row.seq);
    let progress = Progress::start("exporting");
    let mut after = 0;
    loop {
        let page = Page {
            after: Some(after),
            limit: Some(reader::PAGE_MAX),
            ..Page::default()
        };
        let rows = reader::rows(&data_dir.ledger(), &page)?.rows;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.seq;
        progress.tell(after, newest.max(after));
        for row in rows.iter().filter(|row| is_wanted(row, args)) {
            write(row)?;
        }
    }
}

fn is_wanted(row: &LogRow, args: &ExportArgs) -> bool {
    let is =
        |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
    args.since.is_none_or(|since| row.at >= since)
        && args.until.is_none_or(|until| row.at < until)
        && is(&args.app, &row.app)
        && is(&args.product, &row.product)
        && is(&args.license, &row.holder_value)
}

fn record(row: &LogRow) -> [String; 16] {
    [
        row.seq.to_string(),
        row.kind.clone(),
        row.at.to_string(),
        row.time_proven.to_string(),
        as_text(&row.app),
        as_text(&row.product),
        row.holder.clone(),
        as_text(&row.holder_value),
        as_text(row.feature.as_deref().unwrap_or_default()),
        as_text(&row.hardware_id),
        row.units.to_string(),
        row.total.to_string(),
        row.event.clone(),
        row.state.clone(),
        row.late.to_string(),
        row.batch.to_string(),
    ]
}

/// A spreadsheet takes a cell that begins so for a formula, and would run it.
fn as_text(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}
