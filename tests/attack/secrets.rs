//! Files with secrets, and what of them shows.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use serde_json::json;
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    seed,
    stub::{Keys, Stub},
};

/// Writes a file that only its owner can read.
pub(crate) fn write_secret(path: &Path, content: &str) -> Result {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(content.as_bytes())?;
    Ok(())
}

fn stub() -> Result<Stub> {
    let seed = seed::seed(&[seed::license(100, json!({}))]);
    Stub::start(env!("CARGO_BIN_EXE_stub-under-test"), &seed, Keys::Kept)
}

fn agent(stub: &Stub) -> Result<Agent> {
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    Agent::start(program, stub.url(), &Setup::default())
}

fn set_mode(path: &Path, mode: u32) -> Result {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

#[test]
fn what_is_secret_and_can_be_read_by_others_is_not_used_and_the_mending_is_said() -> Result {
    let stub = stub()?;
    let mut agent = agent(&stub)?;
    agent.app("inspector")?;
    agent.terminate()?;
    let folder = agent.data_dir();
    let apps = folder.join("apps");
    let mut found = vec![(folder.clone(), 0o755, 0o700), (apps.clone(), 0o750, 0o700)];
    for entry in fs::read_dir(apps)? {
        found.push((entry?.path(), 0o640, 0o600));
    }
    for name in ["admin_token", "chain_key", "private_key.pem"] {
        found.push((folder.join(name), 0o604, 0o600));
    }
    for (path, open, closed) in found {
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, closed);
        set_mode(&path, open)?;
        let refused = agent.run_command().output()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        let mending = format!("chmod {closed:o} '{}'", path.display());
        assert!(said.contains(&mending), "{said}");
        let doctor = agent.tally(&["doctor"])?;
        assert_eq!(doctor.status.code(), Some(1));
        set_mode(&path, closed)?;
    }
    agent.restart()
}

#[test]
fn a_config_file_with_credentials_is_its_owners_alone() -> Result {
    let stub = stub()?;
    let mut agent = agent(&stub)?;
    agent.terminate()?;
    let config = agent.data_dir().join("tally.toml");
    fs::write(&config, "[server]\nshared_key = \"hush\"\n")?;
    set_mode(&config, 0o644)?;
    let run = || agent.run_command().arg("--config").arg(&config).output();
    let said = String::from_utf8_lossy(&run()?.stderr).into_owned();
    let mending = format!("chmod 600 '{}'", config.display());
    assert!(said.contains(&mending) && !said.contains("hush"), "{said}");
    Ok(())
}

#[test]
fn credentials_of_a_service_come_in_files_of_their_own() -> Result {
    let stub = stub()?;
    let mut agent = agent(&stub)?;
    agent.terminate()?;
    let folder = agent.data_dir().join("credentials");
    fs::create_dir(&folder)?;
    set_mode(&folder, 0o700)?;
    let run = |mode: u32| -> Result<String> {
        set_mode(&folder.join("server_api_key"), mode)?;
        let mut command = agent.run_command();
        command
            .env("CREDENTIALS_DIRECTORY", &folder)
            .env_remove("TALLY_SERVER_API_KEY")
            .env_remove("TALLY_SERVER_SHARED_KEY");
        // Ends at once: it has no shared key.
        let output = command.output()?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    write_secret(&folder.join("server_api_key"), "key\n")?;
    assert!(run(0o644)?.contains("chmod 640"));
    let said = run(0o600)?;
    assert!(said.contains("TALLY_SERVER_SHARED_KEY"), "{said}");
    Ok(())
}

#[test]
fn no_licence_key_and_no_credential_is_logged() -> Result {
    let stub = stub()?;
    let mut agent = agent(&stub)?;
    agent.restart_with(&[("TALLY_LOG", "trace")])?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    assert_eq!(app.add(1)?.status, 200);
    agent.wait_settled(0)?;
    stub.edit(1, json!({"license_enabled": false}))?;
    assert_eq!(app.add(1)?.status, 200);
    let _ = agent.tally(&["sync"])?;
    let metrics = agent.metrics()?;
    assert!(metrics.contains("holder=\"…DDDD\""), "{metrics}");
    assert!(!metrics.contains(seed::KEY), "{metrics}");
    let said = agent.said()?;
    assert!(said.contains("TRACE") || said.contains("DEBUG"), "{said}");
    for secret in [seed::KEY, seed::SHARED_KEY, &agent.admin_token()?] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
    Ok(())
}
