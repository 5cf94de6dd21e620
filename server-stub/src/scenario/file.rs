//! The format of a scenario file, in TOML. `scenarios/README.md` describes it for people.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use fs_err as fs;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};
use tally_shared::time::Timestamp;
use toml::Spanned;

pub use super::step::{
    AgentAction, AgentOrder, ApiKeyOrder, Consume, LicenseEdit, RunProgram, Step, Wait,
};
use crate::engine::state::License;

/// How long it may take until everything expected holds, where the file does not say.
const WITHIN: Duration = Duration::from_secs(15);

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A few words.
    pub name: String,
    /// What happens in the field, in a few sentences.
    pub story: String,
    /// The seed of everything random that has none of its own.
    #[serde(default)]
    pub seed: u64,
    /// Whether the server keeps idempotency keys; the production service keeps none.
    #[serde(default = "yes")]
    pub idempotency: bool,
    /// What there is.
    pub world: World,
    /// The agents; without the key, there is one.
    pub agents: Option<Vec<Spanned<AgentSpec>>>,
    /// What happens, in order.
    #[serde(default)]
    pub steps: Vec<Spanned<Step>>,
    /// What must hold in the end.
    #[serde(default)]
    pub expect: Expect,
}

/// What there is at the start: licences, given here or in a seed file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// What the server's clock shows at the start; without it, the time of the device.
    pub now: Option<Timestamp>,
    /// A seed file in JSON, relative to the scenario's file.
    pub seed_file: Option<PathBuf>,
    /// Licences, each in the seed's shape.
    #[serde(default)]
    pub licenses: Vec<License>,
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentSpec {
    /// What steps and expectations call it.
    pub name: String,
    /// The device that it runs on.
    pub hardware_id: String,
    /// Further arguments of its command.
    #[serde(default)]
    pub args: Vec<String>,
    /// True where it is absent at the start: a step copies another one's folder, or starts it.
    #[serde(default)]
    pub absent: bool,
}

/// What must hold in the end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a promise that a scenario can leave out"
)]
pub struct Expect {
    /// How long after the last step at most.
    #[serde(deserialize_with = "duration")]
    pub within: Duration,
    /// Every running agent has nothing left to send but what is held.
    pub quiet: bool,
    /// Every agent's sum is right: recorded = settled + pending + in flight + unknown + held + waived.
    pub conservation: bool,
    /// Every agent has recorded what its applications were granted.
    pub nothing_lost: bool,
    /// The server has counted what the agents believe it has, in the log of activity.
    pub counted_once: bool,
    /// Units that applications were granted, together.
    pub granted: Option<Amount>,
    /// How many consumptions were refused, by code; none but these.
    pub refused: BTreeMap<String, u64>,
    /// How many consumptions got no answer.
    pub unanswered: Amount,
    /// Requests that reached the server.
    pub requests: Option<Amount>,
    /// How often the faults in force at the end have struck, together.
    pub fired: Option<Amount>,
    /// The server's side.
    pub server: Vec<Spanned<ExpectServer>>,
    /// The agents' side.
    pub agents: Vec<Spanned<ExpectAgent>>,
}

/// What the server must have of a licence.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectServer {
    /// Which one; the first.
    pub license: Option<i64>,
    /// Which feature of it.
    pub feature: Option<String>,
    /// Its total, at the end.
    pub total: Option<Amount>,
    /// Fields of the licence in the seed's shape, with the values that they must have.
    #[serde(default)]
    pub has: Map<String, Value>,
    /// Units in the log of activity by their event.
    #[serde(default)]
    pub activity: BTreeMap<String, Amount>,
}

