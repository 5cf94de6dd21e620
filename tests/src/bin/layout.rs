//! Writes `agent/layout.ld`: which functions of the agent stand together in the program.
//!
//! Linux maps 64 KiB around each page of a program that is touched. A start, a contact with the server and a few requests
//! run through less than half of the program, a function here and one there: so nearly all of it would be resident. Put
//! together, they are what is. The agent is run below callgrind, which tells which functions were called; the linker is
//! given their names without the compiler's hashes, so that the list survives most changes of the code.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tally_shared::wire::ADD_CONSUMPTION;
use tally_tests::{
    agent::{Agent, Setup},
    client::by_key,
    layout::Layout,
    programs::Programs,
    seed,
    stub::{Keys, Stub},
};

/// Write the linker's list of functions that stand together
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    programs: Programs,
    /// A program that runs `tally` below callgrind where it is the agent
    #[arg(long)]
    profiled: String,
    /// The folder that callgrind writes into, a file for each run
    #[arg(long)]
    called: PathBuf,
    /// What to write
    #[arg(long)]
    out: PathBuf,
}

#[expect(clippy::print_stdout, reason = "what it found")]
fn main() -> tally_tests::Result {
    let args = Args::parse();
    fs::create_dir_all(&args.programs.folder)?;
    run_agents(&args)?;
    let profiles = fs::read_dir(&args.called)?
        .map(|profile| fs::read_to_string(profile?.path()))
        .collect::<Result<Vec<_>, _>>()?;
    let symbols = Command::new("nm")
        .args(["--print-size", "--defined-only", &args.programs.tally])
        .output()
        .context("cannot run nm")?;
    ensure!(symbols.status.success(), "nm cannot read the program");
    let layout = Layout::new(
        profiles.iter().map(String::as_str),
        &String::from_utf8(symbols.stdout)?,
    )?;
    fs::write(&args.out, layout.script())?;
    let (called, all) = layout.bytes();
    println!(
        "{} of {} KiB of code were called",
        called / 1024,
        all / 1024
    );
    Ok(())
}

/// Runs an agent whose server is the stub, and one whose server speaks TLS: there, another agent is in front of the stub.
fn run_agents(args: &Args) -> tally_tests::Result {
    let folder = tempfile::tempdir_in(&args.programs.folder)?;
    let file = |name: &str| folder.path().join(name).display().to_string();
    let certificate = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    fs::write(file("cert.pem"), certificate.cert.pem())?;
    let mut key_file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file("key.pem"))?;
    key_file.write_all(certificate.signing_key.serialize_pem().as_bytes())?;

    let license = seed::license(100, json!({}));
    let stub = Stub::start(
        args.programs.stub.as_str(),
        &seed::seed(&[license]),
        Keys::Kept,
    )?;
    let setup = |flags: &[&str]| Setup {
        flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
    };
    let keys = (seed::API_KEY, seed::SHARED_KEY);
    run_agent(&args.profiled, stub.url(), &setup(&[]), keys)?;

    let served = setup(&[
        "--listen-public",
        "--tls-cert",
        &file("cert.pem"),
        "--tls-key",
        &file("key.pem"),
    ]);
    let front = Agent::start(args.programs.tally.as_str(), stub.url(), &served)?;
    front.add_license()?;
    let made = front.json(&["app", "add", "device"])?;
    let key = |name: &str| made.get(name).and_then(Value::as_str).context("a key pair");
    let keys = (key("api_key")?, key("shared_key")?);
    let trusting = setup(&["--server-ca", &file("cert.pem")]);
    run_agent(&args.profiled, front.url()?, &trusting, keys)
}

/// From its start until the server has settled what an application consumed.
fn run_agent(
    profiled: &str,
    server_url: &str,
    setup: &Setup,
    keys: (&str, &str),
) -> tally_tests::Result {
    let mut agent = Agent::start_as(profiled, server_url, setup, keys)?;
    agent.add_license()?;
    let app = agent.app("app")?;
    for _ in 0..3 {
        let answer = app.post(ADD_CONSUMPTION, &by_key(1))?;
        ensure!(answer.status == 200, "refused: {}", answer.text);
    }
    agent.wait_settled(0)?;
    agent.terminate()?;
    Ok(())
}
