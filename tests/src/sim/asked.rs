//! What applications ask of the agent, and what is known of it.

use tally_agent::ledger::engine;

/// How an application names a licence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// By its key.
    Key,
    /// By its key and its id.
    KeyAndId,
    /// By its user.
    User,
    /// By its user and its id.
    UserAndId,
}

impl Naming {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Key, Self::KeyAndId, Self::User, Self::UserAndId];
}

/// The overage that a request sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overage {
    /// `allow_overages`
    pub(super) allow: bool,
    /// `max_overages`
    pub(super) max: Option<i64>,
}

/// What an application asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// The application.
    pub(super) app: usize,
    /// Which licence.
    pub(super) license: usize,
    /// Which of its counters.
    pub(super) counter: usize,
    /// The units.
    pub(super) units: i64,
    /// Whether the request has a key.
    pub(super) keyed: bool,
    /// The overage that it sets.
    pub(super) overage: Option<Overage>,
    /// How the licence is named.
    pub(super) naming: Naming,
    /// On which device.
    pub(super) device: usize,
}

/// What was asked of the agent, and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// What was asked for.
    pub(super) wish: Wish,
    /// Its key.
    pub(super) key: Option<String>,
    /// What became of it.
    pub(super) known: Known,
    /// Where the agent said that it was recorded.
    pub(super) told: Option<usize>,
    /// Which one it was among those that were granted; unknown where an earlier answer was lost.
    pub(super) granted: Option<u64>,
}

/// What an application knows of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was granted.
    Granted,
    /// It was refused: nothing was recorded.
    Refused,
    /// There was no answer, or that the disk could not be written: it may be recorded.
    Unknown,
}

impl Wish {
    /// Units of a licence's own, or of a feature's, asked for by the first application under its key.
    pub(super) const fn of((license, counter): (usize, usize), units: i64) -> Self {
        Self {
            app: 0,
            license,
            counter,
            units,
            keyed: false,
            overage: None,
            naming: Naming::Key,
            device: 0,
        }
    }
}

impl Known {
    /// What an answer tells.
    pub(super) const fn of(answer: Option<&engine::Recording>) -> Self {
        match answer {
            Some(Ok(answer)) if answer.status == 200 => Self::Granted,
            Some(Err(engine::RecordError::Storage(_))) | None => Self::Unknown,
            Some(Ok(_) | Err(_)) => Self::Refused,
        }
    }
}
