//! `tally log`

use super::{
    args::LogArgs,
    client::Agent,
    output::{self, Outcome, table},
};
use crate::{config::paths::DataDir, ledger::reader::LogRow};

pub(super) fn run(data_dir: &DataDir, args: &LogArgs) -> anyhow::Result<Outcome> {
    let after = args
        .after
        .map(|seq| format!("&after={seq}"))
        .unwrap_or_default();
    let path = format!("/v1/events?limit={}{after}", args.limit);
    let rows: Vec<LogRow> = Agent::connect(data_dir)?.get(&path)?;
    if args.output.json {
        output::json(&rows)?;
        return Ok(Outcome::Done);
    }
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
            format!("{}{mark}", row.at),
            app,
            row.product,
            licence,
            units,
            total,
            format!("{}{late}", row.state),
        ]
    }));
    output::text(&table(&lines))?;
    Ok(Outcome::Done)
}
