//! A ledger as it lies on the disk.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rusqlite::Connection;
use tally_agent::{
    core::{
        LateUsage, Policy, UndecidablePolicy, chain, clock::Reading, event::KeyEcho,
        instance::Instance, outcome::LicenseFound,
    },
    deps::Clocks,
    ledger::{
        Keeping, LedgerError,
        engine::{Engine, Job, Opening, RecordJob},
        evidence::{Evidence, MarkFile},
        files::Files,
        health,
        recovery::{self, Guard, RecoveryError},
        schema,
        storage::ReserveFile,
        verify::verify,
    },
};
use tally_shared::{
    limits::OverageSetting,
    time::Timestamp,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, LicenseBody, Subject},
};
use tokio::sync::oneshot;

const LICENSE: &str = r#"{"id":1,"max_consumptions":100,"total_consumptions":0,
"allow_unlimited_consumptions":false,"allow_negative_consumptions":false,"allow_overages":false,
"max_overages":0,"reset_consumption":false,"consumption_period":null,"license_type":"consumption",
"license_active":true,"license_enabled":true}"#;

struct FixedClocks;

impl Clocks for FixedClocks {
    fn reading(&self) -> Reading {
        Reading {
            wall: Timestamp::parse("2026-11-24T12:00:00Z").unwrap_or_default(),
            mono: Duration::from_hours(24),
            boot: "a".into(),
        }
    }
}

/// Two bytes that say how many blocks of 512 bytes the database takes, the database, and its log: a
/// start comes to an end, and what it goes on with is sound but for what only the chain shows.
///
/// # Panics
///
/// Where it is not.
pub fn ledger(bytes: &[u8]) {
    let Some(([high, low], rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low])) * 512;
    let (database, log) = rest.split_at(length.min(rest.len()));
    let Ok(folder) = tempfile::tempdir_in(shared_memory()) else {
        return;
    };
    let path = folder.path().join("ledger.db");
    let written = fs::write(&path, database).and_then(|()| match log {
        [] => Ok(()),
        log => fs::write(folder.path().join("ledger.db-wal"), log),
    });
    if written.is_err() {
        return;
    }
    let guard = guard(folder.path());
    let opened = match recovery::open(folder.path(), true, &FixedClocks, &guard) {
        Err(RecoveryError::Pending { .. }) => {
            let accepted = recovery::accept(folder.path(), &FixedClocks, &guard);
            assert!(accepted.is_ok(), "cannot be accepted: {accepted:?}");
            recovery::open(folder.path(), true, &FixedClocks, &guard)
        }
        other => other,
    };
    match opened {
        Ok(connection) => {
            let findings = verify(&connection, &guard.key);
            let findings = findings.unwrap_or_else(|error| panic!("cannot be read: {error:?}"));
            assert!(findings.damage().is_none(), "{findings:?}");
            examine(connection, guard);
        }
        Err(RecoveryError::Pending { .. }) => panic!("damaged again by its salvage"),
        // Of a newer version, or one that the disk refuses.
        Err(RecoveryError::Ledger(error)) => {
            assert!(
                !health::is_damage(&error),
                "damage that nobody salvages: {error:?}"
            );
        }
        Err(RecoveryError::NonePending) => {}
    }
}

/// What a start does then.
fn examine(connection: Connection, guard: Guard) {
    let engine = open(connection, guard);
    let mut engine = engine.unwrap_or_else(|error| panic!("cannot be opened: {error:?}"));
    let _ = engine.turn(std::iter::empty());
    for status in engine.core().status(engine.now()).licenses {
        assert!(status.conservation.holds(), "{status:?}");
    }
}

fn open(connection: Connection, guard: Guard) -> Result<Engine, LedgerError> {
    let reserve = guard.mark.with_extension("reserve");
    Engine::open(Opening {
        connection,
        policy: Policy {
            sync_interval: Duration::from_secs(5),
            settle_wait: Duration::from_secs(30),
            refresh_interval: Duration::from_hours(1),
            undecidable: UndecidablePolicy::Hold,
            late_usage: LateUsage::Report,
        },
        keeping: Keeping {
            rows: Duration::from_hours(24),
            answers: Duration::from_hours(24),
        },
        random: Box::new(|| 7),
        clocks: Arc::new(FixedClocks),
        reserve: Box::new(ReserveFile::new(reserve)),
        evidence: Evidence::new(guard.key, Box::new(MarkFile::new(guard.mark))),
        files: Files::simulated(),
        instance: Instance::default(),
        server: "server".to_owned(),
        peer: "peer".to_owned(),
    })
}

fn guard(folder: &Path) -> Guard {
    Guard {
        key: chain::Key::new(b"key"),
        mark: folder.join("ledger.mark"),
    }
}

fn shared_memory() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// An input to begin with: a small ledger in pages of 512 bytes, with its log where that is wanted.
///
/// # Errors
///
/// What SQLite says, or the ledger.
pub fn sample(with_log: bool) -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ledger.db");
    // The size of pages is settled by the first write.
    let small = Connection::open(&path)?;
    small.execute_batch("PRAGMA page_size = 512; VACUUM")?;
    drop(small);
    let guard = guard(folder.path());
    let mut engine = open(schema::open(&path)?, guard)?;
    let subject = Subject::by_key("product", "KEY", "device");
    let body: LicenseBody = serde_json::from_str(LICENSE)?;
    let (reply, mut known) = oneshot::channel();
    let found = Box::new(LicenseFound {
        subject: subject.clone(),
        body,
        is_fresh: true,
    });
    let (app_reply, mut app) = oneshot::channel();
    let jobs = [
        Job::Learn(found, Duration::from_secs(1), KeyEcho::Echoed, reply),
        Job::App("inspector".to_owned(), app_reply),
    ];
    let _ = engine.turn(jobs.into_iter());
    known.try_recv()??;
    let app = app.try_recv()??;
    for units in 1..=6 {
        let (reply, mut answer) = oneshot::channel();
        let request = Arc::new(AddConsumption {
            subject: subject.clone(),
            feature: None,
            units: Units::new(units),
            setting: OverageSetting::default(),
            event: ConsumptionEvent::Add,
        });
        let job = Job::Record(RecordJob {
            app,
            request,
            key: None,
            recipient: reply.into(),
        });
        let _ = engine.turn(std::iter::once(job));
        answer.try_recv()??;
    }
    // While it is open, what is new stands in the log.
    let (database, log) = if with_log {
        (
            fs::read(&path)?,
            fs::read(folder.path().join("ledger.db-wal"))?,
        )
    } else {
        drop(engine);
        (fs::read(&path)?, Vec::new())
    };
    let blocks = u16::try_from(database.len() / 512)?;
    Ok([blocks.to_be_bytes().as_slice(), &database, &log].concat())
}
