//! `tally run` under Windows' service manager. Started by hand, it runs as everywhere.

use std::{
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use windows_services::{Command, Service};

use super::output::{self, Outcome};

/// Runs the agent on a thread of its own, until the service manager says stop, or the agent ends.
pub(super) fn run(
    serve: impl FnOnce(CancellationToken) -> anyhow::Result<Outcome> + Send + 'static,
) -> anyhow::Result<Outcome> {
    let stop = CancellationToken::new();
    let serve = Mutex::new(Some(serve));
    let agent = Mutex::new(None::<JoinHandle<()>>);
    let wait = || {
        let agent = agent.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It ends the process where it fails.
        drop(agent.map(JoinHandle::join));
    };
    Service::new()
        .can_stop()
        .can_fallback(|_| wait())
        .run(|_, command| match command {
            Command::Start => {
                let serve = serve.lock().unwrap_or_else(PoisonError::into_inner).take();
                let stop = stop.clone();
                let started = serve.map(|serve| thread::spawn(move || end_with(serve(stop))));
                *agent.lock().unwrap_or_else(PoisonError::into_inner) = started;
            }
            Command::Stop => {
                stop.cancel();
                wait();
            }
            Command::Pause | Command::Resume | Command::Extended(_) => {}
        })
        .map_err(anyhow::Error::msg)
        .context("the service manager does not answer")?;
    Ok(Outcome::Done)
}

/// An agent that cannot go on is no service that runs: the manager sees the process end, and starts it again.
fn end_with(result: anyhow::Result<Outcome>) {
    if let Err(error) = result {
        output::error(&error);
        std::process::exit(1);
    }
}
