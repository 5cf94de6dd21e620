//! A place where answers get lost: the request is passed on, the answer is read, and the connection is cut without
//! a byte of it. One stands before the server, one before whatever stands between.
//!
//! The one before the server also bounds the rate of requests, as servers do: a consumption now and then is answered
//! with 429 and not passed on. Where it is one that a gateway sent again by itself, that is all that the agent hears of
//! a request that was counted.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
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

/// How often a consumption is one too many for the server.
const TOO_MANY: f64 = 0.05;

/// A place where answers get lost.
pub(super) struct Loss {
    next: SocketAddr,
    share: f64,
    is_before_server: bool,
    /// Where look-ups are answered by a replica.
    replica: Option<Replica>,
    is_on: AtomicBool,
    random: Mutex<StdRng>,
    sent: AtomicU64,
    lost: AtomicU64,
}

impl Loss {
    /// The place before the server: it loses this share of the answers to consumptions, once it is switched on.
    pub(super) fn before_server(
        server: SocketAddr,
        share: f64,
        seed: u64,
        replica: Option<Replica>,
    ) -> Self {
        Self {
            is_before_server: true,
            replica,
            ..Self::before_gateway(server, share, seed)
        }
    }

    /// The place before a gateway, likewise.
    pub(super) fn before_gateway(next: SocketAddr, share: f64, seed: u64) -> Self {
        Self {
            next,
            share,
            is_before_server: false,
            replica: None,
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

    /// Whether something happens that is so likely.
    fn strikes(&self, share: f64) -> bool {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_on.load(Relaxed) && random.random_bool(share)
    }

    /// The connection is cut, in one of the two ways that a client can tell apart.
    fn cut(&self) -> Passed {
        if self.strikes(0.5) {
            Passed::Reset
        } else {
            Passed::Close
        }
    }
}

impl Hop for Loss {
    async fn pass(&self, request: Message) -> Passed {
        let is_consumption = request.method() == "POST";
        if is_consumption {
            self.sent.fetch_add(1, Relaxed);
        }
        if is_consumption && self.is_before_server && self.strikes(TOO_MANY) {
            return Passed::Answer(Message::too_many());
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
        if !self.strikes(share) {
            return Passed::Answer(answer);
        }
        if is_consumption && answer.is_ok() {
            self.lost.fetch_add(1, Relaxed);
        }
        self.cut()
    }
}
