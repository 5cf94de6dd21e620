//! A ledger that is copied, or put back: what it owes is counted once where the server can tell, and else nothing is sent
//! until somebody says what became of the original.

use std::{fs, path::Path, process::Command};

use anyhow::ensure;
use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::Agent,
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent, stub};

/// What a stopped agent owes.
const OWED: i64 = 17;

fn run(command: &mut Command) -> Result {
    let status = command.status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn cp(from: &Path, to: &Path) -> Result {
    run(Command::new("cp").arg("-a").arg(from).arg(to))
}

fn tar(from: &Path, to: &Path) -> Result {
    let archive = to.with_extension("tar");
    // The stopped agent left no socket; a lock file is copied as any other.
    run(Command::new("tar")
        .arg("-C")
        .arg(from)
        .arg("-cf")
        .arg(&archive)
        .arg("."))?;
    fs::create_dir(to)?;
    run(Command::new("tar")
        .arg("-C")
        .arg(to)
        .arg("-xpf")
        .arg(&archive))
}

/// An agent that owes units, and was stopped.
fn owing(keys: Keys) -> Result<(Stub, Agent)> {
    let stub = stub(&[seed::license(1000, json!({}))], keys)?;
    let mut agent = agent(&stub)?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    assert_eq!(app.add(3)?.status, 200);
    agent.wait_settled(0)?;
    agent.network("offline")?;
    for units in [5, 5, 7] {
        assert_eq!(app.add(units)?.status, 200);
    }
    agent.terminate()?;
    Ok((stub, agent))
}

fn copy_status(agent: &Agent) -> Result<Value> {
    Ok(agent.json(&["status"])?["copy"].take())
}

/// Nobody is told of a copy, and the ledger is whole.
#[track_caller]
fn is_clean(agent: &Agent) -> Result {
    let status = agent.json(&["status"])?;
    assert_eq!(status["copy"], Value::Null, "{status:#}");
    assert_eq!(status["evidence"], json!(0), "{status:#}");
    let verify = agent.tally(&["verify"])?;
    assert_eq!(verify.status.code(), Some(0), "{verify:?}");
    let page = agent.tally(&["status"])?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(
        !page.contains("copy") && !page.contains("behind the agent's back"),
        "{page}"
    );
    Ok(())
}

/// The copy is found, and says what to type.
#[track_caller]
fn is_found(agent: &Agent) -> Result {
    let copy = copy_status(agent)?;
    assert_eq!(copy["what"], json!("copied"), "{copy:#}");
    assert_eq!(copy["differs"], json!("file"), "{copy:#}");
    let page = agent.tally(&["status"])?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(
        page.contains("this is a copy of") && page.contains("tally device moved"),
        "{page}"
    );
    let verify = agent.tally(&["verify"])?;
    assert_eq!(verify.status.code(), Some(1), "{verify:?}");
    assert!(agent.said()?.contains("this ledger is a copy"));
    let doctor = agent.tally(&["doctor"])?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        said.contains("PROBLEM") && said.contains("tally device"),
        "{said}"
    );
    Ok(())
}

fn wait_held(agent: &Agent, units: i64) -> Result {
    let heard = |status: &Value| {
        status["licenses"][0]["conservation"]["held"] == json!(units)
            && status["connection"]["last_answer_ms"].is_number()
    };
    wait::until(
        "the copy's units to be held",
        || agent.json(&["status"]),
        heard,
    )?;
    Ok(())
}

