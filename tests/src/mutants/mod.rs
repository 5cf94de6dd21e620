//! Known ways to break a promise: proof that the simulation, and the tests that stand where it sees nothing, can fail.
//!
//! A mutant is a piece of the source and what stands in its place: the same, and something else where `BROKEN` holds. So
//! all of them stand in one copy of the source, which is built once, and a run has one of them switched on.
//!
//! * `weather`: worlds of weather, crashes, disks and clocks.
//! * `server`: what lies between agent and server, and what of the server's answers can be believed.
//! * `copies`: ledgers that are copies, that two agents write, or that are deleted.
//! * `names`: which licence a name opens.
//! * `vendor`: what a vendor takes off, edits and limits.

mod copies;
mod names;
mod server;
mod vendor;
mod weather;

use anyhow::{Context as _, bail};

use crate::sim::Kind;

/// The environment variable that has the number of the mutant which is switched on.
pub const SWITCH: &str = "MUTANT";

/// What stands for the switch in [`Mutant::broken`].
const BROKEN: &str = "BROKEN";

/// The file that gets the switch: all others can ask it.
const SWITCHED_IN: &str = "shared/src/lib.rs";

/// The switch.
const IS_BROKEN: &str = r#"
/// Whether the mutant of that number is switched on.
pub fn is_broken(no: u32) -> bool {
    static ON: std::sync::LazyLock<Option<u32>> =
        std::sync::LazyLock::new(|| std::env::var("SWITCH").ok()?.parse().ok());
    *ON == Some(no)
}
"#;

/// A way to break the source.
pub struct Mutant {
    /// What is broken.
    pub name: &'static str,
    /// Where.
    pub file: &'static str,
    /// What stands there, once.
    pub original: &'static str,
    /// What is put in its place. It speaks of `BROKEN`, and is as before where that does not hold.
    pub broken: &'static str,
    /// What finds it.
    pub found_by: FoundBy,
    /// A seed of worlds that found it: it is tried first, and where it finds it no more, the others are.
    pub seed: u64,
}

/// What finds a mutant.
#[derive(Clone, Copy, Debug)]
pub enum FoundBy {
    /// Simulated worlds of weather, crashes, disks and clocks.
    Plain,
    /// Simulated worlds with that kind of trouble.
    Worlds(Kind),
    /// Simulated devices that share a licence.
    Shared,
    /// A test of the agent's parts, which no world has.
    Part(&'static str),
    /// A test over real processes, where no world has the system below the agent.
    EndToEnd(&'static str),
}

/// All mutants, in the order of their numbers, which begin with 1.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    let groups = [
        weather::MUTANTS,
        server::MUTANTS,
        copies::MUTANTS,
        names::MUTANTS,
        vendor::MUTANTS,
    ];
    groups.into_iter().flatten()
}

/// The text of a file with all of its mutants in it, each behind its switch.
///
/// # Errors
///
/// Where the source has changed so that a piece is no longer there, or stands there more than once: the mutant wants to be
/// rewritten.
pub fn put_in(file: &str, source: &str) -> anyhow::Result<String> {
    let mut text = source.to_owned();
    for (no, mutant) in (1..).zip(all()).filter(|(_, mutant)| mutant.file == file) {
        let (original, name) = (mutant.original, mutant.name);
        match (
            source.matches(original).count(),
            text.matches(original).count(),
        ) {
            (1, 1) => {}
            (0, _) => bail!("{file} does not hold any more what is to be broken: {name}"),
            (1, _) => bail!("another mutant of {file} broke it already: {name}"),
            (count, _) => bail!("{file} holds {count} times what is to be broken: {name}"),
        }
        let switch = if file.starts_with("shared/") {
            format!("crate::is_broken({no})")
        } else {
            format!("tally_shared::is_broken({no})")
        };
        let broken = mutant.broken.replace(BROKEN, &switch);
        if broken == mutant.broken {
            bail!("nothing switches it: {name}");
        }
        text = text.replacen(original, &broken, 1);
    }
    if file == SWITCHED_IN {
        text.push_str(&IS_BROKEN.replace("SWITCH", SWITCH));
    }
    Ok(text)
}

/// Whether a file is another one with its mutants in it.
pub fn is_changed(file: &str) -> bool {
    file == SWITCHED_IN || all().any(|mutant| mutant.file == file)
}

impl FoundBy {
    /// The kind of trouble, where there is one.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Worlds(kind) => Some(kind),
            Self::Plain | Self::Shared | Self::Part(_) | Self::EndToEnd(_) => None,
        }
    }

    /// The test, where it is one.
    pub const fn test(self) -> Option<&'static str> {
        match self {
            Self::Part(test) | Self::EndToEnd(test) => Some(test),
            Self::Plain | Self::Shared | Self::Worlds(_) => None,
        }
    }
}

/// Checks that all mutants can be put into the sources that `read` reads.
///
/// # Errors
///
/// See [`put_in`].
pub fn check(read: impl Fn(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
    for mutant in all() {
        let source = read(mutant.file).with_context(|| mutant.file)?;
        put_in(mutant.file, &source)?;
    }
    Ok(())
}
