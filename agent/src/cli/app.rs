//! `tally app add | list | revoke`

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    args::{AppAddArgs, AppCommand, AppNameArgs, JsonArgs},
    client::Agent,
    output::{self, Outcome},
};
use crate::{apps, config::paths::DataDir};

pub(super) fn run(data_dir: &DataDir, command: AppCommand) -> anyhow::Result<Outcome> {
    match command {
        AppCommand::Add(args) => add(data_dir, &args),
        AppCommand::List(args) => list(data_dir, args),
        AppCommand::Revoke(args) => revoke(data_dir, &args),
    }
}

fn add(data_dir: &DataDir, args: &AppAddArgs) -> anyhow::Result<Outcome> {
    let keys = apps::add(data_dir, &args.name, !args.unsigned_answers)?;
    tell_agent(data_dir)?;
    let public_key = data_dir.public_key();
    if args.output.json {
        output::json(&json!({
            "name": keys.name,
            "api_key": keys.api_key,
            "shared_key": keys.shared_key.expose(),
            "public_key": public_key,
        }))?;
        return Ok(Outcome::Done);
    }
    output::text(&format!(
        "api_key     {}\nshared_key  {}\npublic_key  {}\n",
        keys.api_key,
        keys.shared_key.expose(),
        public_key.display()
    ))?;
    Ok(Outcome::Done)
}

fn list(data_dir: &DataDir, args: JsonArgs) -> anyhow::Result<Outcome> {
    let apps = apps::list(data_dir)?;
    if args.json {
        let apps: Vec<Value> = apps
            .iter()
            .map(|app| json!({"name": app.name, "api_key": app.api_key}))
            .collect();
        output::json(&apps)?;
        return Ok(Outcome::Done);
    }
    let mut rows = vec![["NAME".to_owned(), "API KEY".to_owned()]];
    rows.extend(apps.into_iter().map(|app| [app.name, app.api_key]));
    output::text(&output::table(&rows))?;
    Ok(Outcome::Done)
}

fn revoke(data_dir: &DataDir, args: &AppNameArgs) -> anyhow::Result<Outcome> {
    apps::revoke(data_dir, &args.name)?;
    tell_agent(data_dir)?;
    if args.output.json {
        output::json(&json!({"name": args.name, "revoked": true}))?;
    } else {
        output::line(&format!("{} can no longer use the agent", args.name))?;
    }
    Ok(Outcome::Done)
}

/// An agent that runs reads the key pairs again; one that does not will at its start.
fn tell_agent(data_dir: &DataDir) -> anyhow::Result<()> {
    if data_dir.socket().exists() {
        let agent = Agent::connect(data_dir)?;
        let _: Value = agent.ask(Method::POST, "/v1/apps/reload", &json!({}))?;
    }
    Ok(())
}
