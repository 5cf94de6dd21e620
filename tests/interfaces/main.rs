//! What others build upon: the HTTP interfaces as `docs/openapi.json` describes them, and the command line
//! with its `--json` shapes (`docs/cli-json.md`).
//!
//! After a change that is meant, one command renews the document and the snapshots; the diff is then read
//! like code:
//!
//! ```sh
//! INSTA_UPDATE=always cargo test -p tally-tests --test interfaces
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that does not find what it looks for has failed"
)]

mod cli;
mod openapi;

use serde_json::json;
use tally_tests::{
    Result,
    agent::{Agent, Setup},
    seed,
    stub::{Keys, Stub},
};

/// Whether the files are to be renewed.
fn renews() -> bool {
    std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always")
}

/// An agent with a licence of 100 units and a user's with a feature, of which 5 units are settled, 3 wait and 1 was
/// refused.
fn world() -> Result<(Stub, Agent)> {
    let feature = json!([{"code": "scans", "max_consumption": 10}]);
    let licenses = [
        seed::license(100, json!({})),
        seed::user_license(60, json!({"features": feature})),
    ];
    let stub = Stub::start(
        env!("CARGO_BIN_EXE_stub-under-test"),
        &seed::seed(&licenses),
        Keys::Kept,
    )?;
    let program = env!("CARGO_BIN_EXE_tally-under-test");
    let agent = Agent::start(program, stub.url(), &Setup::default())?;
    let app = agent.app("inspector")?;
    agent.add_license()?;
    agent.add_user_license()?;
    app.add(5)?;
    agent.wait_settled(0)?;
    agent.network("offline")?;
    app.add(3)?;
    app.add(1000)?;
    Ok((stub, agent))
}
