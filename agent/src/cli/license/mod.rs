//! `tally license add | list | show | refresh | import | remove`

mod import;
mod name;
mod show;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use tally_shared::wire::{Holder, Subject};

use super::{
    args::{
        JsonArgs, LicenseAddArgs, LicenseArgs, LicenseCommand, LicenseNameArgs, LicenseRemoveArgs,
    },
    client::{Agent, as_owner},
    human,
    output::{self, Outcome, table},
    status,
};
use crate::{
    config::paths::DataDir,
    http::{AddLicense, Forgotten},
    private_file,
    waiting::WaitingLicense,
};

pub(super) fn run(data_dir: &DataDir, command: LicenseCommand) -> anyhow::Result<Outcome> {
    match command {
        LicenseCommand::Add(args) => add(data_dir, args),
        LicenseCommand::List(args) => list(data_dir, args),
        LicenseCommand::Show(args) => show_one(data_dir, &args),
        LicenseCommand::Refresh(args) => refresh(data_dir, &args),
        LicenseCommand::Import(args) => import::run(data_dir, &args),
        LicenseCommand::Remove(args) => remove(data_dir, args),
    }
}

fn add(data_dir: &DataDir, args: LicenseAddArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let request = AddLicense::from(subject(data_dir, args.license)?);
    let licenses: Vec<Value> = agent.ask(Method::POST, "/v1/licenses", &request)?;
    if args.output.json {
        output::json(&licenses)?;
    } else {
        output::text(&status::license_table(&licenses))?;
    }
    Ok(Outcome::Done)
}

fn list(data_dir: &DataDir, args: JsonArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let licenses: Vec<Value> = agent.get("/v1/licenses")?;
    if args.json {
        output::json(&licenses)?;
        return Ok(Outcome::Done);
    }
    let waiting: Vec<WaitingLicense> = agent.get("/v1/licenses/waiting")?;
    if licenses.is_empty() && waiting.is_empty() {
        output::line("no licence is known; `tally license add` makes one known")?;
        return Ok(Outcome::Done);
    }
    let mut text = String::new();
    if !licenses.is_empty() {
        text += &status::license_table(&licenses);
    }
    if !waiting.is_empty() {
        if !text.is_empty() {
            text += "\n";
        }
        text += "wait to be read from the server:\n\n";
        text += &waiting_table(&waiting);
    }
    output::text(&text)?;
    Ok(Outcome::Done)
}

fn waiting_table(waiting: &[WaitingLicense]) -> String {
    let head = ["PRODUCT", "LICENCE", "DEVICE", "SINCE", "REFUSED"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(waiting.iter().map(|waiting| {
        let license = &waiting.license;
        let holder = license.license_key.clone().or(license.username.clone());
        [
            license.product.clone(),
            holder.unwrap_or_default(),
            license.hardware_id.clone(),
            human::moment(waiting.since),
            waiting.refused.clone().unwrap_or_default(),
        ]
    }));
    table(&rows)
}

fn show_one(data_dir: &DataDir, args: &LicenseNameArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let named = name::resolve(&agent, args)?;
    let path = format!("/v1/license?{}", serde_urlencoded::to_string(&named)?);
    show::print(&agent.get(&path)?, args.output)
}

fn refresh(data_dir: &DataDir, args: &LicenseNameArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let named = name::resolve(&agent, args)?;
    let query = serde_urlencoded::to_string(&named)?;
    let path = format!("/v1/license/refresh?{query}");
    show::print(&agent.ask(Method::POST, &path, &json!({}))?, args.output)
}

fn remove(data_dir: &DataDir, args: LicenseRemoveArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let mut named = name::resolve(&agent, &args.name)?;
    named.reason = args.reason;
    let path = format!("/v1/license?{}", serde_urlencoded::to_string(&named)?);
    let forgotten: Forgotten = agent.ask(Method::DELETE, &path, &json!({}))?;
    if args.name.output.json {
        output::json(&forgotten)?;
        return Ok(Outcome::Done);
    }
    let (product, license) = (named.product, named.license);
    output::line(&match forgotten.seq {
        Some(seq) => {
            format!("{product} {license} is forgotten; row {seq} of the ledger says so")
        }
        None => format!("{product} {license} no longer waits to be read"),
    })?;
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
    as_owner(data_dir, read_or_make_id)
}

fn read_or_make_id(data_dir: &DataDir) -> anyhow::Result<String> {
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
