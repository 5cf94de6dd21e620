//! One run: a server without keys, what stands before it, and agents whose applications consume while answers get
//! lost; then quiet, and a judgement.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use rand::RngExt as _;
use serde_json::{Value, json};
use tally_tests::{
    agent::{Agent, Setup},
    client::Client,
    seed,
    stub::{Keys, Stub},
};

use super::{
    agents::Books,
    chain::{Between, Chain},
    judge::{License, Verdict},
};

/// The most units of a grant. Many, so that the units of a batch name it.
const UNITS_MAX: i64 = 999_999;

/// One licence in so many has a limit; the others have none.
const LIMITED: usize = 5;

/// How many units a limit leaves, when it is set and each time that it is raised.
const ROOM: i64 = 6_000_000;

/// How often an application asks for more of a licence.
const PACE: Duration = Duration::from_millis(400);

/// How long a vendor waits before a limit is raised again.
const VENDOR: Duration = Duration::from_secs(5);

/// How long agents may take at the end until nothing is owed but what is held.
const QUIET: Duration = Duration::from_secs(25);

/// How many batches of a run that something is wrong with are named.
const COMPLAINTS_MAX: usize = 3;

/// How a run is made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The program `tally`.
    pub(super) tally: String,
    /// The program `tally-stub`.
    pub(super) stub: String,
    /// How many answers are lost.
    pub(super) losses: u64,
    /// How long applications consume at most.
    pub(super) patience: Duration,
    /// How many agents.
    pub(super) agents: usize,
    /// How many licences each has.
    pub(super) licenses: usize,
    /// Where to write what the agents say and log.
    pub(super) keep: Option<PathBuf>,
    /// The seed of the losses.
    pub(super) seed: u64,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) between: Between,
    /// Consumptions that agents sent.
    pub(super) sent: u64,
    /// Consumptions that reached the server.
    pub(super) reached: u64,
    /// Answers that were lost.
    pub(super) lost_answers: u64,
    pub(super) took: Duration,
    pub(super) verdict: Verdict,
    /// What is wrong with which batch of which licence.
    complaints: Vec<String>,
}

/// An agent, its application and its licences.
struct Site {
    agent: Agent,
    app: Client,
    numbers: RangeInclusive<usize>,
}

impl Plan {
    /// Runs it to its end.
    pub(super) fn run(&self, between: Between) -> tally_tests::Result<Outcome> {
        let started = Instant::now();
        let stub = self.stub()?;
        let server = stub.url().trim_start_matches("http://").parse()?;
        let chain = Chain::build(between, server, self.seed)?;
        let sites: Vec<Site> = (0..self.agents)
            .map(|number| self.site(number, between, &chain))
            .collect::<tally_tests::Result<_>>()?;
        chain.lose(true);
        let granted = self.consume(&stub, &chain, &sites)?;
        chain.lose(false);
        let (verdict, complaints) = judge(&stub, &sites, &granted)?;
        self.keep(between, &sites)?;
        Ok(Outcome {
            between,
            sent: chain.sent(),
            reached: chain.reached(),
            lost_answers: chain.lost(),
            took: started.elapsed(),
            verdict,
            complaints,
        })
    }

    fn keep(&self, between: Between, sites: &[Site]) -> tally_tests::Result {
        let Some(folder) = &self.keep else {
            return Ok(());
        };
        std::fs::create_dir_all(folder)?;
        for site in sites {
            let name = format!("{between:?}-{}", site.numbers.start());
            Books::of(&site.agent)?.keep(&folder.join(format!("{name}.json")))?;
            std::fs::copy(site.agent.log(), folder.join(format!("{name}.log")))?;
        }
        Ok(())
    }

    fn stub(&self) -> tally_tests::Result<Stub> {
        let licenses: Vec<Value> = (1..=self.agents * self.licenses)
            .map(|number| {
                let limit =
                    json!({"max_consumptions": ROOM, "allow_unlimited_consumptions": false});
                let with = if is_limited(number) { limit } else { json!({}) };
                seed::merged(seed::numbered_license(number), with)
            })
            .collect();
        Stub::start(self.stub.as_str(), &seed::seed(&licenses), Keys::NotKept)
    }

    fn site(&self, number: usize, between: Between, chain: &Chain) -> tally_tests::Result<Site> {
        let settle_wait = format!("{}ms", between.settle_wait().as_millis());
        let flags = [
            ["--sync-interval", "100ms"],
            ["--settle-wait", &settle_wait],
            ["--refresh-interval", "5s"],
            ["--request-timeout", "10s"],
        ];
        let setup = Setup {
            flags: flags
                .as_flattened()
                .iter()
                .map(ToString::to_string)
                .collect(),
        };
        let agent = Agent::start(self.tally.as_str(), &chain.url(), &setup)?;
        let app = agent.app("inspector")?;
        let first = number * self.licenses + 1;
        let numbers = first..=number * self.licenses + self.licenses;
        let books = Books::of(&agent)?;
        for number in numbers.clone() {
            books.add_license(number)?;
        }
        Ok(Site {
            agent,
            app,
            numbers,
        })
    }