/// The original and its copy both go online.
fn both_live(how: fn(&Path, &Path) -> Result, keys: Keys) -> Result {
    let (stub, mut original) = owing(keys)?;
    let mut copy = original.copied(how)?;
    copy.restart()?;
    is_found(&copy)?;
    original.restart()?;
    original.wait_settled(0)?;
    is_clean(&original)?;
    match keys {
        Keys::Kept => {
            copy.wait_settled(0)?;
        }
        Keys::NotKept => wait_held(&copy, OWED)?,
    }
    assert_eq!(stub.total(1)?, 3 + OWED);
    // Another start asks nobody again, and sends nothing.
    copy.terminate()?;
    copy.restart()?;
    assert_eq!(stub.total(1)?, 3 + OWED);
    let said = copy.json(&["device", "new", "--reason", "a second one"])?;
    assert!(said["seq"].is_i64(), "{said}");
    is_clean(&copy)?;
    let app = copy.app("planner")?;
    assert_eq!(app.add(2)?.status, 200);
    wait::until(
        "what is new",
        || stub.total(1),
        |total| *total == 3 + OWED + 2,
    )?;
    let waived = copy.json(&["status"])?["licenses"][0]["conservation"]["waived"].take();
    assert_eq!(waived, json!(if keys == Keys::Kept { 0 } else { OWED }));
    copy.terminate()?;
    copy.restart()?;
    is_clean(&copy)?;
    let again = copy.tally(&["device", "new"])?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        said.contains("nothing says that this ledger is a copy"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_copied_folder_is_counted_once_by_a_server_with_keys() -> Result {
    both_live(cp, Keys::Kept)
}

#[test]
fn a_copied_folder_sends_nothing_unasked_to_a_server_without_keys() -> Result {
    both_live(cp, Keys::NotKept)
}

#[test]
fn an_unpacked_folder_is_counted_once_by_a_server_with_keys() -> Result {
    both_live(tar, Keys::Kept)
}

#[test]
fn an_unpacked_folder_sends_nothing_unasked_to_a_server_without_keys() -> Result {
    both_live(tar, Keys::NotKept)
}

/// A whole folder is put back from a backup, after what it owed was counted.
fn put_back(keys: Keys) -> Result {
    let (stub, mut agent) = owing(keys)?;
    let folder = agent.data_dir();
    let backup = folder.with_extension("backup");
    cp(&folder, &backup)?;
    agent.restart()?;
    agent.wait_settled(0)?;
    let app = agent.app("planner")?;
    assert_eq!(app.add(4)?.status, 200);
    agent.wait_settled(0)?;
    agent.terminate()?;
    fs::remove_dir_all(&folder)?;
    fs::rename(&backup, &folder)?;
    agent.restart()?;
    is_found(&agent)?;
    // The total moved by more than what is owed: the original may have counted these rows under other ids.
    wait_held(&agent, OWED)?;
    assert_eq!(stub.total(1)?, 3 + OWED + 4);
    agent.json(&["device", "moved"])?;
    is_clean(&agent)?;
    match keys {
        Keys::Kept => {
            agent.wait_settled(0)?;
        }
        // Others moved the total, or rows that are not known here any more: a person decides.
        Keys::NotKept => {
            wait::until(
                "the total to be compared",
                || agent.json(&["status"]),
                |status| status["licenses"][0]["held"][0]["reason"] == json!("undecidable"),
            )?;
        }
    }
    assert_eq!(stub.total(1)?, 3 + OWED + 4);
    Ok(())
}

#[test]
fn a_folder_that_is_put_back_is_counted_once_by_a_server_with_keys() -> Result {
    put_back(Keys::Kept)
}

/// The folder is written over in place: its files keep their numbers and their times of birth.
fn put_back_in_place(copied: impl Fn(&mut Agent, &Path, &Path) -> Result) -> Result {
    let (stub, mut agent) = owing(Keys::NotKept)?;
    let folder = agent.data_dir();
    let backup = folder.with_extension("backup");
    copied(&mut agent, &folder, &backup)?;
    agent.network("online")?;
    agent.wait_settled(0)?;
    let app = agent.app("planner")?;
    assert_eq!(app.add(4)?.status, 200);
    agent.wait_settled(0)?;
    agent.terminate()?;
    let counted = stub.total(1)?;
    run(Command::new("cp")
        .arg("-a")
        .arg(backup.join("."))
        .arg(&folder))?;
    agent.restart()?;
    is_found(&agent)?;
    wait_held(&agent, OWED)?;
    assert_eq!(stub.total(1)?, counted);
    Ok(())
}

#[test]
fn a_folder_that_is_written_over_in_place_with_its_copy_is_found() -> Result {
    put_back_in_place(|agent, folder, backup| {
        cp(folder, backup)?;
        agent.restart()
    })
}

#[test]
fn so_is_one_whose_copy_was_made_while_the_agent_ran() -> Result {
    put_back_in_place(|agent, folder, backup| {
        agent.restart()?;
        agent.wait_settled(0)?;
        agent.network("offline")?;
        let app = agent.app("surveyor")?;
        assert_eq!(app.add(OWED)?.status, 200);
        cp(folder, backup)
    })
}

#[test]
fn a_folder_that_is_put_back_sends_nothing_unasked_to_a_server_without_keys() -> Result {
    put_back(Keys::NotKept)
}

/// The disk goes into another device: what is owed is sent when somebody has said so.
#[test]
fn what_a_moved_device_owes_is_sent_to_a_server_without_keys_when_it_is_said_to_be_moved() -> Result
{
    let (stub, original) = owing(Keys::NotKept)?;
    let mut moved = original.copied(cp)?;
    moved.restart()?;
    is_found(&moved)?;
    wait_held(&moved, OWED)?;
    assert_eq!(stub.total(1)?, 3);
    moved.json(&["device", "moved"])?;
    is_clean(&moved)?;
    moved.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 3 + OWED);
    Ok(())
}

/// What was sent before the copy was made, and has no answer yet, is told by the total.
#[test]
fn a_moved_device_whose_units_were_counted_already_sends_them_never() -> Result {
    let (stub, mut original) = owing(Keys::NotKept)?;
    let mut moved = original.copied(cp)?;
    original.restart()?;
    original.wait_settled(0)?;
    original.terminate()?;
    moved.restart()?;
    wait_held(&moved, OWED)?;
    moved.json(&["device", "moved"])?;
    moved.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 3 + OWED);
    is_clean(&moved)
}

