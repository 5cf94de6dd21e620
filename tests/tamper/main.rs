//! Somebody changes the ledger behind the agent's back: whatever was done, `tally verify` finds it, and a
//! start says so, goes on, and tells the server nothing false.

mod kinds;
mod starts;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rusqlite::Connection;
use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    client::{by_key, by_user},
    seed,
    stub::{Keys, Stub},
};
use tempfile::TempDir;

/// What stands beside the ledger, and guards it.
const GUARDS: [&str; 2] = ["chain_key", "ledger.mark"];

fn stub(keys: Keys) -> Result<Stub> {
    let licenses = [
        seed::license(100_000, json!({})),
        seed::user_license(100_000, json!({})),
    ];
    Stub::start(
        env!("CARGO_BIN_EXE_stub-under-test"),
        &seed::seed(&licenses),
        keys,
    )
}

fn agent(stub: &Stub) -> Result<Agent> {
    let flags = vec!["--settle-wait".to_owned(), "100ms".to_owned()];
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    let agent = Agent::start(program, stub.url(), &Setup { flags })?;
    agent.add_license()?;
    agent.add_user_license()?;
    Ok(agent)
}

/// What a stopped agent left, and copies of its ledger from before.
struct Left {
    folder: TempDir,
    older: Vec<PathBuf>,
}

impl Left {
    /// Rows of two licences, settled ones and owed ones, with a copy after each few of them.
    fn new(copies: usize) -> Result<Self> {
        let stub = stub(Keys::Kept)?;
        let mut agent = agent(&stub)?;
        let app = agent.app("inspector")?;
        let folder = TempDir::new()?;
        let mut older = Vec::new();
        for round in 0..copies {
            if round == copies / 2 {
                agent.wait_settled(0)?;
                agent.network("offline")?;
            }
            older.push(copy_to(
                &agent.data_dir(),
                &folder.path().join(format!("{round}.db")),
            )?);
            for row in 0..4 {
                let units = 1 + row % 5;
                let body = match row % 3 {
                    0 => by_user(units),
                    _ => by_key(units),
                };
                let reply = app.post("/api/v4/add_consumption", &body)?;
                assert_eq!(reply.status, 200, "{}", reply.text);
            }
        }
        agent.terminate()?;
        copy_to(&agent.data_dir(), &folder.path().join("ledger.db"))?;
        for name in GUARDS {
            fs::copy(agent.data_dir().join(name), folder.path().join(name))?;
        }
        Ok(Self { folder, older })
    }

    /// A data directory with the ledger as it was left.
    fn data_dir(&self) -> Result<TempDir> {
        let folder = TempDir::new()?;
        for name in GUARDS.iter().chain(&["ledger.db"]) {
            fs::copy(self.folder.path().join(name), folder.path().join(name))?;
        }
        Ok(folder)
    }
}

/// A consistent copy of a ledger that may be in use.
fn copy_to(data_dir: &Path, to: &Path) -> Result<PathBuf> {
    let ledger = Connection::open(data_dir.join("ledger.db"))?;
    ledger.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(to.to_owned())
}

/// A ledger that somebody with the file's rights edits.
fn edit(data_dir: &Path) -> Result<Connection> {
    let ledger = Connection::open(data_dir.join("ledger.db"))?;
    ledger.execute_batch("PRAGMA foreign_keys = OFF")?;
    Ok(ledger)
}

/// What `tally verify` says: its exit code and its findings.
fn verify(data_dir: &Path) -> Result<(Option<i32>, Value)> {
    let output = Command::new(env!("CARGO_BIN_EXE_tally-under-test"))
        .args(["verify", "--json", "--data-dir"])
        .arg(data_dir)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let findings = serde_json::from_slice(&output.stdout);
    Ok((
        output.status.code(),
        findings.map_err(|error| anyhow::anyhow!("{error}: {said}"))?,
    ))
}

#[test]
fn a_ledger_that_nobody_changed_is_sound() -> Result {
    let left = Left::new(4)?;
    let folder = left.data_dir()?;
    let (code, findings) = verify(folder.path())?;
    assert_eq!(code, Some(0), "{findings:#}");
    Ok(())
}
