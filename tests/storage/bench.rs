//! An agent's engine on a simulated disk, a licence on a server that always agrees, and what is known to
//! be acknowledged.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tally_agent::{
    core::{
        LateUsage, Policy, UndecidablePolicy,
        book::AppNo,
        chain::Hash,
        clock::Reading,
        command::Command,
        event::{Event, KeyEcho},
        instance::Instance,
        outcome::{LicenseFound, LookUpOutcome, SendOutcome},
        report::Conservation,
    },
    deps::Clocks,
    ledger::{
        Keeping, LedgerError,
        answers::RequestKey,
        engine::{Engine, Job, Opening, RecordError, RecordJob, Recording, lock},
        files::Files,
        schema,
        storage::Reserve,
        verify::verify,
    },
};
use tally_shared::{
    limits::OverageSetting,
    time::Timestamp,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, LicenseBody, Subject},
};
use tally_simdisk::Disk;
use tally_tests::marks::{self, MemoryMarks};
use tokio::sync::oneshot;

const FIRST_VERSION: &str = include_str!("../../agent/src/ledger/migrations/0001_init.sql");

/// A clock that only moves when it is told to.
struct Ticking(Mutex<u64>);

impl Clocks for Ticking {
    fn reading(&self) -> Reading {
        let millis = *self.0.lock().unwrap();
        let wall = Timestamp::parse("2026-11-23T12:00:00Z").unwrap();
        Reading {
            wall: wall.plus(Duration::from_millis(millis)),
            mono: Duration::from_millis(millis),
            boot: "boot".into(),
        }
    }
}

/// Space that the disk of these tests does not set aside.
struct NoReserve;

impl Reserve for NoReserve {
    fn take(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn release(&mut self) -> bool {
        false
    }
}

/// The engine, and what is known of what it did.
pub(crate) struct Bench {
    pub(crate) disk: Disk,
    clocks: Arc<Ticking>,
    engine: Option<Engine>,
    app: Option<AppNo>,
    /// Units that were acknowledged.
    pub(crate) acknowledged: i64,
    /// Units whose request failed: recorded or not.
    pub(crate) unknown: i64,
    /// Units that the server counted.
    pub(crate) counted: i64,
    requests: u64,
    /// What the agent ordered.
    commands: Vec<Command>,
    marks: MemoryMarks,
}

impl Bench {
    /// A disk with a ledger of the first version on it.
    pub(crate) fn new() -> Self {
        let disk = Disk::new();
        let old = rusqlite::Connection::open(disk.path("ledger.db")).unwrap();
        old.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
            .unwrap();
        old.execute_batch(FIRST_VERSION).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        disk.sync_folder();
        Self {
            disk,
            clocks: Arc::new(Ticking(Mutex::new(1000))),
            engine: None,
            app: None,
            acknowledged: 0,
            unknown: 0,
            counted: 0,
            requests: 0,
            commands: Vec::new(),
            marks: MemoryMarks::default(),
        }
    }

    /// Opens the ledger as it is on the disk.
    pub(crate) fn start(&mut self) -> Result<(), LedgerError> {
        self.engine = None;
        self.commands.clear();
        let connection = schema::open_simulated(&self.disk.path("ledger.db"))?;
        self.disk.sync_folder();
        let mut drawn = self.requests;
        let engine = Engine::open(Opening {
            connection,
            policy: Policy {
                sync_interval: Duration::from_secs(1),
                settle_wait: Duration::from_secs(1),
                refresh_interval: Duration::from_hours(1),
                undecidable: UndecidablePolicy::Hold,
                late_usage: LateUsage::Report,
            },
            keeping: Keeping {
                rows: Duration::from_secs(1),
                answers: Duration::from_hours(1),
            },
            random: Box::new(move || {
                drawn += 1;
                drawn
            }),
            clocks: Arc::clone(&self.clocks) as Arc<dyn Clocks>,
            reserve: Box::new(NoReserve),
            evidence: marks::evidence(&self.marks),
            files: Files::simulated(),
            instance: Instance::default(),
            server: "server".to_owned(),
            peer: "peer".to_owned(),
        })?;
        self.engine = Some(engine);
        self.find_app();
        Ok(())
    }

    /// The engine on its own, with the licence known, and the number of the application.
    pub(crate) fn into_engine(mut self) -> (Engine, AppNo) {
        self.start().unwrap();
        self.learn();
        let app = self.app.or_else(|| self.find_app());
        (self.engine.take().unwrap(), app.unwrap())
    }

    /// The whole life of a ledger, as far as the disk lets it come.
    pub(crate) fn live(&mut self) {
        if self.start().is_err() {
            return;
        }
        self.learn();
        for round in 0..3 {
            for _ in 0..6 {
                self.record(1 + round);
            }
            self.pass(Duration::from_secs(2));
            self.sync();
            // Old enough to be folded, in slices.
            self.pass(Duration::from_hours(2));
            self.sync();
            self.checkpoint();
        }
    }

    /// Consumes units, under a key.
    pub(crate) fn record(&mut self, units: i64) -> Option<Recording> {
        self.requests += 1;
        let key = format!("request-{}", self.requests);
        let app = self.app.or_else(|| self.find_app())?;
        let (reply, mut answer) = oneshot::channel();
        self.turn(vec![Job::Record(RecordJob {
            app,
            request: request(units),
            key: Some(RequestKey {
                key,
                fingerprint: Hash([1; 32]),
            }),
            recipient: reply.into(),
        })]);
        let answer = answer.try_recv().ok();
        match &answer {
            Some(Ok(answer)) if answer.status == 200 => self.acknowledged += units,
            Some(Err(RecordError::Unknown) | Ok(_)) => {}
            _ => self.unknown += units,
        }
        answer
    }

