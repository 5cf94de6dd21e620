//! One ledger, one writer, one life: a second agent on a folder, and files that vanish while an agent runs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::json;
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    client::Client,
    process::Process,
    seed,
    stub::{Keys, Stub},
    wait,
};

use crate::{agent, stub};

/// How long an agent may take to end by itself.
const END_MAX: Duration = Duration::from_secs(20);

/// An agent that records while its network is switched off, and all that its application got a 200 for.
struct World {
    stub: Stub,
    agent: Agent,
    app: Client,
    granted: i64,
}

impl World {
    fn new(keys: Keys) -> Result<Self> {
        let stub = stub(&[seed::license(100_000, json!({}))], keys)?;
        let agent = agent(&stub)?;
        agent.add_license()?;
        let app = agent.app("inspector")?;
        agent.network("offline")?;
        let mut world = Self {
            stub,
            agent,
            app,
            granted: 0,
        };
        world.add(5)?;
        Ok(world)
    }

    /// Consumes, and returns the status.
    fn add(&mut self, units: i64) -> Result<u16> {
        let reply = self.app.add(units)?;
        self.granted += if reply.status == 200 { units } else { 0 };
        Ok(reply.status)
    }

    /// Consumes until the agent takes it: what was refused is not recorded.
    fn add_again(&mut self) -> Result {
        wait::until("a consumption", || self.add(20), |status| *status == 200).map(|_| ())
    }

    fn folder(&self) -> PathBuf {
        self.agent.data_dir()
    }

    fn ledger(&self) -> PathBuf {
        self.folder().join("ledger.db")
    }

    /// The server has counted what was granted, and `tally verify` finds nothing wrong.
    fn check(&mut self) -> Result {
        self.agent.restart()?;
        self.agent.wait_settled(0)?;
        assert_eq!(self.stub.total(1)?, self.granted);
        let verify = self.agent.tally(&["verify"])?;
        assert_eq!(verify.status.code(), Some(0), "{verify:?}");
        Ok(())
    }
}

fn remove(path: &Path) -> Result {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn control(url: &str, agent: &Agent, path: &str, body: &serde_json::Value) -> Result<u16> {
    let client = reqwest::blocking::Client::builder().no_proxy().build()?;
    let request = client.request(Method::PUT, format!("{url}{path}"));
    let request = request
        .bearer_auth(agent.admin_token()?)
        .header("content-type", "application/json")
        .body(body.to_string());
    Ok(request.send()?.status().as_u16())
}

/// The lock file is removed, so that a second agent starts on the folder; then the first one goes online.
fn a_second_agent_stops_the_first(keys: Keys) -> Result {
    let mut world = World::new(keys)?;
    fs::remove_file(world.folder().join("agent.lock"))?;
    let log = world.agent.log().with_extension("second");
    let second = Process::start(&mut world.agent.run_command(), &log)?;
    let first = world.agent.url()?.to_owned();
    // The first one may notice before it answers.
    let _ = control(
        &first,
        &world.agent,
        "/v1/network",
        &json!({"mode": "online"}),
    );
    let _ = world.app.add(1);
    let app = world.app.at(second.url());
    assert_eq!(app.add(1)?.status, 200);
    world.granted += 1;
    let ended = world.agent.ended_within(END_MAX)?;
    assert_eq!(ended.code(), Some(1), "{}", world.agent.said()?);
    let said = world.agent.said()?;
    assert!(said.contains("another agent writes this ledger"), "{said}");
    world.agent.wait_settled(0)?;
    assert_eq!(world.stub.total(1)?, world.granted);
    assert!(!second.said()?.contains("another agent"));
    drop(second);
    world.check()
}

#[test]
fn a_second_agent_stops_the_first_and_a_server_with_keys_counts_once() -> Result {
    a_second_agent_stops_the_first(Keys::Kept)
}

#[test]
fn a_second_agent_stops_the_first_and_a_server_without_keys_counts_once() -> Result {
    a_second_agent_stops_the_first(Keys::NotKept)
}

/// Something happens to the files of a running agent; it records on, and is then killed.
fn nothing_is_lost(what: impl Fn(&World) -> Result) -> Result {
    let mut world = World::new(Keys::NotKept)?;
    what(&world)?;
    for _ in 0..5 {
        world.add_again()?;
    }
    world.agent.kill()?;
    let said = world.agent.said()?;
    assert!(
        said.contains("ERROR") && said.contains("written back"),
        "{said}"
    );
    world.check()
}

#[test]
fn a_ledger_that_is_deleted_under_an_agent_is_written_back() -> Result {
    nothing_is_lost(|world| {
        for suffix in ["", "-wal", "-shm"] {
            remove(&world.folder().join(format!("ledger.db{suffix}")))?;
        }
        Ok(())
    })
}

#[test]
fn a_ledger_that_is_deleted_without_its_log_is_written_back() -> Result {
    nothing_is_lost(|world| remove(&world.ledger()))
}

#[test]
fn a_log_that_is_deleted_under_an_agent_loses_nothing() -> Result {
    nothing_is_lost(|world| remove(&world.folder().join("ledger.db-wal")))
}

#[test]
fn a_folder_that_is_deleted_under_an_agent_is_made_again_with_its_ledger() -> Result {
    nothing_is_lost(|world| Ok(fs::remove_dir_all(world.folder())?))
}

#[test]
fn a_folder_that_is_moved_away_under_an_agent_is_made_again_with_its_ledger() -> Result {
    nothing_is_lost(|world| {
        let folder = world.folder();
        Ok(fs::rename(&folder, folder.with_extension("moved"))?)
    })
}

#[test]
fn a_ledger_that_is_moved_away_under_an_agent_is_written_back() -> Result {
    nothing_is_lost(|world| Ok(fs::rename(world.ledger(), world.folder().join("mine.db"))?))
}

#[test]
fn a_ledger_that_is_deleted_is_written_back_at_the_latest_when_the_agent_stops() -> Result {
    let mut world = World::new(Keys::NotKept)?;
    for suffix in ["", "-wal", "-shm"] {
        remove(&world.folder().join(format!("ledger.db{suffix}")))?;
    }
    world.agent.terminate()?;
    world.check()
}

#[test]
fn a_folder_that_is_deleted_under_an_idle_agent_that_owes_is_made_again() -> Result {
    let mut world = World::new(Keys::NotKept)?;
    fs::remove_dir_all(world.folder())?;
    let status = world.agent.tally(&["status"])?;
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(said.contains("start no other"), "{said}");
    wait::until(
        "the ledger to be written back",
        || Ok(world.ledger().exists()),
        |exists| *exists,
    )?;
    world.agent.kill()?;
    world.check()
}

#[test]
fn a_ledger_that_was_written_back_says_so() -> Result {
    let mut world = World::new(Keys::Kept)?;
    remove(&world.ledger())?;
    assert_eq!(world.add(1)?, 507);
    world.add_again()?;
    let status = world.agent.json(&["status"])?;
    assert_eq!(status["written_back"], json!(1), "{status:#}");
    assert_eq!(status["storage"], json!("ok"), "{status:#}");
    let page = world.agent.tally(&["status"])?;
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("written back"), "{page}");
    let log = world.agent.json(&["log"])?;
    let mut rows = log.as_array().into_iter().flatten();
    assert!(
        rows.any(|row| row["kind"] == "recovery" && row["state"] == "written_back"),
        "{log:#}"
    );
    world.agent.network("online")?;
    world.agent.wait_settled(0)?;
    assert_eq!(world.stub.total(1)?, world.granted);
    world.agent.terminate()?;
    world.check()
}

