//! The whole thing over real processes and sockets: an application, an agent, a network, a server.

mod contract;
mod copied;
mod copies;
mod damage;
mod disk;
mod doctor;
mod exactly_once;
mod faults;
mod findings;
mod held;
mod kills;
mod known;
mod lifecycle;
mod main_job;
mod metrics;
mod names;
mod one_ledger;
mod page;
mod periods;
mod reload;
mod scenario;
mod server;
mod service;
mod upgrade;
mod vendor;

use serde_json::Value;
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    seed,
    stub::{Keys, Stub},
};

/// A stub with a seed.
fn stub(licenses: &[Value], keys: Keys) -> Result<Stub> {
    Stub::start(
        env!("CARGO_BIN_EXE_stub-under-test"),
        &seed::seed(licenses),
        keys,
    )
}

/// An agent of a stub.
fn agent(stub: &Stub) -> Result<Agent> {
    agent_with(stub.url(), &[])
}

/// An agent of any server, with further flags.
fn agent_with(server_url: &str, flags: &[&str]) -> Result<Agent> {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Agent::start(
        env!("CARGO_BIN_EXE_tally-under-test"),
        server_url,
        &Setup { flags },
    )
}