    /// Has applications consume until enough answers are lost; what was granted, by licence.
    fn consume(
        &self,
        stub: &Stub,
        chain: &Chain,
        sites: &[Site],
    ) -> tally_tests::Result<HashMap<usize, i64>> {
        let is_over = AtomicBool::new(false);
        let deadline = Instant::now() + self.patience;
        thread::scope(|scope| {
            let consumers: Vec<_> = sites
                .iter()
                .map(|site| scope.spawn(|| site.consume(stub, &is_over)))
                .collect();
            while chain.lost() < self.losses && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(50));
            }
            is_over.store(true, Relaxed);
            let mut granted = HashMap::new();
            for consumer in consumers {
                let found = consumer.join();
                granted.extend(found.map_err(|_| anyhow::anyhow!("an application panicked"))??);
            }
            Ok(granted)
        })
    }
}

impl Site {
    fn consume(
        &self,
        stub: &Stub,
        is_over: &AtomicBool,
    ) -> tally_tests::Result<HashMap<usize, i64>> {
        let mut granted = HashMap::new();
        let mut raised: HashMap<usize, Instant> = HashMap::new();
        let mut limits: HashMap<usize, i64> = HashMap::new();
        while !is_over.load(Relaxed) {
            let next = Instant::now() + PACE;
            for number in self.numbers.clone() {
                let units = rand::rng().random_range(1..=UNITS_MAX);
                let reply = self
                    .app
                    .post("/api/v4/add_consumption", &asked(number, units))?;
                if reply.status == 200 {
                    *granted.entry(number).or_default() += units;
                } else if reply.code().as_deref() == Some("license_not_enough_consumptions")
                    && raised.get(&number).is_none_or(|at| at.elapsed() > VENDOR)
                {
                    let limit = limits.entry(number).or_insert(ROOM);
                    *limit += ROOM;
                    stub.patch(number.try_into()?, &json!({"max_consumptions": *limit}))?;
                    raised.insert(number, Instant::now());
                }
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(granted)
    }
}

fn is_limited(number: usize) -> bool {
    number.is_multiple_of(LIMITED)
}

fn asked(number: usize, units: i64) -> Value {
    json!({
        "license_key": seed::numbered_key(number), "product": seed::PRODUCT,
        "hardware_id": seed::DEVICE, "consumptions": units,
    })
}

/// Waits until nothing is owed but what is held, as far as the agents come to that, and judges.
fn judge(
    stub: &Stub,
    sites: &[Site],
    granted: &HashMap<usize, i64>,
) -> tally_tests::Result<(Verdict, Vec<String>)> {
    let deadline = Instant::now() + QUIET;
    let mut books = Vec::new();
    for site in sites {
        let found = Books::of(&site.agent)?;
        while !found.is_quiet()? && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(200));
        }
        books.push(found.licenses()?);
    }
    let (mut verdict, mut complaints) = (Verdict::default(), Vec::new());
    for (site, mut books) in sites.iter().zip(books) {
        for number in site.numbers.clone() {
            let known = books.remove(&seed::numbered_key(number));
            let license = License {
                granted: granted.get(&number).copied().unwrap_or_default(),
                counted: counted(stub, number)?,
                ..known.unwrap_or_default()
            };
            verdict = verdict.plus(license.judge());
            let found = license.complaints().into_iter();
            complaints.extend(found.map(|complaint| format!("licence {number}: {complaint}")));
        }
        ensure!(
            books.is_empty(),
            "an agent speaks of licences that it was not given: {books:?}"
        );
    }
    Ok((verdict, complaints))
}

fn counted(stub: &Stub, number: usize) -> tally_tests::Result<Vec<i64>> {
    let id = i64::try_from(number)?;
    let entries = stub.activity(id)?;
    let units: Vec<i64> = entries.iter().map(|(_, units)| *units).collect();
    let (sum, total) = (units.iter().sum::<i64>(), stub.total(id)?);
    ensure!(
        sum == total,
        "the server's log has {sum} units of licence {id}, its total is {total}"
    );
    Ok(units)
}

impl Outcome {
    /// What is wrong with it; nothing where it is as it should be.
    pub(super) fn defects(&self, losses: u64) -> Vec<String> {
        let verdict = &self.verdict;
        let mut defects = Vec::new();
        if verdict.unnoticed > 0 {
            defects.push(format!(
                "{} units counted twice unnoticed",
                verdict.unnoticed
            ));
        }
        if verdict.lost > 0 {
            defects.push(format!("{} units lost", verdict.lost));
        }
        defects.extend(self.complaints.iter().take(COMPLAINTS_MAX).cloned());
        if self.between == Between::Nothing && verdict.findings > 0 {
            defects.push(format!(
                "{} findings where nobody repeats",
                verdict.findings
            ));
        }
        // A machine that is busy loses fewer in the time there is; hardly any prove nothing.
        if self.lost_answers < losses / 4 {
            defects.push(format!("only {} answers were lost", self.lost_answers));
        }
        let named = |defect: String| format!("{:?}: {defect}", self.between);
        defects.into_iter().map(named).collect()
    }
}
