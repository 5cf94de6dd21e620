//! Whether the ledger is whole, and as the agent wrote it.

use serde_json::Value;

use super::Check;
use crate::{
    cli::verify,
    config::paths::DataDir,
    ledger::{
        evidence,
        health::{self, Health},
        recovery,
    },
};

/// `holders` are the processes that have the ledger open.
pub(super) fn checks(data_dir: &DataDir, holders: &[u32]) -> [Check; 2] {
    [pending(data_dir), ledger(data_dir, holders)]
}

/// Nothing is at the ledger's name, and a process has it open: a start, or an end, would lose it.
pub(super) fn held(holder: u32) -> Check {
    Check::problem(
        NAME,
        format!("it is gone, and process {holder} has it open: that is the only copy"),
        "do not stop it, and start no other: `tally sync`, or a consumption, has it look and write the ledger back to \
         its place. Where that fails, its log says why",
    )
}

const NAME: &str = "ledger";

fn pending(data_dir: &DataDir) -> Check {
    const NAME: &str = "recovery";
    match recovery::pending(data_dir.path()) {
        Ok(None) => Check::fine(NAME, "none waits to be accepted".to_owned()),
        Ok(Some(report)) => Check::problem(
            NAME,
            format!(
                "the ledger was found damaged ({}) and is kept in {}; {}",
                report.cause,
                report.folder,
                report.summary()
            ),
            "restore a copy of ledger.db if there is one, or go on with what was salvaged: \
             tally doctor --accept-recovery",
        ),
        Err(error) => {
            let found = format!("{error:#}");
            Check::problem(NAME, found, "put its folder back where it was")
        }
    }
}

fn ledger(data_dir: &DataDir, holders: &[u32]) -> Check {
    let path = data_dir.ledger();
    if !path.exists() && !data_dir.reserve().exists() {
        return Check::fine(NAME, "there is none yet".to_owned());
    }
    let found = evidence::read_key(&data_dir.chain_key())
        .and_then(|key| health::look(&path, data_dir.reserve().exists(), true, &key));
    match found {
        Ok(Health::New) => Check::fine(NAME, "there is none yet".to_owned()),
        Ok(Health::Sound) => proved(data_dir),
        Ok(Health::Damaged(cause)) => match holders.first() {
            // The file may be another one than the process has.
            Some(holder) => Check::problem(
                NAME,
                format!("it is damaged: {cause}"),
                &format!(
                    "process {holder} has it open and may hold more than the disk: let it run, and ask it with \
                     `tally sync` and then `tally status`, which says what to do"
                ),
            ),
            None => Check::problem(
                NAME,
                format!("it is damaged: {cause}"),
                "start the agent again with `tally run`: it keeps the file and salvages what can be read",
            ),
        },
        Err(error) => {
            let found = format!("{error:#}");
            Check::problem(NAME, found, "mend what it names")
        }
    }
}

/// Nothing refers to what is missing; now whether it is as the agent wrote it.
fn proved(data_dir: &DataDir) -> Check {
    match verify::prove(data_dir) {
        Ok(findings) => match findings.faults.first() {
            None => Check::fine(
                NAME,
                "opens, its pages are in order, its chain is whole, and all sums are right"
                    .to_owned(),
            ),
            Some(fault) => Check::problem(
                NAME,
                format!("it was changed behind the agent's back: {}", fault.what),
                "find out who did: `tally verify` says where it shows. The agent goes on, and sends \
                 nothing on the word of what was changed",
            ),
        },
        Err(error) => {
            let found = format!("{error:#}");
            Check::problem(NAME, found, "mend what it names")
        }
    }
}

/// What the agent that runs says of a copy.
pub(super) fn copy(status: Option<&Value>) -> Option<Check> {
    let copy = status?.get("copy").filter(|copy| !copy.is_null())?;
    let text = |key: &str| copy.get(key).and_then(Value::as_str).unwrap_or("?");
    let found = format!(
        "the ledger is a copy (found at {}, row {}): the original may have sent what it owes",
        text("since"),
        copy.get("seq").unwrap_or(&Value::Null)
    );
    Some(Check::problem(
        "copy",
        found,
        "say what became of the original: `tally device moved`, it is gone; `tally device new`, it lives on",
    ))
}
