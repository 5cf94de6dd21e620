//! The kinds of trouble that a world can have beside weather, crashes and clocks: each can be switched on or
//! off, so that a seed shows one of them alone.

use clap::ValueEnum as _;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A gateway repeats a request without an answer, if it carries `Idempotency-Key`.
    Gateway,
    /// A balancer repeats any request by itself, and the agent hears the second answer.
    Balancer,
    /// The server is put back to an earlier copy of itself.
    RollBack,
    /// A cache answers reads from an old answer.
    Cache,
    /// A replica that is behind answers reads.
    Replica,
    /// The server refuses licence and device before it looks the key up, and echoes the key.
    EarlyRefusal,
    /// The server answers a known key with 409.
    Duplicate,
    /// The agent's credentials are replaced: keys belong to them.
    Rotation,
    /// The server starts to keep keys, or stops.
    Keys,
    /// The device sleeps, and its monotonic clock does not see it.
    Sleep,
    /// Disk and marks are put back together from an earlier copy.
    PutBack,
    /// A copy of the device runs beside it.
    Copy,
    /// Users with several licences, and keys that open another licence from some time on.
    Names,
    /// Features and licences change their type, or are taken off.
    Features,
    /// Licences and devices are taken away while something is owed, at times for good.
    Gone,
    /// Applications and the vendor set the overage, with holds in between.
    Settings,
    /// Two devices on each licence, of which one is refused at times.
    Devices,
    /// Licences are taken off the device while the server refuses them.
    Removed,
    /// Licences that share a pool, which limits them too.
    Pool,
    /// A server that refuses for the limit what its own answer has room for.
    Contradiction,
}

/// How likely each kind is in a world, in percent.
const LIKELY: u32 = 16;

/// The kinds that worlds may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    bits: u32,
    /// Whether each world has all of them.
    always: bool,
}

impl Kind {
    /// All of them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// What makes the random numbers of this kind its own.
    pub(super) const fn salt(self) -> u64 {
        (self as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

impl Kinds {
    /// All kinds, each in some of the worlds.
    pub fn all() -> Self {
        Self::but(&[])
    }

    /// Some kinds, each in some of the worlds.
    pub fn but(without: &[Kind]) -> Self {
        let kinds = Kind::all().iter().filter(|kind| !without.contains(kind));
        Self {
            bits: kinds.fold(0, |bits, kind| bits | kind.bit()),
            always: false,
        }
    }

    /// These kinds, all of them in every world.
    pub fn only(kinds: &[Kind]) -> Self {
        Self {
            bits: kinds.iter().fold(0, |bits, kind| bits | kind.bit()),
            always: true,
        }
    }

    /// Whether a world has this kind, where it would by a roll of a hundred.
    pub(super) const fn has(self, kind: Kind, roll: u32) -> bool {
        self.bits & kind.bit() != 0 && (self.always || roll < LIKELY)
    }
}
