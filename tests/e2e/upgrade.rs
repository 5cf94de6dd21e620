//! A ledger of an older version, under an agent of this one.

use rusqlite::Connection;
use serde_json::json;
use tally_tests::{Result, agent::Agent, seed, stub::Keys};

use crate::{agent_with, disk::Tmpfs, stub};

/// Makes the ledger one of version 3: what versions 4 and 5 brought is taken away.
fn make_older(agent: &Agent) -> Result {
    let ledger = Connection::open(agent.data_dir().join("ledger.db"))?;
    ledger.execute_batch(
        "DROP TABLE judgements; ALTER TABLE accounts DROP COLUMN stale; PRAGMA user_version = 3",
    )?;
    Ok(())
}

fn version(agent: &Agent, file: &str) -> Result<i64> {
    let ledger = Connection::open(agent.data_dir().join(file))?;
    Ok(ledger.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// An agent that was stopped offline while it owes five units.
fn owing(server_url: &str) -> Result<Agent> {
    let mut agent = agent_with(server_url, &[])?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    agent.terminate()?;
    Ok(agent)
}

#[test]
fn an_upgrade_keeps_a_copy_and_what_is_owed_is_sent() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = owing(stub.url())?;
    make_older(&agent)?;
    agent.restart()?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5);
    assert_eq!(version(&agent, "ledger.db.v3-1")?, 3);
    let said = agent.said()?;
    assert!(said.contains("upgraded the ledger"), "{said}");
    assert!(agent.tally(&["verify"])?.status.success());
    Ok(())
}

#[test]
fn on_a_full_disk_the_upgrade_waits_and_the_ledger_is_left_alone() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = agent_with(stub.url(), &[])?;
    agent.terminate()?;
    let Some(disk) = Tmpfs::mount(&agent.data_dir()) else {
        // Mounting takes rights that not every machine gives; the ledger's own tests need none.
        return Ok(());
    };
    agent.restart()?;
    agent.add_license()?;
    agent.terminate()?;
    make_older(&agent)?;
    disk.fill()?;
    let refused = agent.run_command().output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("cannot upgrade the ledger") && said.contains("make space"),
        "{said}"
    );
    assert_eq!(version(&agent, "ledger.db")?, 3);
    assert!(!agent.data_dir().join("ledger.db.v3-1").exists());
    disk.make_space()?;
    agent.restart()?;
    assert_eq!(version(&agent, "ledger.db.v3-1")?, 3);
    Ok(())
}
