//! `tally verify`

use super::{
    args::JsonArgs,
    client::as_owner,
    output::{self, Outcome},
    progress::Progress,
};
use crate::{
    config::paths::DataDir,
    foreign::shown,
    ledger::{
        evidence, schema,
        verify::{Findings, verify_telling},
    },
};

/// Reads the ledger itself: it works whether the agent runs or not.
pub(super) fn run(data_dir: &DataDir, args: JsonArgs) -> anyhow::Result<Outcome> {
    if !data_dir.chain_key().exists() && !data_dir.ledger().exists() {
        anyhow::bail!(
            "no agent ever ran on {}; name its folder with --data-dir",
            data_dir.path().display()
        );
    }
    let findings = prove(data_dir)?;
    if args.json {
        output::json(&findings)?;
    } else {
        output::text(&page(&findings))?;
    }
    Ok(if findings.is_sound() && findings.findings.is_empty() {
        Outcome::Done
    } else {
        Outcome::Refused
    })
}

/// Proves the ledger against itself, and against what stands beside it.
pub(super) fn prove(data_dir: &DataDir) -> anyhow::Result<Findings> {
    let read = |dir: &DataDir| evidence::read_key(&dir.chain_key());
    let key = as_owner(data_dir, read)?;
    let mut mark = evidence::MarkFile::new(data_dir.mark());
    let open = || schema::open_read_only(&data_dir.ledger());
    let (connection, doubt) = evidence::compare_with_mark(&mut mark, &key, open)?;
    let progress = Progress::start("proving the ledger");
    let mut findings = verify_telling(&connection, &key, &|done, all| progress.tell(done, all))?;
    drop(progress);
    if let Some(doubt) = doubt {
        findings.doubt(&doubt);
    }
    Ok(findings)
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
        Some(seq) => format!("  row {seq}: {}\n", shown(&fault.what)),
        None => format!("  {}\n", shown(&fault.what)),
    });
    text.extend(lines);
    for finding in &findings.findings {
        let what = finding.what();
        let (no, what) = (finding.seq.0, shown(&what));
        let next = format!(
            "{}; then: tally resolve --finding {no}",
            finding.kind.advice()
        );
        let lines = format!("  finding {no}: {what}\n    → {next}\n");
        text.push_str(&lines);
    }
    if findings.unproven > 0 {
        let count = findings.unproven;
        let line = format!("  {count} rows are from before the present key: nothing proves them\n");
        text.push_str(&line);
    }
    text
}
