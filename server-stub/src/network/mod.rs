//! The state of the network between clients and the stub: up, gone, slow, flapping, behind a captive
//! portal, or with a limit on the rate.
//!
//! A fault strikes single requests; the network's state is there for all of them until it is changed.
//! [`spec`] is the JSON that orders a state, `weather` decides what a request meets (pure and seeded),
//! and `Network` is the one of a running stub. Only the License API passes through it: testers must be
//! able to end what they began.

pub mod spec;
pub(crate) mod weather;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    spec::{InvalidState, NetworkState},
    weather::{Meeting, Weather},
};

/// The network of a running stub.
#[derive(Debug)]
pub(crate) struct Network {
    weather: Mutex<Weather>,
    /// Counts the states that were ordered.
    ordered: watch::Sender<u64>,
    /// Whether clients reach the stub at all.
    reachable: watch::Sender<bool>,
}

/// The network, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// As it was ordered.
    #[serde(flatten)]
    pub state: NetworkState,
    /// Whether clients reach the stub at this moment; a flapping network changes it by itself.
    pub reachable: bool,
    /// How many requests the state kept away, answered in the stub's place or slowed down. What a refused
    /// connection would have carried is not known.
    pub affected: u64,
}

impl Network {
    /// A network that is up.
    pub(crate) fn new() -> Self {
        Self {
            weather: Mutex::new(Weather::default()),
            ordered: watch::Sender::new(0),
            reachable: watch::Sender::new(true),
        }
    }

    /// Puts a state in force, from this moment on.
    pub(crate) fn set(&self, state: NetworkState) -> Result<Report, InvalidState> {
        let weather = Weather::new(state)?;
        let mut current = self.weather();
        self.reachable.send_replace(!weather.begins_gone());
        *current = weather;
        self.ordered.send_modify(|count| *count += 1);
        Ok(self.report_of(&current))
    }

    /// The state in force.
    pub(crate) fn report(&self) -> Report {
        self.report_of(&self.weather())
    }

    /// Tells of the state in force; one after the other, so that the last one told is the last one there was.
    pub(crate) fn tell(&self, listener: impl FnOnce(&Report)) {
        let weather = self.weather();
        listener(&self.report_of(&weather));
    }

    /// What a request that arrives meets.
    pub(crate) fn meet(&self, now: Instant) -> Meeting {
        let reachable = self.is_reachable();
        self.weather().meet(reachable, now)
    }

    /// Whether clients reach the stub.
    pub(crate) fn is_reachable(&self) -> bool {
        *self.reachable.borrow()
    }

    /// Follows whether clients reach the stub.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.reachable.subscribe()
    }

    /// Makes a flapping network go and come, until the stub stops; `changed` hears of each time.
    pub(crate) async fn live(&self, stopping: CancellationToken, changed: impl Fn()) {
        let mut ordered = self.ordered.subscribe();
        while !stopping.is_cancelled() {
            ordered.borrow_and_update();
            let phase = self.weather().next_phase();
            let Some((reachable, lasts)) = phase else {
                tokio::select! {
                    _ = ordered.changed() => continue,
                    () = stopping.cancelled() => return,
                }
            };
            if self.reachable.send_replace(reachable) != reachable {
                changed();
            }
            tokio::select! {
                () = tokio::time::sleep(lasts) => {}
                _ = ordered.changed() => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    fn report_of(&self, weather: &Weather) -> Report {
        Report {
            state: weather.state().clone(),
            reachable: self.is_reachable(),
            affected: weather.affected(),
        }
    }

    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
