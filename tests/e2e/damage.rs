//! A damaged ledger at a start: it is kept, what can be read of it is salvaged, and nothing that is owed
//! is forgotten.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::Agent,
    client::{by_key, by_user},
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent, stub};

const PAGE: usize = 4096;

/// An agent that was killed with a ledger of 300 rows of two licences, settled ones and owed ones.
struct World {
    stub: Stub,
    agent: Agent,
    /// What the licences were granted.
    granted: [i64; 2],
}

impl World {
    /// `has_log` leaves a part of it in the write-ahead log only.
    fn new(has_log: bool) -> Result<Self> {
        let licenses = [
            seed::license(100_000, json!({})),
            seed::user_license(100_000, json!({})),
        ];
        let stub = stub(&licenses, Keys::Kept)?;
        let mut agent = agent(&stub)?;
        let app = agent.app("inspector")?;
        agent.add_license()?;
        agent.add_user_license()?;
        let mut granted = [0, 0];
        let mut add = |rows: i64| -> Result {
            for row in 0..rows {
                let units = 1 + row % 5;
                let (license, body) = match row % 3 {
                    0 => (1, by_user(units)),
                    _ => (0, by_key(units)),
                };
                let reply = app.post("/api/v4/add_consumption", &body)?;
                assert_eq!(reply.status, 200, "{}", reply.text);
                granted[license] += units;
            }
            Ok(())
        };
        add(150)?;
        agent.wait_settled(0)?;
        agent.wait_settled(1)?;
        agent.network("offline")?;
        add(150)?;
        if has_log {
            agent.kill()?;
        } else {
            agent.terminate()?;
        }
        Ok(Self {
            stub,
            agent,
            granted,
        })
    }

    fn path(&self) -> PathBuf {
        self.agent.data_dir().join("ledger.db")
    }

    /// Changes the ledger's bytes; returns them.
    fn damage(&self, change: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>> {
        let mut bytes = fs::read(self.path())?;
        change(&mut bytes);
        fs::write(self.path(), &bytes)?;
        Ok(bytes)
    }

    /// The pages of a table or an index, its root first.
    fn pages(&self, name: &str) -> Result<Vec<usize>> {
        let ledger = Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let root: usize = ledger
            .query_row(sql, [name], |row| row.get::<_, i64>(0))?
            .try_into()?;
        let bytes = fs::read(self.path())?;
        let mut pages = vec![root];
        let start = (root - 1) * PAGE;
        let number = |at: usize, length: usize| {
            let bytes = bytes.get(at..at + length).unwrap_or_default();
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        };
        if matches!(bytes.get(start), Some(2 | 5)) {
            for cell in 0..number(start + 3, 2) {
                pages.push(number(start + number(start + 12 + 2 * cell, 2), 4));
            }
            pages.push(number(start + 8, 4));
        }
        Ok(pages)
    }

    /// The start refuses and says what to do, twice the same; what is missing is then accepted.
    fn accept(&mut self) -> Result<Value> {
        for _ in 0..2 {
            let output = self.agent.run_command().output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("tally doctor --accept-recovery"), "{said}");
        }
        assert_eq!(kept(&self.agent.data_dir())?.len(), 1);
        let doctor = self.agent.tally(&["doctor"])?;
        let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert_eq!(doctor.status.code(), Some(1), "{said}");
        assert!(said.contains("PROBLEM  recovery"), "{said}");
        self.agent.json(&["doctor", "--accept-recovery"])
    }

    /// The agent starts; all that was granted is counted, or held for a person.
    fn finish(&mut self, damaged: &[u8]) -> Result<i64> {
        let kept = kept(&self.agent.data_dir())?;
        assert_eq!(kept.len(), 1);
        assert_eq!(fs::read(kept[0].join("ledger.db"))?, damaged);
        self.agent.restart()?;
        let status = wait::until(
            "what is owed to be sent",
            || self.agent.json(&["status"]),
            |status| status["synced"] == json!(true) && status["busy"] == json!(false),
        )?;
        let sum = |name: &str| -> i64 {
            let licenses = status["licenses"].as_array().into_iter().flatten();
            licenses
                .filter_map(|found| found["conservation"][name].as_i64())
                .sum()
        };
        let counted = [self.stub.total(1)?, self.stub.total(2)?];
        assert!(counted[0] <= self.granted[0] && counted[1] <= self.granted[1]);
        let counted: i64 = counted.iter().sum();
        let held = sum("held");
        assert_eq!(
            counted + held,
            self.granted.iter().sum::<i64>(),
            "{status:#}"
        );
        let verified = self.agent.json(&["verify"])?;
        assert_eq!(verified["faults"], json!([]));
        let log = self.agent.json(&["log"])?.to_string();
        assert!(log.contains("\"recovery\""), "{log}");
        Ok(held)
    }
}

/// The folders of damaged ledgers.
fn kept(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(data_dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("damaged-") {
            kept.push(entry.path());
        }
    }
    Ok(kept)
}

fn overwrite(bytes: &mut [u8], page: usize) {
    let start = (page - 1) * PAGE;
    for (index, byte) in bytes[start..start + PAGE].iter_mut().enumerate() {
        *byte = u8::try_from(index * 7 % 251).unwrap_or_default();
    }
}

#[test]
fn a_page_of_rows_is_overwritten() -> Result {
    let mut world = World::new(false)?;
    let pages = world.pages("consumptions")?;
    let page = pages[pages.len() / 2];
    let damaged = world.damage(|bytes| overwrite(bytes, page))?;
    let report = world.accept()?;
    assert!(report["missing_rows"].as_i64() > Some(0), "{report:#}");
    assert!(report["missing_units"].as_i64() > Some(0), "{report:#}");
    assert_eq!(
        world.finish(&damaged)?,
        0,
        "batches and sums say what is owed"
    );
    Ok(())
}

