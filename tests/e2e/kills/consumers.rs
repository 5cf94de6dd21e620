//! Applications that go on over kills: each request has an `Idempotency-Key`, and is sent until it is
//! answered, so that the units granted are known exactly.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use tally_tests::{
    Result,
    client::{self, Client},
};

/// How long an application waits for the agent to be back before it looks whether to give up.
const LOOK: Duration = Duration::from_millis(50);

/// What the applications know, and where they find the agent.
#[derive(Default)]
pub(super) struct Consumers {
    /// Where the agent listens; nowhere while it is down.
    door: Mutex<Door>,
    moved: Condvar,
    granted: AtomicI64,
    /// Finish what was begun, and begin nothing more.
    stop: AtomicBool,
    /// What went wrong, so that the whole test ends with it.
    trouble: Mutex<Option<String>>,
    abandoned: AtomicBool,
}

#[derive(Clone, Default)]
struct Door {
    url: Option<String>,
    opened: u64,
}

/// Nothing is left half-changed by a panic: each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Consumers {
    /// The agent listens there.
    pub(super) fn open(&self, url: &str) {
        let mut door = lock(&self.door);
        door.url = Some(url.to_owned());
        door.opened += 1;
        drop(door);
        self.moved.notify_all();
    }

    /// The agent is gone.
    pub(super) fn close(&self) {
        lock(&self.door).url = None;
    }

    /// Lets the applications end, when each has its answer.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Lets them end at once: the test has failed.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }

    /// How many units were granted, by the answers.
    ///
    /// # Errors
    ///
    /// What went wrong for an application.
    pub(super) fn granted(&self) -> Result<i64> {
        match &*lock(&self.trouble) {
            Some(trouble) => bail!("{trouble}"),
            None => Ok(self.granted.load(Ordering::SeqCst)),
        }
    }

    /// Consumes until told to stop.
    pub(super) fn consume(&self, app: &Client, name: &str) {
        for count in 1.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let units = 1 + count % 3;
            match self.consume_once(app, &format!("{name}-{count}"), units) {
                Ok(true) => self.granted.fetch_add(units, Ordering::SeqCst),
                Ok(false) => return,
                Err(error) => {
                    lock(&self.trouble).get_or_insert(format!("{error:#}"));
                    return;
                }
            };
        }
    }

    /// Sends one request until it is granted; whether it was.
    fn consume_once(&self, app: &Client, key: &str, units: i64) -> Result<bool> {
        let body = client::by_key(units).to_string();
        let mut tried = 0;
        loop {
            let Some(door) = self.wait_open(tried) else {
                return Ok(false);
            };
            let url = door.url.as_deref().unwrap_or_default();
            let headers = [("idempotency-key", key)];
            match app
                .at(url)
                .post_with("/api/v4/add_consumption", body.clone(), &headers)
            {
                Ok(reply) if reply.status == 200 => return Ok(true),
                // It is stopping; or it is gone, and another test's agent has its port.
                Ok(reply) if matches!(reply.status, 401 | 503) => {}
                Ok(reply) => bail!("{key} was answered {}: {}", reply.status, reply.text),
                // Killed before it answered: recorded or not.
                Err(_) => {}
            }
            tried = door.opened;
        }
    }

    /// Waits until the agent is there, at best another run of it than was tried. `None` where the
    /// test was abandoned.
    fn wait_open(&self, tried: u64) -> Option<Door> {
        let mut door = lock(&self.door);
        while !self.abandoned.load(Ordering::SeqCst) {
            let is_new = door.opened > tried;
            if door.url.is_some() && is_new {
                return Some(door.clone());
            }
            let (next, timeout) = self
                .moved
                .wait_timeout(door, LOOK)
                .unwrap_or_else(PoisonError::into_inner);
            door = next;
            if timeout.timed_out() && door.url.is_some() {
                return Some(door.clone());
            }
        }
        None
    }
}
