//! `tally license import`: many licences, from a file.

use std::{collections::BTreeSet, io::Read as _};

use anyhow::{Context as _, bail};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::this_device;
use crate::{
    cli::{
        args::LicenseImportArgs,
        client::Agent,
        output::{self, Outcome, table},
    },
    config::paths::DataDir,
    http::{AddLicense, ImportLicense, ImportOutcome, Imported},
};

/// A line of the file, of our own form or as `tally license list --json` prints it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    product: String,
    license_key: Option<String>,
    username: Option<String>,
    license_id: Option<i64>,
    hardware_id: Option<String>,
    answer: Option<String>,
    signature: Option<String>,
    /// From here on: `tally license list --json`.
    holder: Option<String>,
    holder_value: Option<String>,
    id: Option<i64>,
    devices: Vec<String>,
}

pub(super) fn run(data_dir: &DataDir, args: &LicenseImportArgs) -> anyhow::Result<Outcome> {
    let agent = Agent::connect(data_dir)?;
    let licenses = licenses(data_dir, lines(&read(args)?)?)?;
    let mut later = args.later;
    let mut results = Vec::with_capacity(licenses.len());
    for license in licenses {
        let request = ImportLicense {
            later,
            ..license.clone()
        };
        let result = agent.try_ask::<Imported>(Method::POST, "/v1/licenses/import", &request)?;
        // The server is not there: the others need not wait for it one by one.
        let waits = |imported: &Imported| imported.outcome == ImportOutcome::Waiting;
        later |= result.as_ref().is_ok_and(waits);
        results.push((license.license, result));
    }
    let is_refused = results.iter().any(|(_, result)| result.is_err());
    if args.output.json {
        let results: Vec<Value> = results.iter().map(as_json).collect();
        output::json(&results)?;
    } else {
        output::text(&page(&results))?;
    }
    Ok(if is_refused {
        Outcome::Refused
    } else {
        Outcome::Done
    })
}

fn read(args: &LicenseImportArgs) -> anyhow::Result<String> {
    if args.file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))
}

fn lines(text: &str) -> anyhow::Result<Vec<Line>> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let lines: Vec<Line> = match text.bytes().next() {
        None => Vec::new(),
        Some(b'[') => serde_json::from_str(text).context("not an array of licences")?,
        Some(b'{') => {
            let objects = serde_json::Deserializer::from_str(text).into_iter();
            let numbered = objects.enumerate().map(|(place, object)| {
                object.with_context(|| format!("licence {} of the file", place + 1))
            });
            numbered.collect::<Result<_, _>>()?
        }
        Some(_) => {
            let mut reader = csv::ReaderBuilder::new()
                .trim(csv::Trim::All)
                .from_reader(text.as_bytes());
            let rows = reader.deserialize::<CsvLine>();
            let rows: Result<Vec<CsvLine>, csv::Error> = rows.collect();
            let rows = rows.context("not CSV with the columns that --help names")?;
            rows.into_iter().map(Line::from).collect()
        }
    };
    if lines.is_empty() {
        bail!("the file holds no licence");
    }
    Ok(lines)
}

/// A line of CSV. A column that is not known is a mistake more often than not.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvLine {
    product: String,
    license_key: Option<String>,
    username: Option<String>,
    license_id: Option<i64>,
    hardware_id: Option<String>,
}

impl From<CsvLine> for Line {
    fn from(line: CsvLine) -> Self {
        Self {
            product: line.product,
            license_key: line.license_key,
            username: line.username,
            license_id: line.license_id,
            hardware_id: line.hardware_id,
            ..Self::default()
        }
    }
}

/// Each licence on each device once.
fn licenses(data_dir: &DataDir, lines: Vec<Line>) -> anyhow::Result<Vec<ImportLicense>> {
    let mut seen = BTreeSet::new();
    let mut licenses = Vec::new();
    for (place, line) in lines.into_iter().enumerate() {
        let license = license(data_dir, line);
        let license = license.with_context(|| format!("licence {} of the file", place + 1))?;
        for license in license {
            let name = serde_json::to_string(&license.license)?;
            if seen.insert(name) {
                licenses.push(license);
            }
        }
    }
    Ok(licenses)
}

