//! `tally app add | list | revoke`

use reqwest::Method;
use serde_json::{Value, json};
use tally_shared::time::Timestamp;

use super::{
    args::{AppAddArgs, AppCommand, AppNameArgs, JsonArgs},
    client::Agent,
    output::{self, Outcome},
};
use crate::{
    apps::{self, KeyPair, rights::Rights},
    config::paths::DataDir,
};

pub(super) fn run(data_dir: &DataDir, command: AppCommand) -> anyhow::Result<Outcome> {
    match command {
        AppCommand::Add(args) => add(data_dir, args),
        AppCommand::List(args) => list(data_dir, args),
        AppCommand::Revoke(args) => revoke(data_dir, &args),
    }
}

fn add(data_dir: &DataDir, args: AppAddArgs) -> anyhow::Result<Outcome> {
    let now = Timestamp::from_system_time(std::time::SystemTime::now());
    let rights = Rights {
        product: args.product,
        license_key: args.license_key,
        username: args.username,
        max_per_minute: args.max_per_minute,
        read_only: args.read_only,
        expires_at: args.expires.map(|time| now.plus(time)),
    };
    let keys = apps::add(data_dir, &args.app.name, rights, !args.unsigned_answers)?;
    tell_agent(data_dir)?;
    let public_key = data_dir.public_key();
    if args.app.output.json {
        output::json(&json!({
            "name": keys.name,
            "api_key": keys.api_key,
            "shared_key": keys.shared_key.expose(),
            "public_key": public_key,
            "rights": keys.rights,
        }))?;
        return Ok(Outcome::Done);
    }
    output::text(&format!(
        "api_key     {}\nshared_key  {}\npublic_key  {}\n",
        keys.api_key,
        keys.shared_key.expose(),
        public_key.display()
    ))?;
    if keys.rights != Rights::default() {
        output::line(&format!("may         {}", in_words(&keys.rights)))?;
    }
    Ok(Outcome::Done)
}

fn list(data_dir: &DataDir, args: JsonArgs) -> anyhow::Result<Outcome> {
    let apps = apps::list(data_dir)?;
    if args.json {
        let apps: Vec<Value> = apps
            .iter()
            .map(|app| json!({"name": app.name, "api_key": app.api_key, "rights": app.rights}))
            .collect();
        output::json(&apps)?;
        return Ok(Outcome::Done);
    }
    let mut rows = vec![["NAME", "API KEY", "MAY"].map(str::to_owned)];
    let row = |app: KeyPair| [app.name, app.api_key, in_words(&app.rights)];
    rows.extend(apps.into_iter().map(row));
    output::text(&output::table(&rows))?;
    Ok(Outcome::Done)
}

/// What an application may do, for people.
fn in_words(rights: &Rights) -> String {
    let mut words = vec![if rights.read_only { "read" } else { "consume" }.to_owned()];
    let mut add = |name: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("{name} {value}")));
    };
    add("of product", rights.product.clone());
    add("with licence", rights.license_key.clone());
    add("as user", rights.username.clone());
    let pace = rights.max_per_minute;
    add("at most", pace.map(|max| format!("{max} times a minute")));
    add("until", rights.expires_at.map(|end| end.to_string()));
    words.join(", ")
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
