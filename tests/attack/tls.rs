//! An agent that serves other devices: by TLS, under its certificate's names, and not without.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use anyhow::Context as _;
use reqwest::blocking::Client;
use serde_json::json;
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    seed,
    stub::{Keys, Stub},
    wait,
};
use tempfile::TempDir;

use crate::{
    raw::Raw,
    secrets::write_secret,
    service_user::{USER, is_root},
};

/// Writes a certificate of its own for a name, with its key.
fn write_certificate(folder: &Path, name: &str) -> Result<String> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])?;
    write_secret(&folder.join("key.pem"), &made.signing_key.serialize_pem())?;
    fs::write(folder.join("cert.pem"), made.cert.pem())?;
    Ok(made.cert.pem())
}

fn public_agent(stub: &Stub, folder: &Path) -> Result<Agent> {
    let file = |name: &str| folder.join(name).display().to_string();
    let flags = [
        "--listen-public",
        "--tls-cert",
        &file("cert.pem"),
        "--tls-key",
        &file("key.pem"),
    ];
    let flags = flags.map(str::to_owned).to_vec();
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    Agent::start(program, stub.url(), &Setup { flags })
}

fn stub() -> Result<Stub> {
    let seed = seed::seed(&[seed::license(10, json!({}))]);
    Stub::start(env!("CARGO_BIN_EXE_stub-under-test"), &seed, Keys::Kept)
}

/// A client that trusts one certificate, and finds a name where the agent listens.
fn client(certificate: &str, name: &str, agent: &Agent) -> Result<(Client, String)> {
    let address = agent.url()?.trim_start_matches("https://").parse()?;
    let client = Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(certificate.as_bytes())?])
        .resolve(name, address)
        .build()?;
    Ok((client, format!("https://{name}:{}", address.port())))
}

#[test]
fn other_devices_find_it_by_its_certificate_and_under_its_name_only() -> Result {
    let (folder, stub) = (TempDir::new()?, stub()?);
    let certificate = write_certificate(folder.path(), "site.example")?;
    let agent = public_agent(&stub, folder.path())?;
    assert!(agent.url()?.starts_with("https://"), "{}", agent.url()?);
    let (client, url) = client(&certificate, "site.example", &agent)?;
    let status = |host: Option<&str>, origin: Option<String>| -> Result<u16> {
        let mut request = client.get(format!("{url}/healthz"));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        Ok(request.send()?.status().as_u16())
    };
    assert_eq!(status(None, None)?, 200);
    assert_eq!(status(None, Some(url.clone()))?, 200);
    assert_eq!(status(None, Some(url.replace("https", "http")))?, 403);
    assert_eq!(status(None, Some("https://evil.example".to_owned()))?, 403);
    for host in [
        "evil.example",
        "localhost",
        "127.0.0.1",
        "site.example.evil.example",
    ] {
        assert_eq!(status(Some(host), None)?, 403, "{host}");
    }
    // Control calls want the token here as well, and commands use the socket as always.
    let control = client.get(format!("{url}/v1/status")).send()?;
    assert_eq!(control.status(), 401);
    agent.add_license()?;
    Ok(())
}

#[test]
fn who_speaks_no_tls_gets_no_answer() -> Result {
    let (folder, stub) = (TempDir::new()?, stub()?);
    write_certificate(folder.path(), "site.example")?;
    let agent = public_agent(&stub, folder.path())?;
    let address = agent.url()?.trim_start_matches("https://").parse()?;
    let mut raw = Raw::connect(address)?;
    raw.send(b"GET /healthz HTTP/1.1\r\nHost: site.example\r\n\r\n")?;
    let said = raw.closed()?;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    // A client that never shakes hands holds nobody up.
    let _silent: Vec<_> = (0..50).map(|_| TcpStream::connect(address)).collect();
    agent.add_license()?;
    Ok(())
}