    /// What the agent owes is sent, and counted by the server, until there is nothing left to do.
    pub(crate) fn sync(&mut self) {
        for _ in 0..20 {
            let Some(command) = self.commands.pop() else {
                self.turn(vec![Job::Event(Event::Tick)]);
                if self.commands.is_empty() {
                    break;
                }
                continue;
            };
            let event = self.carry_out(command);
            self.turn(event.into_iter().map(Job::Event).collect());
        }
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.clocks.0.lock().unwrap() += u64::try_from(time.as_millis()).unwrap();
    }

    /// The agent wakes, and nothing that it orders leaves the device.
    pub(crate) fn tick(&mut self) {
        self.turn(vec![Job::Event(Event::Tick)]);
        self.commands.clear();
    }

    /// Makes the licence known.
    pub(crate) fn learn(&mut self) {
        let Some(engine) = &self.engine else { return };
        let now = engine.now();
        lock(&engine.clock()).correct(now.time, Duration::ZERO, now.mono, false);
        let found = LicenseFound {
            subject: subject(),
            body: self.body(),
            is_fresh: true,
        };
        let (reply, _) = oneshot::channel();
        self.turn(vec![Job::Learn(
            Box::new(found),
            now.mono,
            KeyEcho::Echoed,
            reply,
        )]);
    }

    /// The process ends without a word.
    pub(crate) fn die(&mut self) {
        self.disk.kill();
        self.engine = None;
    }

    pub(crate) fn sums(&self) -> Conservation {
        let engine = self.engine.as_ref().unwrap();
        let status = engine.core().status(engine.now());
        status
            .licenses
            .first()
            .map(|known| known.conservation)
            .unwrap_or_default()
    }

    /// Every acknowledged unit is there, nothing half-written is believed, and the ledger proves itself.
    #[track_caller]
    pub(crate) fn check(&self, when: &str) {
        let connection = schema::open_read_only(&self.disk.path("ledger.db")).unwrap();
        let findings = verify(&connection, &marks::key()).unwrap();
        assert!(findings.is_sound(), "{when}: {findings:?}");
        let sums = self.sums();
        assert!(sums.holds(), "{when}: {sums:?}");
        let range = self.acknowledged..=self.acknowledged + self.unknown;
        assert!(
            range.contains(&sums.recorded),
            "{when}: {range:?} acknowledged, {sums:?}"
        );
        let sent = sums.settled + sums.unknown + sums.in_flight;
        assert!(
            sums.settled <= self.counted,
            "{when}: {} counted, {sums:?}",
            self.counted
        );
        assert!(
            sent >= self.counted,
            "{when}: {} counted, {sums:?}",
            self.counted
        );
    }

    fn turn(&mut self, jobs: Vec<Job>) {
        if let Some(engine) = &mut self.engine {
            self.commands.extend(engine.turn(jobs.into_iter()).commands);
        }
    }

    fn find_app(&mut self) -> Option<AppNo> {
        let (reply, mut answer) = oneshot::channel();
        self.turn(vec![Job::App("inspector".to_owned(), reply)]);
        self.app = answer.try_recv().ok()?.ok();
        self.app
    }

    fn carry_out(&mut self, command: Command) -> Option<Event> {
        let key = KeyEcho::Echoed;
        match command {
            Command::Send { batch, request, .. } => {
                self.counted += request.units.get();
                let standing = self.body().counter.standing(Timestamp::default());
                let outcome = SendOutcome::Applied(standing.into());
                Some(Event::Answered {
                    batch,
                    outcome,
                    key,
                })
            }
            Command::LookUp { license, subject } => {
                let body = self.body();
                let hardware_id = subject.hardware_id.clone();
                let outcome = LookUpOutcome::Found(Box::new(LicenseFound {
                    subject,
                    body,
                    is_fresh: true,
                }));
                Some(Event::LookedUp {
                    license,
                    hardware_id,
                    outcome,
                    key,
                })
            }
            Command::FindPrefix { .. } => None,
        }
    }

    pub(crate) fn checkpoint(&self) {
        if let Ok(connection) = rusqlite::Connection::open(self.disk.path("ledger.db")) {
            // Fails where the disk does.
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }

    fn body(&self) -> LicenseBody {
        let text = format!(
            r#"{{"id":1,"max_consumptions":1000000,"total_consumptions":{},
            "allow_unlimited_consumptions":false,"allow_negative_consumptions":false,
            "allow_overages":false,"max_overages":0,"reset_consumption":false,
            "consumption_period":null,"license_type":"consumption","license_active":true,
            "license_enabled":true}}"#,
            self.counted
        );
        serde_json::from_str(&text).unwrap()
    }
}

fn subject() -> Subject {
    Subject::by_key("inspect", "KEY", "device")
}

/// Consumes units of the licence.
pub(crate) fn request(units: i64) -> Arc<AddConsumption> {
    Arc::new(AddConsumption {
        subject: subject(),
        feature: None,
        units: Units::new(units),
        setting: OverageSetting::default(),
        event: ConsumptionEvent::Add,
    })
}
