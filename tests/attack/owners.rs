//! Files with secrets that somebody else owns, and those that systemd hands over.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use serde_json::json;
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    seed,
    stub::{Keys, Stub},
};

use crate::{
    secrets::write_secret,
    service_user::{Service, USER, give, is_root, refusal},
};

fn agent() -> Result<(Stub, Agent)> {
    let seed = seed::seed(&[seed::license(100, json!({}))]);
    let stub = Stub::start(env!("CARGO_BIN_EXE_stub-under-test"), &seed, Keys::Kept)?;
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    let agent = Agent::start(program, stub.url(), &Setup::default())?;
    Ok((stub, agent))
}

#[track_caller]
fn check_refuses(command: &mut Command, mending: &str) -> Result {
    let said = refusal(command)?;
    assert!(said.contains("exit status: 1"), "{said}");
    assert!(said.contains(mending), "{said}");
    Ok(())
}

#[test]
fn what_is_secret_and_belongs_to_another_user_is_not_used() -> Result {
    if !is_root() {
        return Ok(());
    }
    let (_stub, mut agent) = agent()?;
    agent.add_license()?;
    let app = agent.app("inspector")?;
    agent.terminate()?;
    let folder = agent.data_dir();
    let mut found = vec![folder.clone()];
    for name in ["admin_token", "chain_key", "private_key.pem"] {
        found.push(folder.join(name));
    }
    for path in found {
        chown(&path, Some(USER), Some(USER))?;
        let mending = format!("chown 0 '{}'", path.display());
        check_refuses(&mut agent.run_command(), &mending)?;
        chown(&path, Some(0), Some(0))?;
    }
    // Without these, the agent goes on: they were not made by it.
    for path in [folder.join("apps/inspector.json"), folder.join("apps")] {
        agent.restart()?;
        assert_eq!(app.at(agent.url()?).add(1)?.status, 200);
        chown(&path, Some(USER), Some(USER))?;
        let _ = agent.tally(&["app", "add", "another"])?;
        agent.restart()?;
        let refused = app.at(agent.url()?).add(1)?;
        assert_eq!(refused.code().as_deref(), Some("invalid_api_key"));
        chown(&path, Some(0), Some(0))?;
    }
    Ok(())
}

#[test]
fn keys_of_tls_and_a_config_file_with_credentials_belong_to_oneself_or_to_root() -> Result {
    if !is_root() {
        return Ok(());
    }
    let (_stub, mut agent) = agent()?;
    agent.terminate()?;
    let folder = tempfile::tempdir()?;
    let made = rcgen::generate_simple_self_signed(vec!["site.example".to_owned()])?;
    let (key, cert) = (
        folder.path().join("key.pem"),
        folder.path().join("cert.pem"),
    );
    write_secret(&key, &made.signing_key.serialize_pem())?;
    fs::write(&cert, made.cert.pem())?;
    chown(&key, Some(USER), Some(USER))?;
    let mending = format!("chown 0 '{}'", key.display());
    for flags in [
        ["--tls-cert", "--tls-key", "--listen-public"].as_slice(),
        &["--server-client-cert", "--server-client-key"],
    ] {
        let mut command = agent.run_command();
        command.arg(flags[0]).arg(&cert).arg(flags[1]).arg(&key);
        command.args(&flags[2..]);
        check_refuses(&mut command, &mending)?;
    }
    let config = folder.path().join("tally.toml");
    write_secret(&config, "[server]\nshared_key = \"hush\"\n")?;
    chown(&config, Some(USER), Some(USER))?;
    let mending = format!("chown 0 '{}'", config.display());
    check_refuses(agent.run_command().arg("--config").arg(&config), &mending)
}

/// Lets one user more read a file or look into a folder, as `setfacl -m u:USER:rX` does.
fn let_read(path: &Path, user: u32) -> Result {
    const NOBODY: u32 = u32::MAX;
    let may = if path.is_dir() { 5 } else { 4 };
    // The owner, the user, the group, the mask, and all others.
    let entries = [
        (1, may, NOBODY),
        (2, may, user),
        (4, 0, NOBODY),
        (16, may, NOBODY),
        (32, 0, NOBODY),
    ];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (kind, may, who) in entries {
        acl.extend_from_slice(&u16::to_le_bytes(kind));
        acl.extend_from_slice(&u16::to_le_bytes(may));
        acl.extend_from_slice(&u32::to_le_bytes(who));
    }
    let flags = rustix::fs::XattrFlags::empty();
    Ok(rustix::fs::setxattr(
        path,
        "system.posix_acl_access",
        &acl,
        flags,
    )?)
}

/// As systemd from version 254 on makes them: root's, and the service's user may read by an ACL.
#[test]
fn credentials_that_the_service_reads_by_an_acl_are_its_own() -> Result {
    if !is_root() {
        return Ok(());
    }
    let mut service = Service::new()?;
    let folder = service.folder().join("credentials");
    fs::create_dir(&folder)?;
    let files = [
        ("server_api_key", seed::API_KEY),
        ("server_shared_key", seed::SHARED_KEY),
    ];
    for (name, content) in files {
        let path = folder.join(name);
        write_secret(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
        let_read(&path, USER)?;
        assert_eq!(fs::metadata(&path)?.mode() & 0o777, 0o440);
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500))?;
    let_read(&folder, USER)?;
    assert_eq!(fs::metadata(&folder)?.mode() & 0o777, 0o550);

    let command = |service: &Service| {
        let mut command = service.run_command();
        command
            .env("CREDENTIALS_DIRECTORY", &folder)
            .env_remove("TALLY_SERVER_API_KEY")
            .env_remove("TALLY_SERVER_SHARED_KEY");
        command
    };
    let mut with_credentials = command(&service);
    service.start_by(&mut with_credentials)?;
    service.stop()?;

    // Others may not read them, and nobody but root and oneself may have made them.
    let path = folder.join("server_api_key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444))?;
    check_refuses(&mut command(&service), "can be read by other users")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o460))?;
    check_refuses(&mut command(&service), "can be read by other users")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440))?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555))?;
    check_refuses(&mut command(&service), "can be read by other users")?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o550))?;
    give(&path, USER - 1)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o440))?;
    check_refuses(&mut command(&service), "belongs to another user")
}