#[test]
fn the_root_of_the_rows_is_overwritten() -> Result {
    let mut world = World::new(false)?;
    let page = world.pages("consumptions")?[0];
    let damaged = world.damage(|bytes| overwrite(bytes, page))?;
    world.agent.restart()?;
    assert_eq!(world.finish(&damaged)?, 0);
    Ok(())
}

#[test]
fn the_header_is_zeroed() -> Result {
    let mut world = World::new(false)?;
    let damaged = world.damage(|bytes| bytes[..100].fill(0))?;
    world.agent.restart()?;
    assert!(world.agent.said()?.contains("all of it was salvaged"));
    assert_eq!(world.finish(&damaged)?, 0);
    Ok(())
}

#[test]
fn the_file_is_cut_to_half() -> Result {
    let mut world = World::new(false)?;
    let damaged = world.damage(|bytes| bytes.truncate(bytes.len() / 2))?;
    world.accept()?;
    world.finish(&damaged)?;
    Ok(())
}

#[test]
fn garbage_in_the_middle_beside_a_log() -> Result {
    let mut world = World::new(true)?;
    assert!(fs::metadata(world.path().with_extension("db-wal"))?.len() > 0);
    let damaged = world.damage(|bytes| {
        let middle = bytes.len() / 2;
        let end = (middle + 3000).min(bytes.len());
        bytes[middle..end].fill(0xa5);
    })?;
    let log = world.path().with_extension("db-wal");
    let mut bytes = fs::read(&log)?;
    // Behind its newest frames, the log holds older ones and zeros.
    let (header, frame) = (32, 24 + PAGE);
    let frames = bytes[header..].chunks_exact(frame);
    let newest = frames.take_while(|frame| frame[8..16] == bytes[16..24]);
    let middle = header + newest.count() / 2 * frame + frame / 2;
    bytes[middle..middle + 100].fill(0xa5);
    fs::write(&log, bytes)?;
    world.accept()?;
    world.finish(&damaged)?;
    Ok(())
}

#[test]
fn an_index_is_overwritten() -> Result {
    let mut world = World::new(false)?;
    let page = world.pages("batches_of_lane")?[0];
    let damaged = world.damage(|bytes| overwrite(bytes, page))?;
    world.agent.restart()?;
    assert!(world.agent.said()?.contains("all of it was salvaged"));
    assert_eq!(world.finish(&damaged)?, 0);
    Ok(())
}

#[test]
fn the_batches_are_overwritten() -> Result {
    let mut world = World::new(false)?;
    let pages = world.pages("batches")?;
    let damaged = world.damage(|bytes| {
        for page in pages {
            overwrite(bytes, page);
        }
    })?;
    let report = world.accept()?;
    let held = world.finish(&damaged)?;
    assert!(held > 0);
    // A person decides, and the server counts them.
    for batch in report["held"].as_array().into_iter().flatten() {
        let number = batch["batch"].to_string();
        world.agent.json(&["resolve", &number, "--not-applied"])?;
    }
    world.agent.wait_settled(0)?;
    world.agent.wait_settled(1)?;
    assert_eq!([world.stub.total(1)?, world.stub.total(2)?], world.granted);
    Ok(())
}

#[test]
fn the_ledger_is_gone_and_others_are_there() -> Result {
    let mut world = World::new(false)?;
    let bytes = fs::read(world.path())?;
    fs::remove_file(world.path())?;
    let output = world.agent.run_command().output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("it is gone"), "{said}");
    assert!(!world.path().exists(), "it does not start empty");
    // Somebody finds it again.
    fs::write(world.path(), bytes)?;
    world.agent.restart()?;
    world.agent.wait_settled(0)?;
    world.agent.wait_settled(1)?;
    assert_eq!([world.stub.total(1)?, world.stub.total(2)?], world.granted);
    Ok(())
}

#[test]
fn the_ledger_is_gone_and_its_log_is_there() -> Result {
    let mut world = World::new(true)?;
    fs::remove_file(world.path())?;
    world.agent.restart().or_else(|_| -> Result {
        world.accept()?;
        world.agent.restart()
    })?;
    wait::until(
        "what is owed to be sent",
        || world.agent.json(&["status"]),
        |status| status["synced"] == json!(true),
    )?;
    let status = world.agent.json(&["status"])?;
    let licenses = status["licenses"].as_array().into_iter().flatten();
    let held: i64 = licenses
        .filter_map(|found| found["conservation"]["held"].as_i64())
        .sum();
    let counted = world.stub.total(1)? + world.stub.total(2)?;
    let mut report = String::new();
    for folder in kept(&world.agent.data_dir())? {
        report += &fs::read_to_string(folder.join("report.json"))?;
    }
    assert_eq!(
        counted + held,
        world.granted.iter().sum::<i64>(),
        "{status:#} {report}"
    );
    Ok(())
}

#[test]
fn an_accepted_loss_is_not_reported_again() -> Result {
    let mut world = World::new(false)?;
    let pages = world.pages("consumptions")?;
    let damaged = world.damage(|bytes| overwrite(bytes, pages[1]))?;
    world.accept()?;
    world.finish(&damaged)?;
    world.agent.terminate()?;
    world.agent.restart()?;
    let doctor = world.agent.json(&["doctor"])?;
    assert_eq!(doctor["ok"], json!(true), "{doctor:#}");
    assert_eq!(kept(&world.agent.data_dir())?.len(), 1);
    let again = world.agent.tally(&["doctor", "--accept-recovery"])?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("another tally runs"), "{said}");
    world.agent.terminate()?;
    let again = world.agent.tally(&["doctor", "--accept-recovery"])?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("no recovery waits"), "{said}");
    Ok(())
}
