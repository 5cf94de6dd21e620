//! A long run under load with syncing: whether the ledger's file, the agent's memory and its latency stay
//! flat while millions of rows come, are settled, and are folded.
//!
//! Old rows are folded after a start and each hour. A run is shorter than that, so the agent is started
//! again now and then: between two starts the file grows, and what it grows to must stay the same.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tally_agent::config::paths::DataDir;
use tally_tests::{
    agent::{Agent, Setup},
    chart::{Chart, Colour, Line, Panel},
    client::by_key,
    load::{Load, Target},
    programs::Programs,
    seed,
    stub::{Keys, Stub},
    wait,
    watched::Watched,
};

/// A figure that rises by no more than this over the second half of a run is flat.
const FLAT: f64 = 0.1;

/// How long the last rows may take to be settled.
const PATIENCE: Duration = Duration::from_mins(2);

/// Run an agent under load for long, and watch what grows
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    programs: Programs,
    /// How many grants
    #[arg(long, default_value_t = 10_000_000)]
    grants: u64,
    /// How many connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How long after it is settled a row is kept
    #[arg(long, default_value = "10s")]
    retention: String,
    /// How often the agent is started again, over the whole run
    #[arg(long, default_value_t = 20)]
    restarts: u64,
    /// How many seconds lie between two samples
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Write the samples as CSV
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Draw them
    #[arg(long)]
    chart: Option<PathBuf>,
}

/// What was seen at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Since the run began.
    seconds: f64,
    /// Grants since the run began.
    grants: f64,
    /// Grants per second since the last sample.
    rate: f64,
    /// Latencies since the last sample, in microseconds.
    p50: f64,
    p99: f64,
    /// The ledger and its write-ahead log, in MB.
    ledger: f64,
    log: f64,
    /// Resident memory, in MB.
    memory: f64,
}

/// One of them.
type Figure = fn(&Sample) -> f64;

struct Soak {
    args: Args,
    stub: Stub,
    agent: Agent,
    keys: (String, String),
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn main() -> tally_tests::Result {
    let mut soak = Soak::start(Args::parse())?;
    let samples = soak.run()?;
    soak.check()?;
    let args = &soak.args;
    if let Some(path) = &args.csv {
        std::fs::write(path, to_csv(&samples)?)?;
    }
    if let Some(path) = &args.chart {
        chart(&samples).draw(path)?;
    }
    println!("\nover the second half of the run:");
    let figures: [(&str, Figure); 3] = [
        ("ledger and log", |sample| sample.ledger + sample.log),
        ("memory", |sample| sample.memory),
        ("p99", |sample| sample.p99),
    ];
    for (name, figure) in figures {
        let (change, error) = change(&samples[samples.len() / 2..], figure);
        let verdict = if change <= FLAT { "flat" } else { "NOT FLAT" };
        let (change, error) = (change * 100.0, error * 100.0);
        println!("{name:<16}{change:>+8.1} % ± {error:<5.1} {verdict}");
    }
    Ok(())
}

impl Soak {
    fn start(args: Args) -> tally_tests::Result<Self> {
        std::fs::create_dir_all(&args.programs.folder)?;
        let unlimited = seed::license(0, json!({"allow_unlimited_consumptions": true}));
        let stub = Stub::start(
            args.programs.stub.as_str(),
            &seed::seed(&[unlimited]),
            Keys::Kept,
        )?;
        let flags = [
            "--sync-interval",
            "5s",
            "--settle-wait",
            "30s",
            "--retention",
            &args.retention,
        ];
        let setup = Setup {
            flags: flags.map(str::to_owned).to_vec(),
        };
        let agent = Agent::start_in(
            &args.programs.folder,
            args.programs.tally.as_str(),
            stub.url(),
            &setup,
        )?;
        agent.add_license()?;
        let keys = agent.json(&["app", "add", "soak", "--unsigned-answers"])?;
        let text = |key| keys.get(key).and_then(Value::as_str).map(str::to_owned);
        let keys = text("api_key")
            .zip(text("shared_key"))
            .context("a key pair")?;
        Ok(Self {
            args,
            stub,
            agent,
            keys,
        })
    }

    #[expect(clippy::print_stdout, reason = "what the program is for")]
    fn run(&mut self) -> tally_tests::Result<Vec<Sample>> {
        println!(
            "{:>9}{:>12}{:>10}{:>9}{:>9}{:>11}{:>9}{:>9}",
            "seconds", "grants", "grants/s", "p50 us", "p99 us", "ledger MB", "log MB", "MB"
        );
        let since = Instant::now();
        let between_starts = self.args.grants / (self.args.restarts + 1);
        let (mut grants, mut started_at) = (0, 0);
        let mut samples = Vec::new();
        while grants < self.args.grants {
            if grants >= started_at + between_starts.max(1) {
                self.agent.terminate()?;
                self.agent.restart()?;
                started_at = grants;
            }
            let (granted, sample) = self.sample(since, grants)?;
            grants += granted;
            println!(
                "{:>9.1}{:>12}{:>10.0}{:>9.0}{:>9.0}{:>11.1}{:>9.1}{:>9.1}",
                sample.seconds,
                sample.grants,
                sample.rate,
                sample.p50,
                sample.p99,
                sample.ledger,
                sample.log,
                sample.memory
            );
            samples.push(sample);
        }
        Ok(samples)
    }