#[test]
fn another_ledger_at_its_place_is_left_alone_and_the_agents_own_is_kept() -> Result {
    let mut world = World::new(Keys::Kept)?;
    let backup = world.folder().join("backup.db");
    let made = world
        .agent
        .tally(&["backup", &backup.display().to_string()])?;
    assert!(made.status.success(), "{made:?}");
    world.add(7)?;
    fs::rename(&backup, world.ledger())?;
    let before = fs::read(world.ledger())?;
    assert_ne!(world.app.add(1).map_or(0, |reply| reply.status), 200);
    let ended = world.agent.ended_within(END_MAX)?;
    let said = world.agent.said()?;
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("ledger.db.rescued-1"), "{said}");
    assert_eq!(fs::read(world.ledger())?, before, "it was changed");
    assert!(!world.folder().join("ledger.db-wal").exists());
    // By the book: what the agent held goes back to its place.
    let kept = world.folder().join("ledger.db.rescued-1");
    fs::rename(kept, world.ledger())?;
    world.check()
}

#[test]
fn doctor_sends_nobody_to_restart_an_agent_that_holds_the_only_copy() -> Result {
    let world = World::new(Keys::Kept)?;
    for suffix in ["", "-wal", "-shm"] {
        remove(&world.folder().join(format!("ledger.db{suffix}")))?;
    }
    let doctor = world.agent.tally(&["doctor", "--json"])?;
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout)?;
    let checks = report["checks"].as_array().context("checks")?;
    let ledger = checks.iter().find(|check| check["name"] == "ledger");
    let fix = ledger.context("the ledger's check")?["fix"].to_string();
    assert!(
        fix.contains("do not stop it") && fix.contains("tally sync"),
        "{fix}"
    );
    assert!(!fix.contains("start the agent again"), "{fix}");
    Ok(())
}

/// `/dev/shm` is in memory on every Linux.
#[cfg(target_os = "linux")]
#[test]
fn a_data_directory_in_memory_is_warned_of() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let memory = Path::new("/dev/shm");
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    let agent = Agent::start_in(memory, program, stub.url(), &Setup::default())?;
    assert!(agent.said()?.contains("tmpfs"), "{}", agent.said()?);
    let status = agent.json(&["status"])?;
    assert_eq!(status["risky_file_system"]["name"], json!("tmpfs"));
    let page = String::from_utf8_lossy(&agent.tally(&["status"])?.stdout).into_owned();
    assert!(page.contains("the data directory is on tmpfs"), "{page}");
    let doctor = agent.tally(&["doctor"])?;
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains("PROBLEM") && said.contains("tmpfs"), "{said}");
    Ok(())
}
