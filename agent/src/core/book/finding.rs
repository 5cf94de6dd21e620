//! Findings: what the server's total says that this ledger does not expect.
//!
//! Every total that is heard is compared with the one before and what this ledger sent meanwhile. A difference that other
//! users of the licence do not explain is a finding: a note in the chain, shown until a person has seen it, and no verdict
//! is built on it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tally_shared::{time::Timestamp, units::Units};

use super::{Note, NoteKind, Seq};

/// The kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FindingKind {
    /// The total moved by a batch more than once: something between agent and server sent it again.
    CountedMoreThanOnce,
    /// A batch was refused, and the total moved by exactly its units: it may have been counted first.
    RefusedButCounted,
    /// The total is below the one before: the vendor lowered it, or the server was put back from a backup.
    TotalFell,
    /// The server says that it counted a batch before, and its total does not hold it.
    ReplayDidNotCount,
}

/// A finding that nobody has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Finding {
    /// Its place in the ledger; `tally resolve --finding` takes it.
    #[serde(default, rename = "no")]
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub seq: Seq,
    /// The kind.
    #[serde(rename = "finding")]
    pub kind: FindingKind,
    /// The product.
    pub product: String,
    /// `license_key` or `username`.
    pub holder: String,
    /// The key or the user.
    pub holder_value: String,
    /// The server's id of the licence.
    pub license_id: i64,
    /// The feature, if it is one's.
    pub feature: Option<String>,
    /// The batch, where it concerns one.
    pub batch: Option<i64>,
    /// The units in question.
    pub units: Units,
    /// The total that this ledger expected.
    pub expected: i64,
    /// The total that the server told.
    pub found: i64,
    /// When the total before was right.
    pub since: Timestamp,
    /// When the new one was.
    pub until: Timestamp,
}

impl FindingKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [
        Self::CountedMoreThanOnce,
        Self::RefusedButCounted,
        Self::TotalFell,
        Self::ReplayDidNotCount,
    ];

    /// The kind's name in the ledger, in the status and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CountedMoreThanOnce => "counted_more_than_once",
            Self::RefusedButCounted => "refused_but_counted",
            Self::TotalFell => "total_fell",
            Self::ReplayDidNotCount => "replay_did_not_count",
        }
    }

    /// What it means and what to do, for people.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::CountedMoreThanOnce => {
                "look for the units in the vendor's activity log: a gateway may have sent the request twice, or another \
                 device uses the licence"
            }
            Self::RefusedButCounted => {
                "look for the units in the vendor's activity log, then decide about the held batch"
            }
            Self::TotalFell => {
                "ask the vendor: the total was lowered by hand, or the server was put back from a backup"
            }
            Self::ReplayDidNotCount => {
                "ask the vendor: the server remembers the request, and its total does not hold the units"
            }
        }
    }
}

impl Finding {
    /// What was found, in one sentence, for people.
    pub fn what(&self) -> String {
        let name = match &self.feature {
            Some(feature) => format!("{} of {}", feature, self.holder_value),
            None => self.holder_value.clone(),
        };
        let Self {
            units,
            expected,
            found,
            ..
        } = self;
        match self.kind {
            FindingKind::CountedMoreThanOnce => format!(
                "the server's total of {name} is {found}, and {expected} was expected: {units} units more than this device \
                 sent; a request may have been counted more than once"
            ),
            FindingKind::RefusedButCounted => format!(
                "the server refused {units} units of {name}, and its total moved by exactly {units}, from {expected} to \
                 {found}: they may be counted"
            ),
            FindingKind::TotalFell => format!(
                "the server's total of {name} fell from {expected} to {found}: it counts {units} units fewer than before"
            ),
            FindingKind::ReplayDidNotCount => format!(
                "the server says that it counted units of {name} before, and its total is {found} where {expected} was \
                 expected: {units} units are missing there"
            ),
        }
    }

    /// The finding that a note tells, if it is one.
    pub fn of(note: &Note) -> Option<Self> {
        if note.kind != NoteKind::Finding {
            return None;
        }
        Self::from_body(note.seq, &note.body)
    }

    /// The finding of a note's body.
    pub fn from_body(seq: Seq, body: &str) -> Option<Self> {
        let found: Self = serde_json::from_str(body).ok()?;
        Some(Self { seq, ..found })
    }

    /// The place that a decision acknowledges, where a decision's body is of that kind.
    pub fn acknowledged_by(body: &str) -> Option<Seq> {
        let body: Value = serde_json::from_str(body).ok()?;
        if body.get("decision")?.as_str()? != "seen" {
            return None;
        }
        Some(Seq(body.get("finding")?.as_i64()?))
    }

    /// The note's body.
    pub(in crate::core) fn to_body(&self) -> String {
        let mut body = serde_json::to_value(self).unwrap_or_default();
        if let Some(fields) = body.as_object_mut() {
            fields.shift_remove("no");
        }
        body.to_string()
    }
}
