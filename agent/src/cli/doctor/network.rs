//! The way to the licence server, step by step, each bounded in time; then what the agent itself would ask,
//! by the agent's own client.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;
use serde_json::Value;
use tally_shared::{
    time::Timestamp,
    wire::{ErrorCode, Holder, Subject},
};
use tokio::{net::TcpStream, time::timeout};

use super::{Check, settings::Known};
use crate::{
    cli::human,
    core::{clock::Clock, outcome::LookUpOutcome},
    deps::{Clocks as _, SystemClocks},
    ledger::engine::lock,
    sync::client::{Client, ServerConfig, is_loopback, shown},
};

/// How long a step may take.
const STEP_MAX: Duration = Duration::from_secs(5);

/// How long the server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How far the device's clock may be off: periods begin and end by it after a restart without a network.
const CLOCK_MAX: Duration = Duration::from_mins(1);

/// What is asked for. No licence has this name; whether the server looks for it tells whether it knows us.
const PROBE: &str = "tally-doctor";

/// Proxy, name, connection, TLS, credentials and clock.
pub(super) fn checks(known: &Known, status: Option<&Value>) -> anyhow::Result<Vec<Check>> {
    let running = status.and_then(|status| Url::parse(status.get("server")?.as_str()?).ok());
    let config = known.config.as_ref().ok();
    let url = config.map(|config| config.server.url.clone()).or(running);
    let Some(url) = url else {
        return Ok(vec![Check::skipped("server", "no licence server is set")]);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let checks = runtime.block_on(async {
        let proxy = proxy(&url);
        let hop = proxy.as_ref().unwrap_or(&url);
        let mut checks = vec![proxy_check(proxy.as_ref())];
        let reached = match look_for(hop).await {
            Ok((check, addresses)) => {
                checks.push(check);
                connect(hop, &addresses).await
            }
            Err(check) => Err(check),
        };
        match reached {
            Ok(check) => checks.push(check),
            Err(check) => {
                checks.push(check);
                for name in ["tls", "credentials", "clock"] {
                    checks.push(Check::skipped(name, "the server is not reached"));
                }
                return checks;
            }
        }
        match config {
            Some(config) => checks.extend(ask(&config.server).await),
            None => checks.push(of_agent(status)),
        }
        checks
    });
    // A name that is still being looked up would keep the command waiting.
    runtime.shutdown_background();
    Ok(checks)
}

/// As the agent's client finds it.
fn proxy(url: &Url) -> Option<Url> {
    if is_loopback(url) {
        return None;
    }
    let found = Matcher::from_system().intercept(&url.as_str().parse().ok()?)?;
    Url::parse(&found.uri().to_string()).ok()
}

fn proxy_check(proxy: Option<&Url>) -> Check {
    let found = match proxy {
        Some(url) => format!("{}, from the environment", shown(url)),
        None => "none; the server is spoken to directly".to_owned(),
    };
    Check::fine("proxy", found)
}

fn port(url: &Url) -> u16 {
    url.port_or_known_default().unwrap_or(443)
}

async fn look_for(url: &Url) -> Result<(Check, Vec<SocketAddr>), Check> {
    const NAME: &str = "dns";
    const FIX: &str =
        "see whether the name is spelt right, and whether this device's DNS works at all";
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse() {
        let address = SocketAddr::new(address, port(url));
        let found = format!("{host} is an address, and no name");
        return Ok((Check::fine(NAME, found), vec![address]));
    }
    let found = timeout(STEP_MAX, tokio::net::lookup_host((host, port(url)))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            return Err(Check::problem(
                NAME,
                format!("{host} is not known: {error}"),
                FIX,
            ));
        }
        Err(_) => {
            let what = format!(
                "nobody said within {} where {host} is",
                human::span(STEP_MAX)
            );
            return Err(Check::problem(NAME, what, FIX));
        }
    };
    let mut names: Vec<String> = addresses
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    names.dedup();
    Ok((
        Check::fine(NAME, format!("{host} is {}", names.join(", "))),
        addresses,
    ))
}

async fn connect(url: &Url, addresses: &[SocketAddr]) -> Result<Check, Check> {
    const NAME: &str = "connection";
    let mut why = "the name has no address".to_owned();
    for address in addresses {
        match timeout(STEP_MAX, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(Check::fine(NAME, format!("{address} accepts"))),
            Ok(Err(error)) => why = format!("{address}: {error}"),
            Err(_) => why = format!("{address} did not answer within {}", human::span(STEP_MAX)),
        }
    }
    let fix = format!(
        "see whether the server runs, and whether a firewall lets this device through to port {}",
        port(url)
    );
    Err(Check::problem(NAME, why, &fix))
}