fn license(data_dir: &DataDir, line: Line) -> anyhow::Result<Vec<ImportLicense>> {
    let (mut license_key, mut username, mut license_id) =
        (line.license_key, line.username, line.license_id);
    match line.holder.as_deref() {
        Some("license_key") => license_key = line.holder_value,
        Some("username") => (username, license_id) = (line.holder_value, line.id),
        _ => {}
    }
    if line.product.is_empty() || license_key.is_some() == username.is_some() {
        bail!("it needs `product`, and either `license_key` or `username`");
    }
    let mut devices = line.devices;
    devices.extend(line.hardware_id);
    if devices.is_empty() {
        devices.push(this_device(data_dir)?);
    }
    let named = devices.into_iter().map(|hardware_id| ImportLicense {
        license: AddLicense {
            product: line.product.clone(),
            license_key: license_key.clone(),
            username: username.clone(),
            license_id,
            hardware_id,
        },
        answer: line.answer.clone(),
        signature: line.signature.clone(),
        later: false,
    });
    Ok(named.collect())
}

/// A licence, and what importing it came to.
type Done = (AddLicense, Result<Imported, String>);

fn as_json((license, result): &Done) -> Value {
    let mut value = json!({"license": license});
    match result {
        Ok(imported) => value["result"] = json!(imported),
        Err(error) => value["error"] = json!(error),
    }
    value
}

fn page(results: &[Done]) -> String {
    let head = ["PRODUCT", "LICENCE", "DEVICE", "RESULT"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(results.iter().map(|(license, result)| {
        let holder = license.license_key.clone().or(license.username.clone());
        let result = match result {
            Err(error) => format!("refused: {error}"),
            Ok(imported) => match imported.outcome {
                ImportOutcome::Known => "known already; nothing was changed".to_owned(),
                ImportOutcome::Added => "added: the server was asked".to_owned(),
                ImportOutcome::Imported => "added by the server's signed answer".to_owned(),
                ImportOutcome::Waiting => "waits to be read at the next contact".to_owned(),
            },
        };
        [
            license.product.clone(),
            holder.unwrap_or_default(),
            license.hardware_id.clone(),
            result,
        ]
    }));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn names(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::new(folder.path().to_owned());
        let licenses = licenses(&data_dir, lines(text).unwrap()).unwrap();
        let name = |license: ImportLicense| serde_json::to_string(&license.license).unwrap();
        licenses.into_iter().map(name).collect()
    }

    #[test]
    fn a_file_is_csv_json_lines_or_an_array() {
        let expected = [r#"{"product":"inspect","license_key":"AAAA","hardware_id":"d1"}"#];
        assert_eq!(
            names("product,license_key,hardware_id\ninspect, AAAA ,d1\n"),
            expected
        );
        let line = r#"{"product":"inspect","license_key":"AAAA","hardware_id":"d1"}"#;
        assert_eq!(names(line), expected);
        assert_eq!(names(&format!("{line}\n{line}\n")), expected);
        assert_eq!(names(&format!("\u{feff} [{line}]")), expected);
    }

    #[test]
    fn the_list_of_another_agent_is_understood() {
        let list = r#"[
            {"id": 7, "product": "inspect", "holder": "username", "holder_value": "u", "feature": null,
             "devices": ["d1", "d2"], "total": 5},
            {"id": 7, "product": "inspect", "holder": "username", "holder_value": "u", "feature": "scans",
             "devices": ["d1", "d2"]}]"#;
        let expected = ["d1", "d2"].map(|device| {
            format!(
                r#"{{"product":"inspect","username":"u","license_id":7,"hardware_id":"{device}"}}"#
            )
        });
        assert_eq!(names(list), expected);
    }

    #[test]
    fn what_is_no_licence_is_named() {
        for (text, expected) in [
            ("", "holds no licence"),
            ("product,licence\ninspect,AAAA\n", "not CSV"),
            (
                r#"{"product":"inspect"}"#,
                "licence 1 of the file: it needs `product`, and either",
            ),
        ] {
            let data_dir = DataDir::new(std::path::PathBuf::from("/nowhere"));
            let error = lines(text).and_then(|lines| licenses(&data_dir, lines));
            let error = error.err().unwrap();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }
}
