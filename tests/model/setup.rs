//! What a check is about: the world's rules, and its bounds.

use tally_agent::core::UndecidablePolicy;

/// What other devices and the network may do to the agent, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The units of the rows that applications record, in this order.
    pub(crate) rows: &'static [i64],
    /// The licence's limit.
    pub(crate) max: i64,
    /// What the other device adds each time.
    pub(crate) others_units: i64,
    /// How often each thing may happen.
    pub(crate) budget: Budget,
    /// What the agent's user chose.
    pub(crate) policy: UndecidablePolicy,
    /// How the server treats what it is sent.
    pub(crate) server: ServerKind,
    /// Whether a request can arrive after the wait that is meant to outlast it.
    pub(crate) arrives_at_any_time: bool,
    /// Whether the disk may lose the last commit that released a request, when the process ends.
    pub(crate) disk_lies: bool,
    /// Whether the licence's total returns to zero at midnight, which is half a minute away.
    pub(crate) turns: bool,
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// The process ends, and starts again.
    pub(crate) crashes: u8,
    /// A request or its answer is lost on the way; the agent gives up waiting.
    pub(crate) losses: u8,
    /// No connection comes about, and the agent knows.
    pub(crate) refusals: u8,
    /// The other device adds its units.
    pub(crate) others: u8,
    /// A minute passes.
    pub(crate) minutes: u8,
    /// A commit fails.
    pub(crate) full_disks: u8,
    /// Somebody asks to sync now.
    pub(crate) nudges: u8,
    /// Somebody reads the licence beside the agent's own reading of it.
    pub(crate) refreshes: u8,
}

/// How the server treats what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerKind {
    /// Counts what it is sent, as often as it is sent: the production service.
    WithoutKeys,
    /// Counts each batch once, and answers again what it answered first.
    WithKeys,
    /// Echoes keys as if it kept them.
    PretendsToKeepKeys,
    /// Answers that it counted, and did not.
    Forgets,
}

impl Setup {
    /// An honest world where nothing goes wrong: each check adds to it.
    pub(crate) const fn calm(rows: &'static [i64]) -> Self {
        Self {
            rows,
            max: 1_000_000,
            others_units: 1_000,
            budget: Budget {
                crashes: 0,
                losses: 0,
                refusals: 0,
                others: 0,
                minutes: 0,
                full_disks: 0,
                nudges: 0,
                refreshes: 0,
            },
            policy: UndecidablePolicy::Hold,
            server: ServerKind::WithoutKeys,
            arrives_at_any_time: false,
            disk_lies: false,
            turns: false,
        }
    }
}