/// Asks the server by the agent's own client, with the agent's settings.
async fn ask(server: &ServerConfig) -> Vec<Check> {
    let clocks = Arc::new(SystemClocks::new());
    let clock = Clock::start(&clocks.reading(), None, (Timestamp::default(), false));
    let clock = Arc::new(Mutex::new(clock));
    let mut config = server.clone();
    config.request_timeout = config.request_timeout.min(ANSWER_MAX);
    let is_tls = config.url.scheme() == "https";
    let client = match Client::new(
        config,
        // It sends no batch.
        String::new(),
        Arc::clone(&clock),
        Arc::<SystemClocks>::clone(&clocks),
    ) {
        Ok(client) => client,
        Err(error) => {
            return vec![Check::failed(
                "tls",
                error,
                "see whether the platform has root certificates",
            )];
        }
    };
    let subject = Subject {
        product: PROBE.to_owned(),
        holder: Holder::LicenseKey(PROBE.to_owned()),
        license_id: None,
        hardware_id: PROBE.to_owned(),
    };
    let (mut outcome, _) = client.look_up(&subject).await;
    if outcome == LookUpOutcome::RefusedCredentials(ErrorCode::DateHeaderDiff) {
        // The answer corrected the clock, as it does for the agent.
        (outcome, _) = client.look_up(&subject).await;
    }
    let reading = clocks.reading();
    let time = {
        let mut clock = lock(&clock);
        let is_proven = clock.now(reading.mono).proven;
        is_proven.then(|| clock.corrected(reading.mono))
    };
    vec![
        tls(is_tls, &outcome),
        credentials(&outcome),
        clock_check(reading.wall, time),
    ]
}

fn tls(is_tls: bool, outcome: &LookUpOutcome) -> Check {
    const NAME: &str = "tls";
    match outcome {
        _ if !is_tls => Check::fine(NAME, "none: the server's URL is http://".to_owned()),
        // The port accepts, so what fails before anything is sent is the handshake.
        LookUpOutcome::Unreached(why) if why.contains("(Connect)") => Check::problem(
            NAME,
            why.clone(),
            "the server's certificate must be for its name, in date, and from an authority that is trusted: \
             see --server-ca, the device's clock, and whether a proxy opens the connection",
        ),
        LookUpOutcome::Unreached(_) => Check::fine(NAME, "the handshake succeeds".to_owned()),
        _ => Check::fine(NAME, "the server's certificate is trusted".to_owned()),
    }
}

fn credentials(outcome: &LookUpOutcome) -> Check {
    const NAME: &str = "credentials";
    let accepted = || Check::fine(NAME, "the server accepts them".to_owned());
    match outcome {
        LookUpOutcome::Found(_) | LookUpOutcome::Refused(..) => accepted(),
        // It understood who asks, and not what for.
        LookUpOutcome::Invalid(why, _) if names_a_code(why) => accepted(),
        LookUpOutcome::RefusedCredentials(ErrorCode::DateHeaderDiff) => Check::problem(
            NAME,
            "the server refuses the date of a request, although it was its own".to_owned(),
            "see whether something between changes the date, or answers in the server's place",
        ),
        LookUpOutcome::RefusedCredentials(code) => Check::problem(
            NAME,
            format!("the server refuses them: {}", code.as_str()),
            "compare both keys with those of the account; a new pair is taken at the agent's next start",
        ),
        LookUpOutcome::Throttled(_) => Check::skipped(
            NAME,
            "the server has no time for this device (429); try again later",
        ),
        LookUpOutcome::Unreached(why) => Check::problem(
            NAME,
            format!("there was no answer: {why}"),
            "what is said above comes first; else see whether the server is well",
        ),
        LookUpOutcome::Invalid(why, _) => Check::problem(
            NAME,
            format!("something answers, and not as a licence server does: {why}"),
            "see whether server.url is right, and whether a captive portal or a proxy answers instead",
        ),
    }
}

fn names_a_code(why: &str) -> bool {
    why.split(':')
        .next()
        .and_then(ErrorCode::from_name)
        .is_some()
}

fn clock_check(wall: Timestamp, server: Option<Timestamp>) -> Check {
    const NAME: &str = "clock";
    let Some(server) = server else {
        return Check::skipped(NAME, "no answer of the server tells the time");
    };
    let off = wall.distance(server);
    if off <= Duration::from_secs(2) {
        return Check::fine(NAME, "agrees with the server's, to its second".to_owned());
    }
    let side = if wall < server { "behind" } else { "ahead of" };
    let found = format!(
        "this device's clock is {} {side} the server's",
        human::span(off)
    );
    if off <= CLOCK_MAX {
        return Check::fine(NAME, found);
    }
    Check::problem(
        NAME,
        format!("{found}; the agent corrects it, but after a restart without a network it cannot"),
        "set the clock, and let the device keep it: `timedatectl set-ntp true`",
    )
}

/// Where the credentials are not to be seen from here, what the running agent knows of them.
fn of_agent(status: Option<&Value>) -> Check {
    const NAME: &str = "credentials";
    let text = |path: &str| status.and_then(|status| status.pointer(path)?.as_str());
    match (text("/connection/state"), text("/connection/refused")) {
        (Some("online"), _) => Check::fine(
            NAME,
            "the server accepts those of the agent that runs".to_owned(),
        ),
        (_, Some(code)) => Check::problem(
            NAME,
            format!("the server refuses those of the agent that runs: {code}"),
            "compare both keys with those of the account, and start the agent again with the right ones",
        ),
        _ => Check::skipped(
            NAME,
            "they are not to be seen from here, and the agent is not online",
        ),
    }
}