/// A backup by the book, put back by the book: one sentence, and then clean.
#[test]
fn a_restore_by_the_book_is_said_once_and_answered_once() -> Result {
    let stub = stub(&[seed::license(1000, json!({}))], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    let file = agent.data_dir().join("backup.db");
    let made = agent.tally(&["backup", &file.display().to_string()])?;
    assert!(made.status.success(), "{made:?}");
    is_clean(&agent)?;
    agent.network("online")?;
    agent.wait_settled(0)?;
    agent.terminate()?;
    fs::rename(file, agent.data_dir().join("ledger.db"))?;
    agent.restart()?;
    let copy = copy_status(&agent)?;
    assert_eq!(copy["what"], json!("older_copy"), "{copy:#}");
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5);
    agent.json(&["device", "moved", "--reason", "restored"])?;
    is_clean(&agent)?;
    agent.terminate()?;
    agent.restart()?;
    is_clean(&agent)
}

/// The device died, and its backup goes into another one, where neither key nor mark are.
#[test]
fn a_backup_on_another_device_is_answered_once_and_then_clean() -> Result {
    let stub = stub(&[seed::license(1000, json!({}))], Keys::NotKept)?;
    let mut agent = agent(&stub)?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    let file = agent.log().with_extension("db");
    let made = agent.tally(&["backup", &file.display().to_string()])?;
    assert!(made.status.success(), "{made:?}");
    agent.kill()?;
    let mut other = agent.copied(|_, to| {
        fs::create_dir(to)?;
        run(Command::new("chmod").arg("700").arg(to))?;
        Ok(fs::rename(&file, to.join("ledger.db"))?)
    })?;
    other.restart()?;
    is_found(&other)?;
    wait_held(&other, 5)?;
    other.json(&["device", "moved"])?;
    is_clean(&other)?;
    other.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5);
    other.terminate()?;
    other.restart()?;
    is_clean(&other)
}

#[test]
fn ordinary_life_raises_no_doubt() -> Result {
    let stub = stub(&[seed::license(1000, json!({}))], Keys::Kept)?;
    let mut agent = agent(&stub)?;
    agent.add_license()?;
    agent.network("offline")?;
    let variables: [&[(&str, &str)]; 5] = [
        &[],
        &[("container", "docker")],
        &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")],
        &[("HOSTNAME", "another")],
        &[("TZ", "Asia/Tokyo")],
    ];
    let app = agent.app("inspector")?;
    for variables in variables {
        let app = app.at(agent.url()?);
        for _ in 0..20 {
            assert_eq!(app.add(1)?.status, 200);
        }
        let file = agent
            .data_dir()
            .with_extension(format!("{}", variables.len()));
        let _ = fs::remove_file(&file);
        let made = agent.tally(&["backup", &file.display().to_string()])?;
        assert!(made.status.success(), "{made:?}");
        agent.kill()?;
        agent.restart_with(variables)?;
        is_clean(&agent)?;
    }
    // The folder is mounted elsewhere, and back.
    agent.terminate()?;
    let (folder, other) = (agent.data_dir(), agent.data_dir().with_extension("other"));
    fs::rename(&folder, &other)?;
    fs::rename(&other, &folder)?;
    agent.restart()?;
    is_clean(&agent)?;
    let sums = agent.wait_settled(0)?;
    assert_eq!((sums.recorded, stub.total(1)?), (100, 100));
    Ok(())
}

/// What was written back after it had been moved away is the ledger; the file that was moved away is a copy.
#[test]
fn a_ledger_that_was_moved_away_and_is_started_elsewhere_is_a_copy() -> Result {
    let stub = stub(&[seed::license(1000, json!({}))], Keys::NotKept)?;
    let mut agent = agent(&stub)?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    assert_eq!(app.add(OWED)?.status, 200);
    let away = agent.data_dir().with_extension("away");
    fs::rename(agent.data_dir(), &away)?;
    wait::until(
        "it to be written back",
        || Ok(app.add(1)?.status),
        |status| *status == 200,
    )?;
    agent.terminate()?;
    let mut other = agent.copied(|_, to| Ok(fs::rename(&away, to)?))?;
    other.restart()?;
    is_found(&other)?;
    agent.restart()?;
    agent.wait_settled(0)?;
    wait_held(&other, OWED)?;
    assert_eq!(stub.total(1)?, OWED + 1);
    is_clean(&agent)
}
