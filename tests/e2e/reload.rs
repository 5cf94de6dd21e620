//! Settings that change while the agent runs, and what it tells its service manager and its log.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixDatagram,
    },
    path::Path,
    time::Duration,
};

use serde_json::json;
use tally_tests::{Result, agent::Agent, process::Process, seed, stub::Keys, wait};

use crate::{agent_with, stub};

/// Waits until the agent has said something.
fn said(agent: &Agent, wanted: &str) -> Result<String> {
    wait::until(wanted, || agent.said(), |said| said.contains(wanted))
}

fn write(path: &Path, text: &str) -> Result {
    Ok(fs::write(path, text)?)
}

#[test]
fn a_hangup_takes_up_what_can_be_and_names_what_needs_a_restart() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tally.toml");
    write(&file, "sync_interval = \"1h\"\n")?;
    let agent = agent_with(stub.url(), &["--config", &file.display().to_string()])?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    assert_eq!(app.add(5)?.status, 200);
    assert_eq!(agent.sums(0)?.pending, 5);

    write(&file, "sync_interval = \"50ms\"\n[log]\ndays = 3\n")?;
    agent.hang_up()?;
    agent.wait_settled(0)?;
    let text = said(&agent, "a changed setting needs a restart")?;
    assert!(text.contains("taken_up=\"sync_interval\""), "{text}");
    assert!(text.contains("settings=\"log.days\""), "{text}");

    // One that cannot be used changes nothing.
    write(&file, "sync_interval = \"1h\"\nretention = 5\n")?;
    agent.hang_up()?;
    let text = said(&agent, "the old ones stay")?;
    assert!(text.contains("line 2: a duration is text"), "{text}");
    assert_eq!(app.add(3)?.status, 200);
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 8);
    Ok(())
}

#[test]
fn credentials_that_were_put_right_are_used_at_once() -> Result {
    let stub = stub(&[seed::license(100, json!({}))], Keys::Kept)?;
    let mut agent = agent_with(stub.url(), &[])?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.terminate()?;
    let folder = tempfile::tempdir()?;
    let credential = |name: &str, value: &str| -> Result {
        let path = folder.path().join(name);
        write(&path, value)?;
        Ok(fs::set_permissions(
            path,
            fs::Permissions::from_mode(0o600),
        )?)
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
    credential("server_api_key", seed::API_KEY)?;
    credential("server_shared_key", "another")?;
    let mut command = agent.run_command();
    command
        .env_remove("TALLY_SERVER_API_KEY")
        .env_remove("TALLY_SERVER_SHARED_KEY")
        .env("CREDENTIALS_DIRECTORY", folder.path());
    let process = Process::start(&mut command, &agent.log())?;
    assert_eq!(app.at(process.url()).add(5)?.status, 200);
    wait::until(
        "the server to refuse the credentials",
        || agent.json(&["status"]),
        |status| status["connection"]["state"] == "refused",
    )?;
    assert_eq!(stub.total(1)?, 0);

    credential("server_shared_key", seed::SHARED_KEY)?;
    process.hang_up()?;
    agent.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 5);
    Ok(())
}

#[test]
fn the_keys_of_another_server_wait_for_its_address() -> Result {
    let licenses = [seed::license(100, json!({}))];
    let (here, elsewhere) = (stub(&licenses, Keys::Kept)?, stub(&licenses, Keys::Kept)?);
    let mut agent = agent_with(here.url(), &[])?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.terminate()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("tally.toml");
    write(&file, "")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let server = |url: &str, shared_key: &str| {
        let (api_key, times) = (seed::API_KEY, "sync_interval = \"50ms\"\n");
        let keys = format!("api_key = \"{api_key}\"\nshared_key = \"{shared_key}\"\n");
        write(&file, &format!("{times}[server]\nurl = \"{url}\"\n{keys}"))
    };
    server(here.url(), seed::SHARED_KEY)?;
    let config = file.display().to_string();
    let mut command = agent.command(&["run", "--listen", "127.0.0.1:0", "--config", &config]);
    command
        .env_remove("TALLY_SERVER_API_KEY")
        .env_remove("TALLY_SERVER_SHARED_KEY");
    let process = Process::start(&mut command, &agent.log())?;

    server(elsewhere.url(), "another")?;
    process.hang_up()?;
    let text = said(&agent, "a changed setting needs a restart")?;
    assert!(text.contains("all of [server]"), "{text}");
    assert!(text.contains("taken_up=\"nothing\""), "{text}");
    assert_eq!(app.at(process.url()).add(3)?.status, 200);
    agent.wait_settled(0)?;
    assert_eq!((here.total(1)?, elsewhere.total(1)?), (3, 0));
    Ok(())
}

#[test]
fn a_service_manager_that_asks_is_told_when_it_is_ready_reloads_and_stops() -> Result {
    let mut agent = agent_with("http://127.0.0.1:9", &[])?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(Duration::from_secs(30)))?;
    let heard = || -> Result<String> {
        let mut message = [0; 256];
        let length = manager.recv(&mut message)?;
        Ok(String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned())
    };
    agent.restart_with(&[("NOTIFY_SOCKET", &path.display().to_string())])?;
    assert_eq!(heard()?, "READY=1\n");
    agent.hang_up()?;
    assert!(heard()?.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(heard()?, "READY=1\n");
    assert!(agent.terminate()?.success());
    assert_eq!(heard()?, "STOPPING=1\n");
    Ok(())
}

#[test]
fn the_journal_gets_priorities_and_no_times() -> Result {
    let mut agent = agent_with("http://127.0.0.1:9", &[])?;
    let log = fs::metadata(agent.log())?;
    let stream = format!("{}:{}", log.dev(), log.ino());
    agent.restart_with(&[("JOURNAL_STREAM", &stream)])?;
    agent.hang_up()?;
    said(&agent, "<6>read the settings again taken_up=\"nothing\"\n").map(|_| ())
}

#[test]
fn a_log_file_is_the_agents_alone_and_a_link_to_that_of_the_day() -> Result {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("log/tally.log");
    let flags = ["--log-file", &file.display().to_string()];
    let mut agent = agent_with("http://127.0.0.1:9", &flags)?;
    agent.hang_up()?;
    wait::until(
        "the log to say so",
        || Ok(fs::read_to_string(&file)?),
        |text| text.contains("read the settings again"),
    )?;
    assert_eq!(agent.said()?, "");
    let of_the_day = fs::read_link(&file)?;
    let name = of_the_day.file_name().unwrap_or_default().to_string_lossy();
    assert!(name.starts_with("tally.log.20"), "{name}");
    assert_eq!(fs::metadata(&file)?.mode() & 0o777, 0o600);

    // What is no log of ours is left alone.
    agent.terminate()?;
    fs::remove_file(&file)?;
    write(&file, "somebody's")?;
    let refused = agent.run_command().output()?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains("is not a log of tally's"), "{text}");
    assert_eq!(fs::read_to_string(&file)?, "somebody's");
    Ok(())
}
