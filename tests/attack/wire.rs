//! The network between the agent and its server.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    seed,
    stub::{Keys, Stub},
};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::secrets::write_secret;

/// A certificate for a name, signed by itself, in files.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl Identity {
    fn new(folder: &Path, name: &str) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()])?;
        let (certificate, key) = (
            folder.join(format!("{name}.pem")),
            folder.join(format!("{name}.key")),
        );
        fs::write(&certificate, made.cert.pem())?;
        write_secret(&key, &made.signing_key.serialize_pem())?;
        Ok(Self { certificate, key })
    }

    fn certificate(&self) -> Result<CertificateDer<'static>> {
        Ok(CertificateDer::from_pem_file(&self.certificate)?)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>> {
        Ok(PrivateKeyDer::from_pem_file(&self.key)?)
    }
}

/// Speaks TLS before a stub, to clients of `client` only where there is one. It ends with the test.
fn tls_before(stub: &Stub, server: &Identity, client: Option<&Identity>) -> Result<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.certificate()?)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(vec![server.certificate()?], server.key()?)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let target: SocketAddr = stub.url().trim_start_matches("http://").parse()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("https://localhost:{}", listener.local_addr()?.port());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::spawn(move || {
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut outer = acceptor.accept(stream).await?;
                    let mut inner = tokio::net::TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut outer, &mut inner).await
                });
            }
            #[expect(unreachable_code, reason = "it says what the block gives")]
            std::io::Result::Ok(())
        })
    });
    Ok(url)
}

fn stub() -> Result<Stub> {
    let seed = seed::seed(&[seed::license(100, json!({}))]);
    let program = env!("CARGO_BIN_EXE_stub-under-test");
    Stub::start(program, &seed, Keys::Kept)
}

fn agent(url: &str, flags: &[(&str, &Path)]) -> Result<Agent> {
    let flags = flags
        .iter()
        .flat_map(|(flag, path)| [(*flag).to_owned(), path.display().to_string()])
        .collect();
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    Agent::start(program, url, &Setup { flags })
}

/// Whether the agent reaches the server: it can learn a licence.
fn is_reached(agent: &Agent) -> bool {
    agent.add_license().is_ok()
}

#[test]
fn a_server_is_believed_by_its_authority_only() -> Result {
    let (folder, stub) = (TempDir::new()?, stub()?);
    let server = Identity::new(folder.path(), "localhost")?;
    let other = Identity::new(folder.path(), "other")?;
    let url = tls_before(&stub, &server, None)?;
    // Not one of the platform's.
    assert!(!is_reached(&agent(&url, &[])?));
    assert!(!is_reached(&agent(
        &url,
        &[("--server-ca", &other.certificate)]
    )?));
    assert_eq!(stub.requests()?.len(), 0);
    let trusting = agent(&url, &[("--server-ca", &server.certificate)])?;
    assert!(is_reached(&trusting));
    assert_eq!(trusting.app("inspector")?.add(3)?.status, 200);
    trusting.wait_settled(0)?;
    assert_eq!(stub.total(1)?, 3);
    Ok(())
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_it() -> Result {
    let (folder, stub) = (TempDir::new()?, stub()?);
    let server = Identity::new(folder.path(), "localhost")?;
    let device = Identity::new(folder.path(), "device")?;
    let stranger = Identity::new(folder.path(), "stranger")?;
    let url = tls_before(&stub, &server, Some(&device))?;
    let trusted = ("--server-ca", server.certificate.as_path());
    let with = |identity: &Identity| {
        let flags = [
            trusted,
            ("--server-client-cert", &identity.certificate),
            ("--server-client-key", &identity.key),
        ];
        agent(&url, &flags)
    };
    assert!(!is_reached(&agent(&url, &[trusted])?));
    assert!(!is_reached(&with(&stranger)?));
    assert_eq!(stub.requests()?.len(), 0);
    assert!(is_reached(&with(&device)?));
    Ok(())
}

#[test]
fn a_server_elsewhere_is_not_spoken_to_in_the_clear() -> Result {
    let folder = TempDir::new()?;
    let run = |flags: &[&str]| -> Result<(Option<i32>, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tally-under-test"));
        command
            .args(["run", "--server-url", "http://server.example", "--data-dir"])
            .arg(folder.path().join("data"))
            .env("TALLY_SERVER_API_KEY", "key")
            .env("TALLY_SERVER_SHARED_KEY", "shared")
            .env("XDG_CONFIG_HOME", folder.path());
        let output = command.args(flags).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code(), said))
    };
    let (code, said) = run(&[])?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("--insecure-server"), "{said}");
    // A socket that is taken ends the run, after the settings were accepted.
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let (_, said) = run(&["--insecure-server", "--listen", &address])?;
    assert!(said.contains("cannot listen"), "{said}");
    Ok(())
}

#[test]
fn a_redirection_takes_no_credentials_elsewhere() -> Result {
    let elsewhere = TcpListener::bind("127.0.0.1:0")?;
    let location = format!("http://{}/api/v4/", elsewhere.local_addr()?);
    elsewhere.set_nonblocking(true)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let (asked_out, asked) = std::sync::mpsc::channel();
    thread::spawn(move || -> Result {
        for stream in listener.incoming() {
            let mut stream = stream?;
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            for status in ["301 Moved Permanently", "307 Temporary Redirect"] {
                if line.contains("check_license") == status.starts_with("307") {
                    write!(
                        stream,
                        "HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\
                         Connection: close\r\n\r\n"
                    )?;
                }
            }
            asked_out.send(line)?;
        }
        Ok(())
    });
    let agent = agent(&url, &[])?;
    assert!(!is_reached(&agent));
    assert!(asked.recv()?.contains("check_license"));
    assert!(elsewhere.accept().is_err());
    Ok(())
}
