//! What people take out of a ledger: rows, and copies of all of it.

use std::fs;

use serde_json::{Value, json};
use tally_tests::{
    Result,
    client::{by_key, by_user},
    seed,
    stub::Keys,
    wait,
};

use crate::{agent, stub};

fn lines(output: &std::process::Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn rows_are_exported_by_time_licence_and_application() -> Result {
    let licenses = [
        seed::license(100, json!({})),
        seed::user_license(100, json!({})),
    ];
    let stub = stub(&licenses, Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    agent.add_user_license()?;
    let (one, other) = (agent.app("inspector")?, agent.app("planner")?);
    for units in 1..=3 {
        assert_eq!(
            one.post("/api/v4/add_consumption", &by_key(units))?.status,
            200
        );
    }
    assert_eq!(
        other.post("/api/v4/add_consumption", &by_user(4))?.status,
        200
    );
    let export = |flags: &[&str]| agent.tally(&[&["export"], flags].concat());

    let csv = lines(&export(&[])?);
    assert_eq!(csv.len(), 5, "{csv:?}");
    assert!(
        csv[0].starts_with("seq,kind,at,time_proven,app,"),
        "{csv:?}"
    );
    assert!(csv[4].contains(",planner,inspect,username,"), "{csv:?}");
    let rows = |flags: &[&str]| -> Result<Vec<Value>> {
        let lines = lines(&export(&[&["--format", "jsonl"], flags].concat())?);
        let rows = lines.iter().map(|line| serde_json::from_str(line));
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    };
    let units =
        |rows: &[Value]| -> i64 { rows.iter().filter_map(|row| row["units"].as_i64()).sum() };
    assert_eq!(units(&rows(&[])?), 10);
    assert_eq!(units(&rows(&["--app", "planner"])?), 4);
    assert_eq!(units(&rows(&["--license", seed::KEY])?), 6);
    assert_eq!(units(&rows(&["--product", "another"])?), 0);
    let second = rows(&[])?[1]["at"].as_str().unwrap_or_default().to_owned();
    let (before, from) = (rows(&["--until", &second])?, rows(&["--since", &second])?);
    assert_eq!(units(&before) + units(&from), 10);
    assert!(before.len() < 4 && !from.is_empty());
    let file = agent.data_dir().join("rows.csv");
    let output = export(&["--output", &file.display().to_string()])?;
    assert!(output.stdout.is_empty());
    assert_eq!(fs::read_to_string(file)?.lines().count(), 5);
    assert_eq!(export(&["--since", "soon"])?.status.code(), Some(2));
    Ok(())
}

#[test]
fn a_copy_of_a_running_ledger_can_be_put_back_and_nothing_is_counted_twice() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::NotKept)?;
    let mut agent = agent(&stub)?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    agent.network("offline")?;
    assert_eq!(app.add(5)?.status, 200);
    let file = agent.data_dir().join("copy.db");
    let name = file.display().to_string();
    let backup = agent.tally(&["backup", &name])?;
    assert!(backup.status.success(), "{backup:?}");
    let again = agent.tally(&["backup", &name])?;
    assert_eq!(again.status.code(), Some(1), "a copy was overwritten");
    agent.network("online")?;
    agent.wait_settled(0)?;
    agent.terminate()?;
    let ledger = agent.data_dir().join("ledger.db");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(ledger.with_extension(format!("db{suffix}")));
    }
    fs::rename(file, ledger)?;
    agent.restart()?;
    let status = wait::until(
        "what the copy owes to be decided",
        || agent.json(&["status"]),
        |status| status["synced"] == json!(true),
    )?;
    assert_eq!(status["evidence"], json!(1), "{status:#}");
    assert_eq!(status["licenses"][0]["conservation"]["settled"], json!(5));
    assert_eq!(stub.total(1)?, 5);
    Ok(())
}

#[test]
fn the_status_shows_at_a_glance_what_is_used_and_what_is_left() -> Result {
    let license = seed::license(
        100,
        json!({"reset_consumption": true, "consumption_period": "monthly"}),
    );
    let stub = stub(&[license], Keys::Kept)?;
    let agent = agent(&stub)?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    assert_eq!(app.add(25)?.status, 200);
    agent.wait_settled(0)?;
    agent.network("offline")?;
    assert_eq!(app.add(25)?.status, 200);
    let page = agent.tally(&["status"])?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    let bar = "██████▓▓▓▓▓▓░░░░░░░░░░░░ 50 of 100 used · 50 left · 25 not counted yet · resets in ";
    assert!(page.contains(bar), "{page}");
    assert!(
        page.contains("50 recorded = 25 settled + 25 pending\n"),
        "{page}"
    );
    assert!(
        page.starts_with("● offline for ") && page.contains("tally network online"),
        "{page}"
    );
    Ok(())
}

#[test]
fn shells_and_manuals_know_the_commands() -> Result {
    let stub = stub(&[seed::license(1, json!({}))], Keys::Kept)?;
    let agent = agent(&stub)?;
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = agent.tally(&["completions", shell])?;
        let script = String::from_utf8_lossy(&script.stdout).into_owned();
        assert!(
            script.contains("doctor") && script.contains("resolve"),
            "{shell}"
        );
    }
    let folder = agent.data_dir().join("man");
    let made = agent.tally(&["man", &folder.display().to_string()])?;
    assert!(made.status.success(), "{made:?}");
    let page = fs::read_to_string(folder.join("tally-doctor.1"))?;
    assert!(page.contains(".TH tally-doctor 1"), "{page}");
    Ok(())
}
