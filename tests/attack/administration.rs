//! The administrator's commands on a service that has a user of its own, and what that user may plant for them.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::Path,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tally_tests::Result;

use crate::{
    service_user::{Service, USER, is_root},
    target::Target,
};

#[track_caller]
fn check_all_are(path: &Path, user: u32) -> Result {
    let found = fs::symlink_metadata(path)?;
    assert_eq!(found.uid(), user, "{}", path.display());
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            check_all_are(&entry?.path(), user)?;
        }
    }
    Ok(())
}

#[track_caller]
fn check_succeeds(output: &std::process::Output) {
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn root_adds_and_revokes_on_a_service_that_runs_and_it_holds_at_once_and_after_a_restart() -> Result
{
    if !is_root() {
        return Ok(());
    }
    let mut service = Service::new()?;
    service.start()?;
    let keys = service.add_app("till")?;
    let till = service.client(&keys)?;
    assert_eq!(till.add(1)?.status, 200);
    check_all_are(&service.data("apps"), USER)?;
    check_succeeds(&service.root(&["app", "revoke", "till"])?);
    assert_eq!(till.add(1)?.code().as_deref(), Some("revoked_api_key"));
    check_all_are(&service.data("apps"), USER)?;
    service.stop()?;
    service.start()?;
    let till = service.client(&keys)?;
    assert_eq!(till.add(1)?.code().as_deref(), Some("revoked_api_key"));
    Ok(())
}

#[test]
fn root_adds_and_revokes_on_a_service_that_does_not_run_and_its_user_gets_the_files() -> Result {
    if !is_root() {
        return Ok(());
    }
    let mut service = Service::new()?;
    // As with systemd's dynamic users, the folder above is root's alone.
    let data_dir = service.agent.data_dir();
    let above = data_dir.parent().context("a folder above")?;
    fs::set_permissions(above, fs::Permissions::from_mode(0o700))?;
    let kept = service.add_app("kept")?;
    let gone = service.add_app("gone")?;
    check_succeeds(&service.root(&["app", "revoke", "gone"])?);
    let twice = service.root(&["app", "add", "kept"])?;
    let said = String::from_utf8_lossy(&twice.stderr).into_owned();
    assert!(said.contains("there is an application"), "{said}");
    check_all_are(&data_dir, USER)?;
    fs::set_permissions(above, fs::Permissions::from_mode(0o755))?;
    service.start()?;
    assert_eq!(service.client(&kept)?.add(1)?.status, 200);
    let refused = service.client(&gone)?.add(1)?;
    assert_eq!(refused.code().as_deref(), Some("revoked_api_key"));
    Ok(())
}

#[test]
fn root_follows_no_link_that_the_services_user_has_planted() -> Result {
    if !is_root() {
        return Ok(());
    }
    let service = Service::new()?;
    let elsewhere = service.folder().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    let (apps, aside) = (service.data("apps"), service.data("aside"));
    // Where only root may write, and where the service's user may write as well.
    for owner in [0, USER] {
        chown(&elsewhere, Some(owner), Some(owner))?;
        fs::rename(&apps, &aside)?;
        symlink(&elsewhere, &apps)?;
        let refused = service.root(&["app", "add", "planted"])?;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        fs::write(elsewhere.join("victim.json"), "{}")?;
        let refused = service.root(&["app", "revoke", "victim"])?;
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let found = fs::read_dir(&elsewhere)?.count();
        assert_eq!(found, 1, "nothing was made or removed");
        fs::remove_file(elsewhere.join("victim.json"))?;
        fs::remove_file(&apps)?;
        fs::rename(&aside, &apps)?;
    }
    // A file of another name, and the lock.
    let secret = service.folder().join("secret");
    fs::write(
        &secret,
        r#"{"name":"x","api_key":"secret-key","shared_key":"s"}"#,
    )?;
    symlink(&secret, apps.join("linked.json"))?;
    let listed = service.root(&["app", "list"])?;
    let said = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(!said.contains("secret-key"), "{said}");
    // The socket of another program, which root would be let in by.
    let other = service.folder().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&other)?;
    listener.set_nonblocking(true)?;
    let planted = service.data("tally.sock");
    let _ = fs::remove_file(&planted);
    symlink(&other, &planted)?;
    service.root(&["app", "add", "planted"])?;
    service.root(&["status"])?;
    assert!(listener.accept().is_err(), "root was led to another socket");
    fs::remove_file(&planted)?;
    // The ledger itself, which these commands use as root.
    let ledger = service.data("ledger.db");
    fs::rename(&ledger, service.data("ledger.aside"))?;
    fs::write(&secret, "not yours")?;
    symlink(&secret, &ledger)?;
    let copy = service.folder().join("copy").display().to_string();
    for args in [
        ["export"].as_slice(),
        &["verify"],
        &["backup", &copy],
        &["doctor"],
        &["doctor", "--accept-recovery"],
    ] {
        let refused = service.root(args)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("ledger.db is a link"), "{args:?}: {said}");
    }
    assert_eq!(fs::read_to_string(&secret)?, "not yours");
    fs::remove_file(&ledger)?;
    fs::rename(service.data("ledger.aside"), &ledger)?;
    let lock = service.data("agent.lock");
    let made = service.folder().join("made");
    fs::remove_file(&lock)?;
    symlink(&made, &lock)?;
    service.root(&["doctor"])?;
    service.root(&["app", "add", "another"])?;
    assert!(!made.exists(), "root has made a file through a link");
    Ok(())
}

