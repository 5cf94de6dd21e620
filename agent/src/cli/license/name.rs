//! Which licence somebody means: its key, its user or its id is enough, where only one has it.

use std::collections::BTreeMap;

use anyhow::bail;
use serde_json::Value;

use crate::{
    cli::{args::LicenseNameArgs, client::Agent},
    http::Named,
    waiting::WaitingLicense,
};

/// Finds the licence among those that are known, and those that wait.
pub(super) fn resolve(agent: &Agent, args: &LicenseNameArgs) -> anyhow::Result<Named> {
    let licenses: Vec<Value> = agent.get("/v1/licenses")?;
    let known = licenses.iter().filter_map(|license| {
        let text = |key: &str| license.get(key)?.as_str().map(str::to_owned);
        let id = license.get("id")?.as_i64();
        let others = license.get("other_names").and_then(Value::as_array);
        let is_other = others
            .into_iter()
            .flatten()
            .any(|name| name.as_str() == Some(args.license.as_str()));
        let named = if is_other {
            Some(args.license.clone())
        } else {
            text("holder_value")
        };
        Some((text("product")?, named?, id))
    });
    let waiting: Vec<WaitingLicense> = agent.get("/v1/licenses/waiting")?;
    let waiting = waiting.into_iter().filter_map(|waiting| {
        let license = waiting.license;
        let holder = license.license_key.or(license.username)?;
        Some((license.product, holder, license.license_id))
    });
    // A licence has a line for each feature, and a name that waits may be known meanwhile.
    let mut found: BTreeMap<(String, String), Vec<Option<i64>>> = BTreeMap::new();
    for (product, holder, id) in known.chain(waiting) {
        let is_meant =
            holder == args.license || id.is_some_and(|id| id.to_string() == args.license);
        if is_meant && args.product.as_ref().is_none_or(|code| *code == product) {
            let ids = found.entry((product, holder)).or_default();
            if !ids.contains(&id) && (id.is_some() || ids.is_empty()) {
                ids.push(id);
            }
        }
    }
    let meant: Vec<Named> = found
        .into_iter()
        .flat_map(|((product, license), ids)| {
            ids.into_iter().map(move |id| Named {
                product: product.clone(),
                license: license.clone(),
                id,
                reason: None,
            })
        })
        .collect();
    match meant.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!(
            "no licence {} is known here; `tally license list` shows those that are",
            args.license
        ),
        several => {
            let names: Vec<String> = several.iter().map(describe).collect();
            bail!(
                "several licences are called {}: {}; name one by --product, or by its id",
                args.license,
                names.join(", ")
            )
        }
    }
}

fn describe(named: &Named) -> String {
    let id = named.id.map(|id| format!(" (id {id})"));
    format!(
        "{} {}{}",
        named.product,
        named.license,
        id.unwrap_or_default()
    )
}
