//! `tally-demo`: the main job in a few seconds. It starts a stub and an agent, consumes online, drops
//! the network, lets three applications consume past the limit, reconnects with a lost
//! acknowledgement, and compares the server's totals with what was granted.

use std::{
    ffi::OsString,
    io::Write as _,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde_json::{Value, json};
use tally_tests::{
    Result,
    agent::{Agent, Setup, Sums},
    client::{Client, by_key, by_user},
    process::Program,
    seed,
    stub::{Keys, Stub},
};

const ADD: &str = "/api/v4/add_consumption";
const KEY_LIMIT: i64 = 100;
const USER_LIMIT: i64 = 60;

/// The demo runs itself in these roles too, so that nothing else need be built.
const AS_STUB: &str = "as-stub";
const AS_AGENT: &str = "as-agent";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let role = arguments
        .get(1)
        .and_then(|role| role.to_str())
        .map(str::to_owned);
    if let Some(role) = role {
        arguments.remove(1);
        match role.as_str() {
            AS_STUB => return tally_server_stub::cli::main_from(arguments),
            AS_AGENT => return tally_agent::cli::main_from(arguments),
            _ => {}
        }
    }
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\nthe demo failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What applications were granted and refused.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    granted: i64,
    refusals: u32,
}

fn demo() -> Result {
    let started = Instant::now();
    let (stub, agent, app) = start()?;
    let mut by_license = [Tally::default(), Tally::default()];

    step("2/6", "consume online");
    by_license[0].add(consume(&app, &by_key(1), 20)?);
    by_license[1].add(consume(&app, &by_user(2), 5)?);
    agent.wait_settled(0)?;
    agent.wait_settled(1)?;
    show(&format!(
        "the server counts {} and {}",
        stub.total(1)?,
        stub.total(2)?
    ));

    step(
        "3/6",
        "drop the network; three applications consume past the limits",
    );
    agent.network("offline")?;
    for (license, tally) in offline(&agent)?.into_iter().enumerate() {
        show(&format!(
            "licence {}: {} more units granted on the device, {} requests refused",
            license + 1,
            tally.granted,
            tally.refusals
        ));
        by_license[license].add(tally);
    }
    show(&format!(
        "the server still counts {} and {}",
        stub.total(1)?,
        stub.total(2)?
    ));

    step(
        "4/6",
        "reconnect; the first acknowledgement is lost on the way",
    );
    stub.faults(&json!([{"path": ADD, "action": {"drop": "after"}, "times": 1}]))?;
    agent.network("online")?;
    agent.wait_settled(0)?;
    agent.wait_settled(1)?;
    ensure!(stub.fired()? == [1], "no acknowledgement was lost");
    show("settled");

    step("5/6", "what the server's activity log says");
    for (event, units) in [stub.activity(1)?, stub.activity(2)?].concat() {
        show(&format!("{units:>4} units  {event}"));
    }

    step("6/6", "compare");
    let agrees = compare(&stub, &agent, by_license)?;
    ensure!(agrees, "the numbers disagree");
    let seconds = started.elapsed().as_secs_f32();
    say(&format!(
        "\nEvery granted unit was counted once. It took {seconds:.1} s."
    ));
    Ok(())
}

fn start() -> Result<(Stub, Agent, Client)> {
    say("Tally: consume offline, replay exactly.");
    step(
        "1/6",
        "start a licence server (stub) and an agent, and add two licences",
    );
    let program = std::env::current_exe()?;
    let seed = seed::seed(&[
        seed::license(KEY_LIMIT, json!({})),
        seed::user_license(USER_LIMIT, json!({})),
    ]);
    let stub = Stub::start(
        Program::in_role(program.clone(), AS_STUB),
        &seed,
        Keys::NotKept,
    )?;
    show(&format!(
        "licence server at {}, without idempotency keys",
        stub.url()
    ));
    let as_agent = Program::in_role(program, AS_AGENT);
    let agent = Agent::start(as_agent, stub.url(), &Setup::default())?;
    show(&format!("agent at {}", agent.url()?));
    agent.add_license()?;
    agent.add_user_license()?;
    show(&format!(
        "licence 1: key-based, limit {KEY_LIMIT}; licence 2: user-based, {USER_LIMIT}"
    ));
    let app = agent.app("inspector")?;
    Ok((stub, agent, app))
}

/// Three applications at once, each on both licences.
fn offline(agent: &Agent) -> Result<[Tally; 2]> {
    let apps = ["camera", "scanner", "plotter"].map(|name| agent.app(name));
    let mut sums = [Tally::default(), Tally::default()];
    let results: Vec<Result<[Tally; 2]>> = thread::scope(|scope| {
        let running: Vec<_> = apps
            .into_iter()
            .map(|app| {
                scope.spawn(move || {
                    let app = app?;
                    Ok([
                        consume(&app, &by_key(1), 40)?,
                        consume(&app, &by_user(3), 10)?,
                    ])
                })
            })
            .collect();
        let failed = || Err(anyhow::anyhow!("an application panicked"));
        running
            .into_iter()
            .map(|app| app.join().unwrap_or_else(|_| failed()))
            .collect()
    });
    for result in results {
        for (sum, tally) in sums.iter_mut().zip(result?) {
            sum.add(tally);
        }
    }
    Ok(sums)
}

/// The same request so many times; refusals must be the server's own.
fn consume(app: &Client, request: &Value, times: u32) -> Result<Tally> {
    let units = request
        .get("consumptions")
        .and_then(Value::as_i64)
        .unwrap_or_default();
    let mut tally = Tally::default();
    for _ in 0..times {
        let reply = app.post(ADD, request)?;
        if reply.status == 200 {
            tally.granted += units;
        } else {
            let code = reply.code();
            let expected = code.as_deref() == Some("license_not_enough_consumptions");
            ensure!(expected, "an unexpected answer: {}", reply.text);
            tally.refusals += 1;
        }
    }
    Ok(tally)
}

fn compare(stub: &Stub, agent: &Agent, granted: [Tally; 2]) -> Result<bool> {
    say("\n      LICENCE       LIMIT  GRANTED  REFUSED  SERVER'S TOTAL  AGENT: RECORDED  SETTLED");
    let mut agrees = true;
    for (index, (name, limit)) in [("key-based", KEY_LIMIT), ("user-based", USER_LIMIT)]
        .into_iter()
        .enumerate()
    {
        let Tally { granted, refusals } = granted[index];
        let total = stub.total(i64::try_from(index)? + 1)?;
        let Sums {
            recorded, settled, ..
        } = agent.sums(index)?;
        let equal = total == granted && recorded == granted && settled == granted;
        agrees &= equal && granted <= limit && refusals > 0;
        let mark = if equal { "equal" } else { "DIFFERENT" };
        say(&format!(
            "      {name:<12}{limit:>7}{granted:>9}{refusals:>9}{total:>16}{recorded:>17}{settled:>9}  {mark}"
        ));
    }
    Ok(agrees)
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.granted += other.granted;
        self.refusals += other.refusals;
    }
}

fn step(number: &str, what: &str) {
    say(&format!("\n[{number}] {what}"));
}

fn show(what: &str) {
    say(&format!("      {what}"));
    // A moment to read, while it is being looked at.
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        thread::sleep(Duration::from_millis(150));
    }
}

fn say(line: &str) {
    // Nobody is left to show anything to where stdout is gone.
    let _ = writeln!(std::io::stdout(), "{line}");
}