    /// Some seconds of load, and what there is to see after them.
    #[expect(clippy::cast_precision_loss, reason = "figures, for people")]
    fn sample(&self, since: Instant, grants: u64) -> tally_tests::Result<(u64, Sample)> {
        let address = self.agent.url()?.trim_start_matches("http://").parse()?;
        let load = Load {
            target: Target::Tcp(address),
            connections: self.args.connections,
            threads: 1,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(self.args.seconds),
            api_key: self.keys.0.clone(),
            shared_key: self.keys.1.clone(),
            bodies: vec![by_key(1).to_string()],
        };
        let outcome = load.run()?;
        ensure!(outcome.refused == 0, "{} were refused", outcome.refused);
        let ledger = DataDir::new(self.agent.data_dir()).ledger();
        let mut log = ledger.clone().into_os_string();
        log.push("-wal");
        let size = |path: &std::path::Path| -> tally_tests::Result<f64> {
            Ok(std::fs::metadata(path)?.len() as f64 / 1e6)
        };
        let micros = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1000.0;
        let sample = Sample {
            seconds: since.elapsed().as_secs_f64(),
            grants: (grants + outcome.granted) as f64,
            rate: outcome.rate(),
            p50: micros(0.5),
            p99: micros(0.99),
            ledger: size(&ledger)?,
            log: size(log.as_ref())?,
            memory: Watched(self.agent.process_id()?).memory()?,
        };
        Ok((outcome.granted, sample))
    }

    /// All that was granted is settled, the server has counted it, and the ledger proves it.
    #[expect(clippy::print_stdout, reason = "what the program is for")]
    fn check(&self) -> tally_tests::Result {
        let sums = wait::within(
            PATIENCE,
            "everything to be settled",
            || self.agent.sums(0),
            |sums| sums.settled == sums.recorded,
        )?;
        let counted = self.stub.total(1)?;
        ensure!(
            counted == sums.recorded,
            "{} units were recorded, and the server counted {counted}",
            sums.recorded
        );
        let proof = self.agent.tally(&["verify"])?;
        println!("\n{}", String::from_utf8_lossy(&proof.stdout).trim());
        ensure!(
            proof.status.success(),
            "`tally verify` ended with {}",
            proof.status
        );
        Ok(())
    }
}

/// By which part of its mean a figure changes over these samples, by the line that fits best, and the standard error of that.
#[expect(clippy::cast_precision_loss, reason = "figures, for people")]
fn change(samples: &[Sample], figure: Figure) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(&|sample| sample.grants), mean(&figure));
    let together = mean(&|sample| (sample.grants - x) * (figure(sample) - y));
    let spread = mean(&|sample| (sample.grants - x).powi(2));
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return (0.0, 0.0);
    };
    if spread == 0.0 || y == 0.0 {
        return (0.0, 0.0);
    }
    let slope = together / spread;
    let beside_the_line =
        mean(&|sample| (figure(sample) - y - slope * (sample.grants - x)).powi(2));
    let error = (beside_the_line / spread / (count - 2.0).max(1.0)).sqrt();
    let to_part = (last.grants - first.grants) / y;
    (slope * to_part, error * to_part)
}

fn to_csv(samples: &[Sample]) -> tally_tests::Result<String> {
    let mut text =
        "seconds,grants,grants_per_second,p50_us,p99_us,ledger_mb,log_mb,memory_mb\n".to_owned();
    for sample in samples {
        writeln!(
            text,
            "{:.1},{},{:.0},{:.0},{:.0},{:.2},{:.2},{:.2}",
            sample.seconds,
            sample.grants,
            sample.rate,
            sample.p50,
            sample.p99,
            sample.ledger,
            sample.log,
            sample.memory
        )?;
    }
    Ok(text)
}

fn chart(samples: &[Sample]) -> Chart {
    let line = |name: &str, colour, figure: Figure| Line {
        name: name.to_owned(),
        colour,
        dashed: false,
        points: samples
            .iter()
            .map(|sample| (sample.grants, figure(sample)))
            .collect(),
    };
    let panel = |title: &str, lines| Panel {
        title: title.to_owned(),
        lines,
    };
    let ledger = line("ledger", Colour::Blue, |sample| sample.ledger);
    let log = line("write-ahead log", Colour::Grey, |sample| sample.log);
    let memory = line("memory", Colour::Blue, |sample| sample.memory);
    let p99 = line("p99", Colour::Blue, |sample| sample.p99);
    Chart {
        over: "grants".to_owned(),
        doubling: None,
        columns: 1,
        panels: vec![
            panel("Files (MB)", vec![ledger, log]),
            panel("Resident memory (MB)", vec![memory]),
            panel("p99 (µs)", vec![p99]),
        ],
    }
}