/// What an agent must say of a licence.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectAgent {
    /// Which agent; the first.
    pub agent: Option<String>,
    /// Which licence; the first.
    pub license: Option<i64>,
    /// Which feature of it.
    pub feature: Option<String>,
    /// Units granted to applications.
    pub recorded: Option<Amount>,
    /// Units that the server has counted.
    pub settled: Option<Amount>,
    /// Units not sent yet.
    pub pending: Option<Amount>,
    /// Units sent, and not answered yet.
    pub in_flight: Option<Amount>,
    /// Units sent, and the answer was lost.
    pub unknown: Option<Amount>,
    /// Units that wait for something to change.
    pub held: Option<Amount>,
    /// Units given up.
    pub waived: Option<Amount>,
    /// Units that were sent after their period was over.
    pub late: Option<Amount>,
    /// Why units are held: each reason, once.
    pub held_for: Option<Vec<String>>,
    /// Why the licence is refused; `""` where it is not.
    pub refused: Option<String>,
    /// The findings about this licence: each kind, once.
    pub findings: Option<Vec<String>>,
    /// How the agent stands to the server: `online`, `unreachable`, `offline` or `refused`.
    pub connection: Option<String>,
}

/// A number, or a range with both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, or a range such as {min = 1, max = 3}"
)]
pub enum Amount {
    /// Exactly this.
    Exactly(i64),
    /// From the one to the other.
    Range(Range),
}

/// A range; an end that is left out is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The least.
    pub min: Option<i64>,
    /// The most.
    pub max: Option<i64>,
}

/// A scenario file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the scenario")]
    Read(#[source] std::io::Error),
    /// Something in it is wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there, and what is allowed.
        problem: String,
    },
    /// Its seed file cannot be used.
    #[error("{}: `world.seed_file`", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::seed::SeedError,
    },
}

/// What is wrong in the text of a scenario, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there, and what is allowed.
    pub problem: String,
}

impl Scenario {
    /// Reads a scenario file, and the seed file that it names.
    ///
    /// # Errors
    ///
    /// [`FileError`], with the line.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(FileError::Read)?;
        let content = |mistake: Mistake| FileError::Content {
            path: path.to_owned(),
            line: mistake.line,
            problem: mistake.problem,
        };
        let mut scenario = Self::parse_shape(&text).map_err(content)?;
        if let Some(seed_file) = &scenario.world.seed_file {
            let beside = path.parent().unwrap_or(Path::new("")).join(seed_file);
            let seed = crate::Seed::read(&beside).map_err(|source| FileError::Seed {
                path: path.to_owned(),
                source,
            })?;
            scenario.world.licenses.extend(seed.licenses);
        }
        scenario.checked(&text).map_err(content)
    }

    /// Reads a scenario from its text; it cannot name a seed file.
    ///
    /// # Errors
    ///
    /// The first [`Mistake`].
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        Self::parse_shape(text)?.checked(text)
    }

    fn parse_shape(text: &str) -> Result<Self, Mistake> {
        toml::from_str(text).map_err(|error| Mistake {
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            problem: error.message().replace('\n', ", "),
        })
    }
}

/// The line of a place in a text, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.get(..offset).unwrap_or_default().matches('\n').count()
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            within: WITHIN,
            quiet: true,
            conservation: true,
            nothing_lost: true,
            counted_once: true,
            granted: None,
            refused: BTreeMap::new(),
            unanswered: Amount::Exactly(0),
            requests: None,
            fired: None,
            server: Vec::new(),
            agents: Vec::new(),
        }
    }
}

impl Amount {
    /// Whether a number is right.
    pub fn allows(self, number: i64) -> bool {
        match self {
            Self::Exactly(right) => number == right,
            Self::Range(range) => {
                range.min.is_none_or(|min| number >= min)
                    && range.max.is_none_or(|max| number <= max)
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exactly(number) => write!(f, "{number}"),
            Self::Range(Range {
                min: Some(min),
                max: Some(max),
            }) => write!(f, "{min} to {max}"),
            Self::Range(Range {
                min: Some(min),
                max: None,
            }) => write!(f, "at least {min}"),
            Self::Range(Range {
                min: None,
                max: Some(max),
            }) => write!(f, "at most {max}"),
            Self::Range(Range {
                min: None,
                max: None,
            }) => f.write_str("anything"),
        }
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!(
            "{text:?} is not a time such as \"1500ms\" or \"2s\": {error}"
        ))
    })
}

pub(super) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

const fn yes() -> bool {
    true
}
