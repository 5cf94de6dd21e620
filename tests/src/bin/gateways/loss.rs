//! A place where answers get lost: the request is passed on, the answer is read, and the connection is cut without
//! a byte of it. One stands before the server, one before whatever stands between.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    hop::{Hop, Passed, forward},
    message::Message,
    replica::Replica,
};

/// How often the answer to a look-up is lost. Less often than one to a consumption: without look-ups nothing moves.
const LOOK_UP: f64 = 0.05;

/// A place where answers get lost.
pub(super) struct Loss {
    next: SocketAddr,
    share: f64,
    /// Where look-ups are answered by a replica.
    replica: Option<Replica>,
    is_on: AtomicBool,
    random: Mutex<StdRng>,
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Loss {
    /// A place that loses this share of the answers to consumptions, once it is switched on.
    pub(super) fn new(next: SocketAddr, share: f64, seed: u64, replica: Option<Replica>) -> Self {
        Self {
            next,
            share,
            replica,
            is_on: AtomicBool::new(false),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Switches the losses on or off.
    pub(super) fn switch(&self, is_on: bool) {
        self.is_on.store(is_on, Relaxed);
    }

    /// How many consumptions came by.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Of how many that were answered with 200 the answer was lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Whether an answer is lost, and if so, whether by a reset.
    fn strikes(&self, share: f64) -> Option<Passed> {
        if !self.is_on.load(Relaxed) {
            return None;
        }
        let mut random = self.random.lock().ok()?;
        let is_reset = random.random_bool(0.5);
        random.random_bool(share).then(|| {
            if is_reset {
                Passed::Reset
            } else {
                Passed::Close
            }
        })
    }
}

impl Hop for Loss {
    async fn pass(&self, request: Message) -> Passed {
        let is_consumption = request.method() == "POST";
        if is_consumption {
            self.sent.fetch_add(1, Relaxed);
        }
        let Some(mut answer) = forward(self.next, &request).await else {
            return Passed::Close;
        };
        if let Some(replica) = &self.replica {
            if is_consumption {
                replica.counted(&request, &answer);
            } else {
                replica.falls_behind(&request, &mut answer);
            }
        }
        let share = if is_consumption { self.share } else { LOOK_UP };
        match self.strikes(share) {
            Some(cut) => {
                if is_consumption && answer.is_ok() {
                    self.lost.fetch_add(1, Relaxed);
                }
                cut
            }
            None => Passed::Answer(answer),
        }
    }
}
