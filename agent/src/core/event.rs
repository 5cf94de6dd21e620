//! The facts that can enter the core.

use tally_shared::{units::Units, wire::ErrorCode};

use super::{
    book::{BatchNo, LicenseNo, Seq},
    chain::Hash,
    doubt::Doubt,
    link::NetworkMode,
    outcome::{LookUpOutcome, SendOutcome},
};

/// A fact.
#[derive(Clone, Debug)]
pub enum Event {
    /// The time that [`Core::next_wakeup`](super::Core::next_wakeup) named has come.
    Tick,
    /// Somebody wants to sync now: pauses are forgotten.
    Nudge,
    /// Somebody switched the network for a drill.
    SetNetwork(NetworkMode),
    /// What became of a batch that was sent.
    Answered {
        /// Which batch.
        batch: BatchNo,
        /// What came back.
        outcome: SendOutcome,
        /// What the answer said of the `Idempotency-Key`.
        key: KeyEcho,
    },
    /// What became of reading a licence.
    LookedUp {
        /// Which licence.
        license: LicenseNo,
        /// The device it was read for.
        hardware_id: String,
        /// What came back.
        outcome: LookUpOutcome,
        /// What the answer said of the `Idempotency-Key`.
        key: KeyEcho,
    },
    /// The server refused a licence that somebody had it asked for, outside of
    /// [`Command::LookUp`](super::command::Command).
    Refused {
        /// Which licence.
        license: LicenseNo,
        /// The device it was read for.
        hardware_id: String,
        /// The server's code.
        code: ErrorCode,
    },
    /// Something shows that the ledger was changed behind the agent's back.
    Doubted(Doubt),
    /// How much of a held batch fits.
    PrefixFound {
        /// Which batch.
        batch: BatchNo,
        /// The room that was asked about.
        room: Option<i64>,
        /// The longest prefix of its rows that fits; `None` where not even the first does.
        prefix: Option<Prefix>,
    },
}

/// What an answer said of the `Idempotency-Key` that was sent with the request.
///
/// Only [`Self::New`] and [`Self::Replayed`] say that the server looked the key up: a server that checks rights, product
/// or device first may send the key back with a refusal although it counted an earlier attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEcho {
    /// There was no valid answer.
    NoAnswer,
    /// Nothing: the server keeps no keys.
    Absent,
    /// The key. On a reading: the server keeps keys. On a batch: nobody says that it was looked up.
    Echoed,
    /// The key, and that the server looked it up and did not know it.
    New,
    /// The key, and that the answer is the stored one of an earlier request.
    Replayed,
}

/// The first rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The last row that fits.
    pub last: Seq,
    /// How many rows that is.
    pub rows: u64,
    /// The sum of their units.
    pub units: Units,
    /// The hash of the last row.
    pub hash: Hash,
    /// The row that comes after it in the batch; `None` where all rows fit.
    pub next: Option<Seq>,
}

impl KeyEcho {
    /// Whether the server looked the key up before it answered.
    pub const fn is_looked_up(self) -> bool {
        matches!(self, Self::New | Self::Replayed)
    }
}