#[test]
fn a_part_that_cannot_be_read_keeps_no_key_alive_and_stops_no_start() -> Result {
    if !is_root() {
        return Ok(());
    }
    let mut service = Service::new()?;
    let keys = service.add_app("till")?;
    let other = service.add_app("other")?;
    service.start()?;
    assert_eq!(service.client(&keys)?.add(1)?.status, 200);
    // As an earlier version left it.
    let revoked = service.data("apps/revoked");
    fs::create_dir_all(&revoked)?;
    fs::set_permissions(&revoked, fs::Permissions::from_mode(0o700))?;
    chown(&revoked, Some(0), Some(0))?;
    service.root(&["app", "revoke", "till"])?;
    let refused = service.client(&keys)?.add(1)?;
    assert_eq!(refused.status, 400, "{}", refused.text);
    // Another file that nobody but root can read.
    let strange = service.data("apps/strange.json");
    fs::write(&strange, "{}")?;
    fs::set_permissions(&strange, fs::Permissions::from_mode(0o600))?;
    service.stop()?;
    service.start()?;
    let refused = service.client(&keys)?.add(1)?;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(service.client(&other)?.add(1)?.status, 200);
    Ok(())
}

#[test]
fn applications_are_made_and_revoked_over_the_control_api_by_the_token_alone() -> Result {
    let mut target = Target::start()?;
    let client = reqwest::blocking::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/apps", target.agent.url()?);
    let post = |body: &Value| {
        let post = client.post(&url).body(body.to_string());
        post.header("content-type", "application/json")
    };
    let token = target.token.clone();
    let made = post(&json!({"name": "till", "rights": {"product": "inspect"}}));
    let made = made.bearer_auth(&token).send()?;
    assert_eq!(made.status(), 200);
    let keys: Value = serde_json::from_str(&made.text()?)?;
    let text = |name: &str| keys[name].as_str().context("a key pair");
    let till = tally_tests::client::Client::new(
        target.agent.url()?,
        text("api_key")?,
        text("shared_key")?,
    )?;
    assert_eq!(till.add(1)?.status, 200);
    target.count(1);
    let twice = post(&json!({"name": "till"})).bearer_auth(&token).send()?;
    assert_eq!(twice.status(), 400);
    for name in ["../till", "", ".hidden", "a/b", "till\u{1b}"] {
        let refused = post(&json!({"name": name})).bearer_auth(&token).send()?;
        assert_eq!(refused.status(), 400, "{name:?}");
    }
    let unknown = post(&json!({"name": "x", "rights": {"everything": true}}));
    assert_eq!(unknown.bearer_auth(&token).send()?.status(), 400);

    // A browser that was let in must not make keys that outlive its session.
    let link = target.agent.json(&["dashboard"])?;
    let browser = reqwest::blocking::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let opened = browser
        .get(link["url"].as_str().context("a link")?)
        .send()?;
    if let Some(cookie) = opened.headers().get("set-cookie") {
        let cookie = cookie.to_str()?.split(';').next().unwrap_or_default();
        let by_browser = post(&json!({"name": "lasting"}))
            .header("cookie", cookie)
            .header("origin", target.agent.url()?);
        assert_eq!(by_browser.send()?.status(), 401);
    }
    assert_eq!(post(&json!({"name": "nobody"})).send()?.status(), 401);

    let gone = client.delete(format!("{url}/till")).bearer_auth(&token);
    assert_eq!(gone.send()?.status(), 200);
    assert_eq!(till.add(1)?.code().as_deref(), Some("revoked_api_key"));
    let again = client.delete(format!("{url}/till")).bearer_auth(&token);
    assert_eq!(again.send()?.status(), 404);
    let climbing = client.delete(format!("{url}/..%2fadmin_token"));
    assert_eq!(climbing.bearer_auth(&token).send()?.status(), 400);
    target.check_unharmed()
}
