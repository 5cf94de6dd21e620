//! A load generator that is not the bottleneck: keep-alive connections, one request at a time on each,
//! signed as a published SDK signs them, on as few threads as it takes.
//!
//! Each connection sends its next request when the answer to the last one is complete. So the figure is
//! the agent's: a queue in this program would only show up as the agent's latency.

mod connection;
mod worker;

use std::{net::SocketAddr, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;

use self::worker::Worker;

/// Where an agent is served.
#[derive(Clone, Debug)]
pub enum Target {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a Unix socket.
    Unix(PathBuf),
}

/// What is asked of an agent, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Where it is served.
    pub target: Target,
    /// How many keep-alive connections.
    pub connections: usize,
    /// How many threads share them.
    pub threads: usize,
    /// How long to run before anything is counted.
    pub warm_up: Duration,
    /// How long to count.
    pub duration: Duration,
    /// The application's API key.
    pub api_key: String,
    /// What it signs with.
    pub shared_key: String,
    /// The requests' bodies; a connection repeats one of them.
    pub bodies: Vec<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Answers with status 200.
    pub granted: u64,
    /// All other answers.
    pub refused: u64,
    /// For how long they were counted.
    pub elapsed: Duration,
    /// From the first byte sent to the last byte received, in nanoseconds.
    pub latency: Histogram<u64>,
    /// The processor time that the generator took.
    pub cpu: Duration,
}

impl Load {
    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// Where a connection fails, or an answer is not HTTP.
    pub fn run(&self) -> crate::Result<Outcome> {
        ensure!(
            self.threads > 0 && self.connections >= self.threads && !self.bodies.is_empty(),
            "at least one thread, one connection for each, and one body"
        );
        let running: Vec<_> = (0..self.threads)
            .map(|thread| {
                let load = self.clone();
                let share = (thread..self.connections).step_by(self.threads).collect();
                thread::spawn(move || Worker::connect(&load, share)?.run())
            })
            .collect();
        let mut outcomes = running.into_iter().map(|thread| {
            let joined = thread.join();
            joined.unwrap_or_else(|_| anyhow::bail!("a thread of the load generator panicked"))
        });
        let first = outcomes.next().context("no thread")??;
        outcomes.try_fold(first, |sum, next| sum.with(&next?))
    }
}

impl Outcome {
    /// Grants per second.
    #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
    pub fn rate(&self) -> f64 {
        self.granted as f64 / self.elapsed.as_secs_f64()
    }

    fn with(mut self, other: &Self) -> crate::Result<Self> {
        self.granted += other.granted;
        self.refused += other.refused;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency.add(&other.latency)?;
        self.cpu += other.cpu;
        Ok(self)
    }
}
