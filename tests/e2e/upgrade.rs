//! A ledger of an older version, under an agent of this one.

use rusqlite::Connection;
use serde_json::json;
use tally_tests::{Result, agent::Agent, client::by_user, seed, stub::Keys};

use crate::{agent_with, disk::Tmpfs, stub};

/// Takes away what version 6 brought.
const BEFORE_6: &str = "DROP TABLE names;
    ALTER TABLE batches DROP COLUMN refusals; ALTER TABLE batches DROP COLUMN peer;
    ALTER TABLE batches DROP COLUMN dropped; ALTER TABLE batches DROP COLUMN refused;
    ALTER TABLE accounts DROP COLUMN refused;
    ALTER TABLE accounts DROP COLUMN allow_seq; ALTER TABLE accounts DROP COLUMN max_seq;
    ALTER TABLE accounts DROP COLUMN pool; PRAGMA user_version = 5;";

/// Makes the ledger one of version 3: what the later versions brought is taken away.
fn make_older(agent: &Agent) -> Result {
    let ledger = Connection::open(agent.data_dir().join("ledger.db"))?;
    ledger.execute_batch(BEFORE_6)?;
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

/// Somebody, or another program, has changed the older ledger so that its upgrade fails in the middle: nothing of it is
/// damaged, so nothing is salvaged, and the older version goes on with it.
#[test]
fn an_upgrade_that_fails_is_refused_and_leaves_the_ledger_as_it_was() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = owing(stub.url())?;
    make_older(&agent)?;
    let path = agent.data_dir().join("ledger.db");
    let change = |sql: &str| -> Result { Ok(Connection::open(&path)?.execute_batch(sql)?) };
    change("ALTER TABLE batches ADD COLUMN peer TEXT")?;
    let before = std::fs::read(&path)?;
    for _ in 0..2 {
        let refused = agent.run_command().output()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(
            said.contains("cannot upgrade the ledger") && said.contains("duplicate column"),
            "{said}"
        );
        assert!(std::fs::read(&path)? == before, "the ledger was changed");
        for entry in std::fs::read_dir(agent.data_dir())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_new = ["damaged", "recover", ".v3"].map(|it| name.contains(it));
            assert!(!is_new.contains(&true), "{name} was written");
        }
    }
    change("ALTER TABLE batches DROP COLUMN peer")?;
    agent.restart()?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5);
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

#[test]
fn the_copies_of_a_licence_that_an_older_version_made_are_one() -> Result {
    let stub = stub(&[seed::user_license(10, json!({}))], Keys::Kept)?;
    let mut agent = agent_with(stub.url(), &[])?;
    let app = agent.app("inspector")?;
    agent.add_user_license()?;
    agent.terminate()?;
    let ledger = Connection::open(agent.data_dir().join("ledger.db"))?;
    ledger.execute_batch(BEFORE_6)?;
    for copy in 2..=4 {
        let sql = "INSERT INTO licenses
                   SELECT ?1, product, holder_field, holder_value, id, body, blocked, refreshed_at
                   FROM licenses WHERE no = 1";
        ledger.execute(sql, [copy])?;
        let sql = "INSERT INTO devices (license, hardware_id) VALUES (?1, ?2)";
        ledger.execute(sql, (copy, seed::DEVICE))?;
        ledger.execute_batch(&format!(
            "CREATE TEMP TABLE one AS SELECT * FROM accounts WHERE no = 1;
             UPDATE one SET no = {copy}, license = {copy}, seal = NULL;
             INSERT INTO accounts SELECT * FROM one; DROP TABLE one;"
        ))?;
    }
    drop(ledger);
    agent.restart()?;
    let said = agent.said()?;
    assert!(said.contains("upgraded the ledger"), "{said}");
    let known = agent.json(&["license", "list"])?;
    assert_eq!(known.as_array().map(Vec::len), Some(1), "{known}");
    let app = app.at(agent.url()?);
    for (units, status) in [(9, 200), (2, 400), (1, 200)] {
        let reply = app.post("/api/v4/add_consumption", &by_user(units))?;
        assert_eq!(reply.status, status, "{}", reply.text);
    }
    agent.wait_settled(0)?;
    assert_eq!(stub.total(2)?, 10);
    let looks = stub.requests()?;
    let looks = looks
        .iter()
        .filter(|request| request["path"] == "/api/v4/check_license");
    assert!(looks.count() <= 4, "each copy was read");
    agent.json(&["license", "remove", seed::USER])?;
    agent.terminate()?;
    agent.restart()?;
    let known = agent.json(&["license", "list"])?;
    assert_eq!(known, json!([]), "a copy came back");
    Ok(())
}
