//! The orders that can leave the core.

use tally_shared::wire::{AddConsumption, Subject};
use uuid::Uuid;

use super::book::{BatchNo, LaneNo, LicenseNo, Seq};

/// A batch's `Idempotency-Key`, and the server and credentials that it goes under; under others it is not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The batch's id.
    pub id: Uuid,
    /// The server and the credentials, as [`Core::new`](super::Core::new) was given them.
    pub peer: String,
}

/// An order. It may be carried out only after the changes that gave it are committed.
#[derive(Clone, Debug)]
pub enum Command {
    /// Post a batch to the server; its outcome comes back as [`Event::Answered`](super::event::Event).
    Send {
        /// Whose it is.
        license: LicenseNo,
        /// Which batch.
        batch: BatchNo,
        /// Its `Idempotency-Key`; `None` where the server is not known to keep keys. Sent to such a server, the header only
        /// tells gateways that they may repeat the request.
        key: Option<Key>,
        /// The request; the same batch always gives the same bytes.
        request: Box<AddConsumption>,
    },
    /// Read a licence from the server; comes back as [`Event::LookedUp`](super::event::Event).
    LookUp {
        /// Which licence.
        license: LicenseNo,
        /// How to name it.
        subject: Subject,
    },
    /// Find how many of a held batch's rows fit; comes back as
    /// [`Event::PrefixFound`](super::event::Event). The ledger's own reader answers it at once.
    FindPrefix {
        /// Which batch.
        batch: BatchNo,
        /// The lane of its rows.
        lane: LaneNo,
        /// Its first row.
        first: Seq,
        /// Its last row.
        last: Seq,
        /// How many units fit; `None` where all do.
        room: Option<i64>,
    },
}
