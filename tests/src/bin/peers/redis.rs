//! Redis with an append-only file that is on disk before each answer, and a script that checks a limit.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tally_tests::watched::Watched;

use crate::measure::Measured;

/// The same promise as a consumption: within the limit, counted, or refused.
const SCRIPT: &str = "local total = tonumber(redis.call('GET', KEYS[1]) or '0') + tonumber(ARGV[1]) \
    if total > tonumber(ARGV[2]) then return redis.error_reply('not enough') end \
    return redis.call('INCRBY', KEYS[1], ARGV[1])";

const LIMIT: &str = "9007199254740991";

/// How long Redis may take to start.
const START_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Redis {
    child: Child,
    benchmark: PathBuf,
    port: u16,
    socket: PathBuf,
}

impl Redis {
    pub(crate) fn start(
        server: &Path,
        benchmark: &Path,
        folder: &Path,
    ) -> tally_tests::Result<Self> {
        std::fs::create_dir(folder)?;
        let socket = folder.join("socket");
        // Free now; nobody else takes ports of this range in the moment until Redis binds it.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let log = std::fs::File::create(folder.join("log"))?;
        let child = Command::new(server)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(folder)
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", "", "--auto-aof-rewrite-percentage", "0"])
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .with_context(|| format!("cannot start {}", server.display()))?;
        let redis = Self {
            child,
            benchmark: benchmark.to_owned(),
            port,
            socket,
        };
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(&redis.socket).is_err() {
            ensure!(start.elapsed() < START_MAX, "Redis does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    pub(crate) fn measure(
        &self,
        unix: bool,
        connections: usize,
        duration: Duration,
    ) -> tally_tests::Result<Measured> {
        // It takes a number of requests, not a time: a short run tells how many.
        let trial = self.run(unix, connections, 2_000 * (connections as u64).min(16))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of requests, far below 2^53"
        )]
        let requests = (trial.rate * duration.as_secs_f64()) as u64;
        self.run(unix, connections, requests)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures, for people")]
    fn run(&self, unix: bool, connections: usize, requests: u64) -> tally_tests::Result<Measured> {
        let mut command = Command::new(&self.benchmark);
        if unix {
            command.arg("-s").arg(&self.socket);
        } else {
            command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        }
        let watched = Watched(self.child.id());
        let before = watched.used()?;
        let output = command
            .args(["-c", &connections.to_string()])
            .args(["-n", &requests.to_string(), "--csv"])
            .args(["EVAL", SCRIPT, "1", "total", "1", LIMIT])
            .output()
            .with_context(|| format!("cannot run {}", self.benchmark.display()))?;
        let used = watched.used()?.since(before);
        let text = String::from_utf8(output.stdout)?;
        let line = text.lines().last().context("no figures of Redis")?;
        // "test","rps","avg","min","p50","p95","p99","max", in milliseconds; the first is the command,
        // which has commas of its own.
        let figures: Vec<f64> = line
            .rsplit(',')
            .take(7)
            .map(|figure| figure.trim_matches('"').parse())
            .collect::<Result<_, _>>()
            .with_context(|| format!("not figures: {line}"))?;
        let [_max, p99, _p95, p50, _min, _avg, rate] = figures[..] else {
            anyhow::bail!("not figures: {line}");
        };
        let each = |total: f64| total / requests as f64;
        Ok(Measured {
            rate,
            p50: p50 * 1000.0,
            p99: p99 * 1000.0,
            cpu: each(used.cpu.as_secs_f64() * 1e6),
            switches: each(used.switches as f64),
            memory: watched.memory()?,
            ..Measured::default()
        })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