#[test]
fn a_certificate_that_was_replaced_is_served_and_a_broken_one_is_not() -> Result {
    let (folder, stub) = (TempDir::new()?, stub()?);
    let first = write_certificate(folder.path(), "first.example")?;
    let agent = public_agent(&stub, folder.path())?;
    let reaches = |certificate: &str, name: &str| -> Result<bool> {
        // A client of its own: a kept connection would shake no hands.
        let (client, url) = client(certificate, name, &agent)?;
        Ok(client.get(format!("{url}/healthz")).send().is_ok())
    };
    assert!(reaches(&first, "first.example")?);
    fs::write(folder.path().join("key.pem"), "not a key")?;
    let noticed = |said: &String| said.contains("the certificate stays as it was");
    let look = || -> Result<String> {
        assert!(reaches(&first, "first.example")?);
        agent.said()
    };
    wait::until("the broken key to be noticed", look, noticed)?;
    let second = write_certificate(folder.path(), "second.example")?;
    let look = || reaches(&second, "second.example");
    wait::until("the new certificate", look, |reached| *reached)?;
    assert!(!reaches(&first, "first.example")?);
    Ok(())
}

#[test]
fn a_renewed_key_that_others_can_read_or_own_is_not_served() -> Result {
    let (folder, stub) = (TempDir::new()?, stub()?);
    let first = write_certificate(folder.path(), "first.example")?;
    let agent = public_agent(&stub, folder.path())?;
    let key = folder.path().join("key.pem");
    let spoil = |user: u32, mode: u32| -> Result<String> {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode))?;
        if user != 0 {
            chown(&key, Some(user), Some(user))?;
        }
        let renewed = rcgen::generate_simple_self_signed(vec!["second.example".to_owned()])?;
        fs::write(&key, renewed.signing_key.serialize_pem())?;
        fs::write(folder.path().join("cert.pem"), renewed.cert.pem())?;
        Ok(renewed.cert.pem())
    };
    let reaches = |certificate: &str, name: &str| -> Result<bool> {
        let (client, url) = client(certificate, name, &agent)?;
        Ok(client.get(format!("{url}/healthz")).send().is_ok())
    };
    let check_stays = |second: &str, why: &str| -> Result {
        let look = || -> Result<(bool, String)> {
            Ok((reaches(second, "second.example")?, agent.said()?))
        };
        let (was_served, said) =
            wait::until("the key to be looked at", look, |(was_served, said)| {
                *was_served || said.contains(why)
            })?;
        assert!(!was_served, "{said}");
        assert!(reaches(&first, "first.example")?);
        Ok(())
    };
    check_stays(&spoil(0, 0o644)?, "can be read by other users")?;
    if is_root() {
        check_stays(&spoil(USER, 0o600)?, "belongs to another user")?;
    }
    Ok(())
}

#[test]
fn without_tls_it_refuses_to_start_and_says_what_to_do() -> Result {
    let (folder, stub) = (TempDir::new()?, stub()?);
    write_certificate(folder.path(), "site.example")?;
    let agent = public_agent(&stub, folder.path())?;
    let other = TempDir::new()?;
    let data = other.path().join("data").display().to_string();
    let refused = |flags: &[&str]| -> Result<String> {
        let base = ["run", "--listen", "0.0.0.0:0", "--server-url", stub.url()];
        let mut command = agent.command(&[base.as_slice(), flags].concat());
        let output = command.env("TALLY_DATA_DIR", &data).output()?;
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = refused(&[])?;
    assert!(said.contains("--listen-public"), "{said}");
    let said = refused(&["--listen-public"])?;
    assert!(said.contains("--tls-cert"), "{said}");
    let cert = folder.path().join("cert.pem").display().to_string();
    let said = refused(&["--listen-public", "--tls-cert", &cert])?;
    assert!(said.contains("--tls-key"), "{said}");
    let file = fs::canonicalize(folder.path())?.join("none.pem");
    let none = file.to_str().context("a path")?;
    let said = refused(&["--listen-public", "--tls-cert", none, "--tls-key", none])?;
    assert!(said.contains("none.pem"), "{said}");
    Ok(())
}
