//! Doubts about the ledger itself: what shows that it was changed behind the agent's back.

use tally_shared::time::Timestamp;

use super::{book::Seq, instance::Difference};

/// The places from the first to the second.
pub type Places = (i64, i64);

/// What shows that the ledger is not as the agent left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The chain's key is another than the one that the ledger was written with.
    KeyReplaced,
    /// The mark beside the ledger is gone.
    MarkLost,
    /// The ledger is older than its mark: it was put back from a copy, or its end was cut off.
    OlderCopy {
        /// The newest place, by the mark.
        marked: Seq,
        /// How many commits of more than rows are missing.
        generations: u64,
    },
    /// The ledger is in another file, or on another device, than the one that it was written in.
    Copied {
        /// What is another.
        differs: Difference,
        /// The host that it was written on.
        host: Option<String>,
        /// Where it was written.
        path: Option<String>,
        /// When it was last written, and whether that time was proven.
        written: (Timestamp, bool),
    },
    /// Where the mark stands, the ledger has something else: its end was written anew.
    Rewritten {
        /// The mark's place.
        marked: Seq,
    },
    /// Rows, or sums of accounts, are not as they were written.
    Changed {
        /// Places that nothing is at.
        missing: Vec<Places>,
        /// Rows whose hash does not fit.
        changed: Vec<Places>,
        /// Accounts whose sums do not fit their seal.
        accounts: Vec<i64>,
    },
}

impl Doubt {
    /// Its name in the ledger and in the status.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::KeyReplaced => "key_replaced",
            Self::MarkLost => "mark_lost",
            Self::OlderCopy { .. } => "older_copy",
            Self::Copied { .. } => "copied",
            Self::Rewritten { .. } => "rewritten",
            Self::Changed { .. } => "changed",
        }
    }
}
