//! The engine on a ledger of its own, without an agent around it: for measuring it, and for filling a
//! ledger faster than applications could.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tally_agent::{
    config::paths::DataDir,
    core::{
        LateUsage, Policy, UndecidablePolicy, book::AppNo, event::KeyEcho, instance::Instance,
        outcome::LicenseFound,
    },
    deps::SystemClocks,
    instance,
    ledger::{
        Keeping,
        engine::{Engine, Job, Opening, RecordJob, Recording},
        evidence::{self, Evidence, MarkFile},
        files::Files,
        schema,
        storage::ReserveFile,
    },
};
use tally_shared::{
    limits::OverageSetting,
    units::Units,
    wire::{AddConsumption, ConsumptionEvent, LicenseBody, Subject},
};
use tokio::sync::oneshot;

use crate::seed;

/// How many rows share a commit while a ledger is filled.
const GROUP: u64 = 5_000;

/// An engine, an application, and licences of which it consumes one unit at a time, in turn.
pub struct Recorder {
    /// The engine, to do other things with.
    pub engine: Engine,
    app: AppNo,
    requests: Vec<Arc<AddConsumption>>,
    next: usize,
}

/// Where the answers to jobs come.
pub type Answers = Vec<oneshot::Receiver<Recording>>;

impl Recorder {
    /// Opens or makes the ledger of a data directory, and has it learn of so many licences of
    /// [`seed::numbered_license`]. Rows are due to be sent as soon as they are recorded.
    ///
    /// # Errors
    ///
    /// Where the ledger cannot be opened or written.
    pub fn open(folder: &Path, licenses: usize) -> crate::Result<Self> {
        Self::on(open_engine(folder)?, licenses)
    }

    /// Has an engine learn of so many licences of [`seed::numbered_license`].
    ///
    /// # Errors
    ///
    /// Where the ledger cannot be written.
    pub fn on(mut engine: Engine, licenses: usize) -> crate::Result<Self> {
        let (named, mut app) = oneshot::channel();
        let mut jobs = vec![Job::App("inspector".to_owned(), named)];
        let mut requests = Vec::with_capacity(licenses);
        let mut learning = Vec::with_capacity(licenses);
        for number in 1..=licenses {
            let found = found(number)?;
            requests.push(Arc::new(AddConsumption {
                subject: found.subject.clone(),
                feature: None,
                units: Units::new(1),
                setting: OverageSetting::default(),
                event: ConsumptionEvent::OfflineSync,
            }));
            let (learned, answer) = oneshot::channel();
            let asked_at = Duration::ZERO;
            let found = Box::new(found);
            jobs.push(Job::Learn(found, asked_at, KeyEcho::Echoed, learned));
            learning.push(answer);
        }
        engine.turn(jobs.into_iter());
        for mut answer in learning {
            answer.try_recv()??;
        }
        Ok(Self {
            engine,
            app: app.try_recv()??,
            requests,
            next: 0,
        })
    }

    /// Consumptions to record, of one licence after the other.
    pub fn jobs(&mut self, rows: u64) -> (Vec<Job>, Answers) {
        let job = |_| {
            let request = &self.requests[self.next % self.requests.len()];
            self.next += 1;
            let (reply, answer) = oneshot::channel();
            let job = Job::Record(RecordJob {
                app: self.app,
                request: Arc::clone(request),
                key: None,
                recipient: reply.into(),
            });
            (job, answer)
        };
        (0..rows).map(job).unzip()
    }

    /// Records so many rows, in large commits.
    ///
    /// # Errors
    ///
    /// Where one is not granted.
    pub fn fill(&mut self, rows: u64) -> crate::Result {
        let mut left = rows;
        while left > 0 {
            let group = left.min(GROUP);
            let (jobs, answers) = self.jobs(group);
            self.engine.turn(jobs.into_iter());
            self.engine.tidy();
            for mut answer in answers {
                let answer = answer.try_recv()??;
                ensure!(answer.status == 200, "not granted: {}", answer.body);
            }
            left -= group;
        }
        Ok(())
    }
}

/// Opens the engine on the ledger of a data directory, which is made where there is none.
///
/// # Errors
///
/// Where it cannot be opened.
pub fn open_engine(folder: &Path) -> crate::Result<Engine> {
    open(folder, |_| Ok((Files::simulated(), Instance::default())))
}

/// The same, of a ledger that knows where it lives.
///
/// # Errors
///
/// Where it cannot be opened.
pub fn open_engine_at_home(folder: &Path) -> crate::Result<Engine> {
    open(folder, |names| {
        let files = Files::open(&names.ledger(), &names.chain_key())?;
        Ok((files, instance::read(&names.ledger())))
    })
}

fn open(
    folder: &Path,
    place: impl FnOnce(&DataDir) -> crate::Result<(Files, Instance)>,
) -> crate::Result<Engine> {
    let names = DataDir::new(folder.to_owned());
    let key = evidence::open_key(&names.chain_key())?;
    let connection = schema::open(&names.ledger())?;
    let (files, instance) = place(&names)?;
    Ok(Engine::open(Opening {
        connection,
        policy: Policy {
            sync_interval: Duration::ZERO,
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
        reserve: Box::new(ReserveFile::new(names.reserve())),
        evidence: Evidence::new(key, Box::new(MarkFile::new(names.mark()))),
        files,
        instance,
        // As an agent calls a stub: rows that are another server's are not sent to it.
        server: "loopback stub".to_owned(),
        peer: "peer".to_owned(),
    })?)
}

/// What the server says of a licence of [`seed::numbered_license`].
fn found(number: usize) -> crate::Result<LicenseFound> {
    let described = seed::merged(
        seed::numbered_license(number),
        serde_json::json!({
            "total_consumptions": 0, "allow_negative_consumptions": false,
            "allow_overages": false, "max_overages": 0, "reset_consumption": false,
            "consumption_period": null, "license_type": "consumption", "license_active": true,
            "license_enabled": true, "product": null, "license_key": null, "devices": null,
        }),
    );
    let body: LicenseBody =
        serde_json::from_value(described).context("a licence as a server describes it")?;
    Ok(LicenseFound {
        subject: Subject::by_key(seed::PRODUCT, &seed::numbered_key(number), seed::DEVICE),
        body,
        is_fresh: true,
    })
}
