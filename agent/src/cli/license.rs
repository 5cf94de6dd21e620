//! `tally license add | list`

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;
use tally_shared::wire::{Holder, Subject};

use super::{
    args::{JsonArgs, LicenseAddArgs, LicenseArgs, LicenseCommand},
    client::Agent,
    output::{self, Outcome},
    status,
};
use crate::{config::paths::DataDir, http::AddLicense, private_file};

pub(super) fn run(data_dir: &DataDir, command: LicenseCommand) -> anyhow::Result<Outcome> {
    match command {
        LicenseCommand::Add(args) => add(data_dir, args),
        LicenseCommand::List(args) => list(data_dir, args),
    }
}

fn add(data_dir: &DataDir, args: LicenseAddArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let Subject {
        product,
        holder,
        license_id,
        hardware_id,
    } = subject(data_dir, args.license)?;
    let (license_key, username) = match holder {
        Holder::LicenseKey(key) => (Some(key), None),
        Holder::Username(name) => (None, Some(name)),
    };
    let request = AddLicense {
        product,
        license_key,
        username,
        license_id,
        hardware_id,
    };
    let licenses: Vec<Value> = agent.ask(Method::POST, "/v1/licenses", &request)?;
    print(&licenses, args.output)
}

fn list(data_dir: &DataDir, args: JsonArgs) -> anyhow::Result<Outcome> {
    let licenses: Vec<Value> = Agent::connect(data_dir)?.get("/v1/licenses")?;
    print(&licenses, args)
}

fn print(licenses: &[Value], args: JsonArgs) -> anyhow::Result<Outcome> {
    if args.json {
        output::json(&licenses)?;
    } else if licenses.is_empty() {
        output::line("no licence is known; `tally license add` makes one known")?;
    } else {
        output::text(&status::license_table(licenses))?;
    }
    Ok(Outcome::Done)
}

/// Which licence the flags name.
pub(super) fn subject(data_dir: &DataDir, args: LicenseArgs) -> anyhow::Result<Subject> {
    let holder = match (args.holder.license_key, args.holder.username) {
        (Some(key), _) => Holder::LicenseKey(key),
        (None, name) => Holder::Username(name.unwrap_or_default()),
    };
    let hardware_id = match args.hardware_id {
        Some(id) => id,
        None => this_device(data_dir)?,
    };
    Ok(Subject {
        product: args.product,
        holder,
        license_id: args.license_id,
        hardware_id,
    })
}

/// The id of this device: the system's, or one made up once where it has none.
fn this_device(data_dir: &DataDir) -> anyhow::Result<String> {
    if let Ok(id) = std::fs::read_to_string("/etc/machine-id")
        && !id.trim().is_empty()
    {
        return Ok(id.trim().to_owned());
    }
    let path = data_dir.hardware_id();
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random)
        .ok()
        .context("the system has no random bits")?;
    let id = uuid::Builder::from_random_bytes(random)
        .into_uuid()
        .to_string();
    private_file::create(&path, id.as_bytes())
        .with_context(|| format!("cannot keep an id for this device in {}", path.display()))?;
    Ok(id)
}
