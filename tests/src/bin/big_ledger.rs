//! Makes a ledger of many rows, and measures what a user waits for: its opening, and `tally verify`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use tally_agent::{
    core::{LateUsage, Policy, UndecidablePolicy, chain, event::KeyEcho, outcome::LicenseFound},
    deps::SystemClocks,
    ledger::{
        Keeping,
        engine::{Engine, Job, Opening, RecordJob},
        evidence::{Evidence, MarkFile},
        schema,
        storage::ReserveFile,
        verify::verify,
    },
};
use tally_shared::{
    limits::OverageSetting,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, LicenseBody, Subject},
};
use tokio::sync::oneshot;

/// How many rows share a commit.
const GROUP: u64 = 5_000;

/// Make a ledger of many rows, and measure its opening.
#[derive(Debug, Parser)]
struct Args {
    /// How many rows
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ledger.db");
    let (key, mark) = (chain::Key::new(b"key"), folder.path().join("ledger.mark"));
    let open = || -> anyhow::Result<Engine> {
        Ok(Engine::open(Opening {
            connection: schema::open(&path)?,
            policy: Policy {
                sync_interval: Duration::from_secs(5),
                settle_wait: Duration::from_secs(30),
                refresh_interval: Duration::from_mins(15),
                undecidable: UndecidablePolicy::Hold,
                late_usage: LateUsage::Report,
            },
            keeping: Keeping {
                rows: Duration::from_hours(24),
                answers: Duration::from_hours(24),
            },
            random: Box::new(|| 7),
            clocks: Arc::new(SystemClocks::new()),
            reserve: Box::new(ReserveFile::new(folder.path().join("reserve"))),
            evidence: Evidence::new(key.clone(), Box::new(MarkFile::new(mark.clone()))),
            server: "server".to_owned(),
        })?)
    };
    let started = Instant::now();
    fill(&mut open()?, args.rows)?;
    println!("{} rows recorded in {:.1?}", args.rows, started.elapsed());
    println!("ledger: {} MB", std::fs::metadata(&path)?.len() / 1_000_000);
    let mut openings = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        drop(open()?);
        openings.push(started.elapsed());
    }
    openings.sort();
    println!("opened in {:.1?} (median of 5)", openings[2]);
    let started = Instant::now();
    let findings = verify(&schema::open_read_only(&path)?, &key)?;
    println!(
        "verified in {:.1?}: sound {}, {} rows",
        started.elapsed(),
        findings.is_sound(),
        findings.rows
    );
    Ok(())
}

fn fill(engine: &mut Engine, rows: u64) -> anyhow::Result<()> {
    let subject = Subject::by_key("inspect", "KEY", "device");
    let body: LicenseBody = serde_json::from_str(
        r#"{"id":1,"max_consumptions":0,"total_consumptions":0,"allow_unlimited_consumptions":true,
        "allow_negative_consumptions":false,"allow_overages":false,"max_overages":0,
        "reset_consumption":false,"consumption_period":null,"license_type":"consumption",
        "license_active":true,"license_enabled":true}"#,
    )?;
    let found = LicenseFound {
        subject: subject.clone(),
        body,
    };
    let (learned, _) = oneshot::channel();
    let (named, mut app) = oneshot::channel();
    let jobs = vec![
        Job::App("inspector".to_owned(), named),
        Job::Learn(Box::new(found), Duration::ZERO, KeyEcho::Echoed, learned),
    ];
    engine.turn(jobs.into_iter());
    let app = app.try_recv()?.context("no application")?;
    let mut left = rows;
    while left > 0 {
        let group = left.min(GROUP);
        let jobs = (0..group).map(|_| {
            let (reply, _) = oneshot::channel();
            Job::Record(RecordJob {
                app,
                request: Arc::new(AddConsumption {
                    subject: subject.clone(),
                    feature: None,
                    units: Units::new(1),
                    setting: OverageSetting::default(),
                    event: ConsumptionEvent::Add,
                }),
                key: None,
                reply,
            })
        });
        engine.turn(jobs);
        left -= group;
    }
    Ok(())
}
