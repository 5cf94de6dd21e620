//! `tally-stub scenario`: files in, a report out, and an exit code for a pipeline.

use std::{
    io::{self, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use clap::Args;
use fs_err as fs;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    file::{FileError, Scenario},
    options::{OptionError, Options},
    report::{Report, StepReport},
    run::{self, chain},
};

/// What runs an agent, where nothing else is said: waits are short, so that a scenario takes seconds.
const AGENT_COMMAND: &str = "tally run --listen 127.0.0.1:0 --data-dir {data_dir} --server-url {server_url} \
                             --sync-interval 100ms --settle-wait 500ms --request-timeout 2s";

/// The exit code for a file or an option that cannot be used.
const BAD_FILE: u8 = 2;

/// What can be typed after `tally-stub scenario`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each scenario gets a server of its own, and agents of its own in a temporary folder. The exit code
is 0 where everything expected holds, 1 where something does not, and 2 for a file that cannot be
used.

In the commands, {server_url}, {data_dir}, {api_key}, {shared_key}, {public_key}, {agent} and
{hardware_id} are filled in, and {app} in --app-command. Agents also get TALLY_SERVER_URL,
TALLY_DATA_DIR, TALLY_SERVER_API_KEY, TALLY_SERVER_SHARED_KEY and TALLY_LISTEN as environment
variables.

Examples:
  tally-stub scenario scenarios/tunnel.toml
  tally-stub scenario scenarios/*.toml --jobs 4 --json
  tally-stub scenario my.toml --agent-command './tally run --server-url {server_url}'")]
pub struct ScenarioArgs {
    /// Scenario files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// What runs an agent; it must print `ready http://ADDR:PORT`
    #[arg(long, value_name = "COMMAND", default_value = AGENT_COMMAND)]
    agent_command: String,

    /// What prints a new application's key pair in JSON [default: the agent's program with `app add`]
    #[arg(long, value_name = "COMMAND")]
    app_command: Option<String>,

    /// Run with this seed instead of each file's own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// How many scenarios run at a time
    #[arg(long, value_name = "N", default_value = "1")]
    jobs: NonZeroUsize,

    /// Keep each scenario's ledgers and logs in this folder, in place of those of the run before
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// Print one JSON object a scenario, for machines
    #[arg(long)]
    json: bool,
}

/// Why no scenario was run.
#[derive(Debug, thiserror::Error)]
enum BadInput {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Option(#[from] OptionError),
}

/// A scenario that was read.
struct Loaded {
    path: PathBuf,
    text: String,
    scenario: Scenario,
}

/// Runs the scenarios; prints what comes of it.
pub async fn run(args: ScenarioArgs) -> io::Result<ExitCode> {
    let (options, loaded) = match load(&args) {
        Ok(loaded) => loaded,
        Err(error) => {
            writeln!(io::stderr(), "error: {}", chain(&error))?;
            return Ok(ExitCode::from(BAD_FILE));
        }
    };
    let began = Instant::now();
    let count = loaded.len();
    // One at a time can be followed live; of several, each is told when it is over.
    let live = args.jobs.get() == 1 || count == 1;
    let turns = Arc::new(Semaphore::new(args.jobs.get()));
    let output = Arc::new(Mutex::new(()));
    let mut running = JoinSet::new();
    for loaded in loaded {
        let (turns, output, options) = (Arc::clone(&turns), Arc::clone(&output), options.clone());
        running.spawn(async move {
            // The semaphore is never closed.
            let _turn = turns.acquire_owned().await;
            let out = |text: &str| {
                let _one_at_a_time = output.lock().unwrap_or_else(PoisonError::into_inner);
                // Where stdout is closed, the exit code still tells.
                let _ = io::stdout().write_all(text.as_bytes());
            };
            run_one(&loaded, &options, args.json, live, &out).await
        });
    }
    let mut failed = Vec::new();
    while let Some(report) = running.join_next().await {
        let report = report.map_err(io::Error::other)?;
        if !report.passed {
            failed.push(report.file);
        }
    }
    if count > 1 && !args.json {
        let seconds = began.elapsed().as_secs_f64();
        let passed = count - failed.len();
        writeln!(
            io::stdout(),
            "{passed} of {count} scenarios passed · {seconds:.1} s"
        )?;
        for file in &failed {
            writeln!(io::stdout(), "  FAILED  {file}")?;
        }
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn load(args: &ScenarioArgs) -> Result<(Options, Vec<Loaded>), BadInput> {
    let options = Options::new(
        &args.agent_command,
        args.app_command.as_deref(),
        args.keep.clone(),
    )?;
    let mut all = Vec::new();
    for path in &args.files {
        let mut scenario = Scenario::read(path)?;
        scenario.seed = args.seed.unwrap_or(scenario.seed);
        all.push(Loaded {
            // Read twice: the text is for the lines of steps, and the file is small.
            text: fs::read_to_string(path).map_err(FileError::Read)?,
            path: path.clone(),
            scenario,
        });
    }
    Ok((options, all))
}

async fn run_one(
    loaded: &Loaded,
    options: &Options,
    json: bool,
    live: bool,
    out: &(impl Fn(&str) + Sync),
) -> Report {
    let Loaded {
        path,
        text,
        scenario,
    } = loaded;
    let mut kept = String::new();
    let mut say = |words: String| {
        if json {
        } else if live {
            out(&words);
        } else {
            kept.push_str(&words);
        }
    };
    say(Report::head(
        &scenario.name,
        &path.display().to_string(),
        scenario.seed,
    ));
    let mut talk = |step: &StepReport| say(format!("{}\n", step.line()));
    let report = run::run(path, text, scenario, options, &mut talk).await;
    if json {
        // A report is a plain structure with text keys, which always has a JSON form.
        out(&format!(
            "{}\n",
            serde_json::to_string(&report).unwrap_or_default()
        ));
    } else {
        out(&format!("{kept}{}\n", report.tail()));
    }
    report
}
