//! `tally verify`

use super::{
    args::JsonArgs,
    output::{self, Outcome},
};
use crate::{
    config::paths::DataDir,
    ledger::{
        schema,
        verify::{Findings, verify},
    },
};

/// Reads the ledger itself: it works whether the agent runs or not.
pub(super) fn run(data_dir: &DataDir, args: JsonArgs) -> anyhow::Result<Outcome> {
    let findings = verify(&schema::open_read_only(&data_dir.ledger())?)?;
    if args.json {
        output::json(&findings)?;
    } else {
        output::text(&page(&findings))?;
    }
    Ok(if findings.is_sound() {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

fn page(findings: &Findings) -> String {
    let mut text = format!(
        "{} rows, {} folded into daily sums, {} decisions and recoveries: ",
        findings.rows, findings.folded, findings.notes
    );
    text += if findings.is_sound() {
        "the chain is whole, and all sums are right\n"
    } else {
        "not as they were written\n"
    };
    let lines = findings.faults.iter().map(|fault| match fault.seq {
        Some(seq) => format!("  row {seq}: {}\n", fault.what),
        None => format!("  {}\n", fault.what),
    });
    text.extend(lines);
    text
}
