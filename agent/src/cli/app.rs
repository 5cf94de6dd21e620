//! `tally app add | list | revoke`

use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};
use tally_shared::time::Timestamp;

use super::{
    args::{AppAddArgs, AppCommand, AppNameArgs, JsonArgs},
    client::{Agent, as_owner},
    output::{self, Outcome},
};
use crate::{
    app,
    apps::{self, KeyPair, rights::Rights},
    config::paths::DataDir,
    http::{AddApp, AppKeys, Revoked},
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
    let request = AddApp {
        name: args.app.name,
        rights,
        sign_answers: !args.unsigned_answers,
    };
    let keys = make(data_dir, request)?;
    let public_key = data_dir.public_key();
    if args.app.output.json {
        output::json(&json!({
            "name": keys.name,
            "api_key": keys.api_key,
            "shared_key": keys.shared_key,
            "public_key": public_key,
            "rights": keys.rights,
        }))?;
        return Ok(Outcome::Done);
    }
    output::text(&format!(
        "api_key     {}\nshared_key  {}\npublic_key  {}\n",
        keys.api_key,
        keys.shared_key,
        public_key.display()
    ))?;
    if keys.rights != Rights::default() {
        output::line(&format!("may         {}", in_words(&keys.rights)))?;
    }
    Ok(Outcome::Done)
}

fn list(data_dir: &DataDir, args: JsonArgs) -> anyhow::Result<Outcome> {
    let (apps, unread) = as_owner(data_dir, apps::list)?;
    for error in unread {
        output::note(&format!("{:#}", anyhow::Error::from(error)));
    }
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
    take_away(data_dir, &args.name)?;
    if args.output.json {
        output::json(&json!({"name": args.name, "revoked": true}))?;
    } else {
        output::line(&format!("{} can no longer use the agent", args.name))?;
    }
    Ok(Outcome::Done)
}

/// The running agent makes the key pair, and else this does, as the owner of the folder.
fn make(data_dir: &DataDir, request: AddApp) -> anyhow::Result<AppKeys> {
    if let Some(agent) = Agent::running(data_dir)? {
        return agent.ask(Method::POST, "/v1/apps", &request);
    }
    let AddApp {
        name,
        rights,
        sign_answers,
    } = request;
    let made = |dir: &DataDir| apps::add(dir, &name, rights, sign_answers);
    let keys = as_owner(data_dir, made)?;
    tell_agent(data_dir)?;
    Ok(AppKeys::from(keys))
}

fn take_away(data_dir: &DataDir, name: &str) -> anyhow::Result<()> {
    if let Some(agent) = Agent::running(data_dir)? {
        let path = format!("/v1/apps/{}", segment(name));
        let _: Revoked = agent.ask(Method::DELETE, &path, &json!({}))?;
        return Ok(());
    }
    as_owner(data_dir, |dir| apps::revoke(dir, name))?;
    tell_agent(data_dir)
}

/// A text as one part of a path: whatever is no letter or digit is encoded.
fn segment(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// An agent that was starting meanwhile may have read the key pairs already. One that cannot be told takes a change up at
/// its next start.
fn tell_agent(data_dir: &DataDir) -> anyhow::Result<()> {
    if let Some(agent) = Agent::running(data_dir)? {
        let _: Value = agent.ask(Method::POST, "/v1/apps/reload", &json!({}))?;
    } else if data_dir.lock().exists() && app::is_running(data_dir)? {
        bail!(
            "it is done, but an agent that runs on {} cannot be told, since it does not answer on its socket: \
             start it again",
            data_dir.path().display()
        );
    }
    Ok(())
}
