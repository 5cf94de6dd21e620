//! Writes `agent/layout.ld`: which functions of the agent stand together in the program.
//!
//! Linux maps 64 KiB around each page of a program that is touched. A start, a contact with the server and a few requests
//! run through less than half of the program, a function here and one there: so nearly all of it was resident. Put
//! together, they are what is. The agent is run below callgrind, which tells which functions were called; the linker is
//! given their names without the compiler's hashes, so that the list survives most changes of the code.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tally_shared::wire::ADD_CONSUMPTION;
use tally_tests::{
    agent::{Agent, Setup},
    client::by_key,
    programs::Programs,
    seed,
    stub::{Keys, Stub},
};

/// A pattern may take functions along that were not called: one byte of such for so many of others, so that there are
/// fewer patterns.
const CALLED_MIN: u64 = 4;

const HEADER: &str = "\
/* What an agent runs through from its start to its first settled units stands together in the program, so that the rest
   need not be resident: see build.rs. Written by tests/bench/layout; a name that no function has any more is harmless. */
";

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
    let mut called = HashSet::new();
    for profile in fs::read_dir(&args.called)? {
        add_called(&fs::read_to_string(profile?.path())?, &mut called);
    }
    let functions = functions(&args.programs.tally, &called)?;
    fs::write(&args.out, script(&patterns(&functions)))?;
    let bytes = functions.values();
    let (called, all) = bytes.fold((0, 0), |(called, all), bytes| {
        (called + bytes.called, all + bytes.called + bytes.other)
    });
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
    let mut key = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file("key.pem"))?;
    key.write_all(certificate.signing_key.serialize_pem().as_bytes())?;

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

/// Adds the names of all functions that were called: lines `fn=(number) name`, or the number alone where the name was told
/// before, by a caller's line (`cfn=`) too.
fn add_called(profile: &str, called: &mut HashSet<String>) {
    let mut names = BTreeMap::new();
    for line in profile.lines() {
        let (is_called, function) = match line.split_once("fn=(") {
            Some(("", function)) => (true, function),
            Some(("c", function)) => (false, function),
            _ => continue,
        };
        let Some((number, name)) = function.split_once(')') else {
            continue;
        };
        let name = name.trim_start();
        if !name.is_empty() {
            // Callgrind counts the levels of a recursion: `name'2`.
            names.insert(number, name.split('\'').next().unwrap_or(name));
        }
        if is_called && let Some(name) = names.get(number) {
            called.insert((*name).to_owned());
        }
    }
}

/// How many bytes of a name's functions were called, and how many were not: generic code has one name and many hashes.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes {
    called: u64,
    other: u64,
}

/// The functions of a program with symbols, without their hashes.
fn functions(
    program: &str,
    called: &HashSet<String>,
) -> tally_tests::Result<BTreeMap<String, Bytes>> {
    let symbols = Command::new("nm")
        .args(["--print-size", "--defined-only", program])
        .output()
        .context("cannot run nm")?;
    ensure!(symbols.status.success(), "nm cannot read {program}");
    let symbols = String::from_utf8(symbols.stdout)?;
    let symbols: Vec<_> = symbols
        .lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [address, size, "t" | "T" | "w" | "W", name] => Some((address, size, name)),
            _ => None,
        })
        .collect();
    // Functions with the same code are one, with two names, of which callgrind tells one.
    let called: HashSet<&str> = symbols
        .iter()
        .filter(|(_, _, name)| called.contains(*name))
        .map(|(address, _, _)| *address)
        .collect();
    let mut functions = BTreeMap::<String, Bytes>::new();
    for (address, size, name) in symbols {
        let size = u64::from_str_radix(size, 16)?;
        let bytes = functions.entry(without_hash(name).to_owned()).or_default();
        if called.contains(address) {
            bytes.called += size;
        } else {
            bytes.other += size;
        }
    }
    Ok(functions)
}

/// A function's name, without what other builds call it: `17h`, the digits of a hash, and `E`, as Rust mangles names, or,
/// in names of the newer kind, which begin with `_R`, a point and the number of a copy.
fn without_hash(name: &str) -> &str {
    let end = match name {
        _ if name.starts_with("_ZN") => name.rfind("17h"),
        _ if name.starts_with("_R") => name.find('.'),
        _ => None,
    };
    end.and_then(|end| name.get(..end)).unwrap_or(name)
}

/// The shortest beginnings of names that the functions have in common that were called, and few others.
fn patterns(functions: &BTreeMap<String, Bytes>) -> Vec<String> {
    let functions: Vec<_> = functions.iter().collect();
    let mut patterns = Vec::new();
    add_patterns(&functions, 0, &mut patterns);
    patterns
}

/// For functions, sorted, whose names have so many bytes in common.
fn add_patterns(functions: &[(&String, &Bytes)], common: usize, patterns: &mut Vec<String>) {
    let called: u64 = functions.iter().map(|(_, bytes)| bytes.called).sum();
    let other: u64 = functions.iter().map(|(_, bytes)| bytes.other).sum();
    let Some((name, _)) = functions.first().filter(|_| called > 0) else {
        return;
    };
    if let [_] = functions {
        let end = match name.get(..2) {
            Some("_Z") => "17h*",
            Some("_R") => "*",
            _ => "",
        };
        patterns.push(format!("{name}{end}"));
    } else if other <= called / CALLED_MIN
        && let Some(prefix) = name.get(..common)
    {
        patterns.push(format!("{prefix}*"));
    } else {
        let next = |(name, _): &(&String, &Bytes)| name.as_bytes().get(common).copied();
        for functions in functions.chunk_by(|one, other| next(one) == next(other)) {
            add_patterns(functions, common + 1, patterns);
        }
    }
}

fn script(patterns: &[String]) -> String {
    let mut script = format!("{HEADER}SECTIONS {{\n  .text.used : {{\n");
    for pattern in patterns {
        // Those that the compiler takes for cold ones, which are in sections `.text.unlikely.…`, are called as well.
        let _ = writeln!(script, "    *(.text.{pattern} .text.unlikely.{pattern})");
    }
    script.push_str("  }\n} INSERT BEFORE .text;\n");
    script
}
