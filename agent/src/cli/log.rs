//! `tally log`

use super::{
    args::LogArgs,
    client::Agent,
    human,
    output::{self, Outcome, table},
};
use crate::{
    config::paths::DataDir,
    ledger::reader::{Found, LogRow, Page, RefusalRow},
};

pub(super) fn run(data_dir: &DataDir, args: &LogArgs) -> anyhow::Result<Outcome> {
    if args.refused {
        return refusals(data_dir, args);
    }
    let page = Page {
        after: args.after,
        limit: Some(args.limit),
        app: args.app.clone(),
        product: args.product.clone(),
        license: args.license.clone(),
        state: args.state.clone(),
    };
    let Found { rows, searched } = Agent::connect(data_dir)?.rows(&page)?;
    if args.output.json {
        output::json(&rows)?;
    } else {
        output::text(&as_table(rows))?;
    }
    if let Some(searched) = searched {
        output::note(&format!(
            "only the newest {searched} rows were looked through; `tally export` looks through all"
        ));
    }
    Ok(Outcome::Done)
}

fn as_table(rows: Vec<LogRow>) -> String {
    let head = [
        "SEQ", "TIME", "APP", "PRODUCT", "LICENCE", "UNITS", "TOTAL", "STATE",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| {
        let licence = match row.feature {
            Some(feature) => format!("{} · {feature}", row.holder_value),
            None => row.holder_value,
        };
        let (app, units, total) = match row.note {
            Some(_) => (row.kind, String::new(), String::new()),
            None => (row.app, row.units.to_string(), row.total.to_string()),
        };
        let late = if row.late { ", late" } else { "" };
        // A mark that is explained once is shorter than a column of words.
        let mark = if row.time_proven { "" } else { "?" };
        [
            row.seq.to_string(),
            format!("{}{mark}", human::moment(row.at)),
            app,
            row.product,
            licence,
            units,
            total,
            format!("{}{late}", row.state),
        ]
    }));
    table(&lines)
}

/// What was refused, newest last, with the numbers that `tally explain` takes.
fn refusals(data_dir: &DataDir, args: &LogArgs) -> anyhow::Result<Outcome> {
    let mut rows: Vec<RefusalRow> = Agent::connect(data_dir)?.get("/v1/refusals")?;
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    rows.drain(..rows.len().saturating_sub(limit));
    if args.output.json {
        output::json(&rows)?;
        return Ok(Outcome::Done);
    }
    let head = [
        "NO", "TIME", "APP", "PRODUCT", "LICENCE", "UNITS", "REFUSED",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| {
        let mark = if row.time_proven { "" } else { "?" };
        let licence = match row.feature {
            Some(feature) => format!("{} · {feature}", row.holder_value),
            None => row.holder_value,
        };
        [
            row.refusal,
            format!("{}{mark}", human::moment(row.at)),
            row.app,
            row.product,
            licence,
            row.units.to_string(),
            row.code,
        ]
    }));
    output::text(&table(&lines))?;
    Ok(Outcome::Done)
}
