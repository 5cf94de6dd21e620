//! `tally export`

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::{Context as _, ensure};

use super::{
    args::{ExportArgs, ExportFormat},
    output::Outcome,
    progress::Progress,
};
use crate::{
    config::paths::DataDir,
    foreign::{self, shown},
    ledger::reader::{self, LogRow, Page},
    private_file,
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
        Some(path) => into_file(data_dir, args, path),
    };
    match written {
        // A reader that went away (`| head`) is no error.
        Err(error) if is_broken_pipe(&error) => Ok(Outcome::Done),
        other => other.map(|()| Outcome::Done),
    }
}

/// Writes a file that is new, or in the place of another: nothing is written through a link.
fn into_file(data_dir: &DataDir, args: &ExportArgs, path: &Path) -> anyhow::Result<()> {
    check_place(path, args.force)?;
    let cannot = || format!("cannot write {}", path.display());
    if !args.force {
        private_file::create(path, &[]).with_context(cannot)?;
        return export_into(data_dir, args, path);
    }
    let name = path.file_name().context("the name of a file is needed")?;
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".part-{}", std::process::id()));
    let part = path.with_file_name(part);
    private_file::create(&part, &[]).with_context(cannot)?;
    export_into(data_dir, args, &part)?;
    private_file::put(&part, path).with_context(cannot)
}

fn check_place(path: &Path, is_forced: bool) -> anyhow::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    ensure!(
        is_forced,
        "{} exists; give another name, or --force to replace it",
        path.display()
    );
    ensure!(
        found.is_file(),
        "{} is no file, but a folder, a link or a device; give another name",
        path.display()
    );
    Ok(())
}

/// Fills a file that was made for it.
fn export_into(data_dir: &DataDir, args: &ExportArgs, path: &Path) -> anyhow::Result<()> {
    let opened = File::options().write(true).open(path);
    let written = opened.map_err(anyhow::Error::from).and_then(|file| {
        export(data_dir, args, &file)?;
        Ok(file.sync_all()?)
    });
    if written.is_err() {
        // A part of an export is none.
        let _ = fs::remove_file(path);
    }
    written
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
                let line = serde_json::to_string(row)?;
                Ok(writeln!(out, "{}", foreign::json(&line))?)
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
        as_text(&row.kind),
        row.at.to_string(),
        row.time_proven.to_string(),
        as_text(&row.app),
        as_text(&row.product),
        as_text(&row.holder),
        as_text(&row.holder_value),
        as_text(row.feature.as_deref().unwrap_or_default()),
        as_text(&row.hardware_id),
        row.units.to_string(),
        row.total.to_string(),
        as_text(&row.event),
        as_text(&row.state),
        row.late.to_string(),
        row.batch.to_string(),
    ]
}

/// A spreadsheet takes a cell that begins so for a formula, and would run it (OWASP's list, with the wide forms of the
/// signs).
const FORMULA_BEGINS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

fn as_text(text: &str) -> String {
    let shown = shown(text);
    if text.starts_with(FORMULA_BEGINS) {
        format!("'{shown}")
    } else {
        shown.into_owned()
    }
}
