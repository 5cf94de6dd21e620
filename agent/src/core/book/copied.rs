//! Notes that say that a ledger is a copy, and what a person said of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tally_shared::time::Timestamp;

use super::{Note, NoteKind, Seq};
use crate::core::instance::Difference;

/// How a ledger shows that it is a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CopyKind {
    /// It is in another file, or on another device, than it was written in.
    Copied,
    /// It is older than its mark: it was put back from a copy.
    OlderCopy,
}

/// A note that says that the ledger is a copy, and that nobody has answered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Copied {
    /// The note's place.
    #[serde(skip)]
    pub seq: Seq,
    /// When it was found.
    #[serde(skip)]
    pub at: Timestamp,
    /// How it shows.
    #[serde(rename = "what")]
    pub kind: CopyKind,
    /// The newest place when it was found: the rows up to there are the original's as well.
    pub newest: Seq,
    /// What is another than it was.
    #[serde(default)]
    pub differs: Option<Difference>,
    /// The host of the original.
    #[serde(default)]
    pub host: Option<String>,
    /// Where the original was.
    #[serde(default)]
    pub path: Option<String>,
    /// When the ledger was last written before.
    #[serde(default)]
    pub written_at: Option<Timestamp>,
}

/// What notes say of copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Those that nobody has answered, oldest first.
    pub open: Vec<Copied>,
    /// Other evidence that comes with a copy: its mark or its key was not copied with it.
    pub beside: Vec<Seq>,
    /// The notes of evidence that a person has answered.
    pub answered: BTreeSet<Seq>,
}

impl Copies {
    /// Takes in what a note says.
    pub(in crate::core) fn take(&mut self, note: &Note) {
        match note.kind {
            NoteKind::Evidence => self.take_evidence(note.seq, note.at, &note.body),
            NoteKind::Decision => self.take_decision(&note.body),
            NoteKind::Recovery | NoteKind::Finding => {}
        }
    }

    /// Takes in a note of evidence.
    pub fn take_evidence(&mut self, seq: Seq, at: Timestamp, body: &str) {
        if let Ok(copied) = serde_json::from_str::<Copied>(body) {
            self.open.push(Copied { seq, at, ..copied });
            return;
        }
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let what = body.get("what").and_then(Value::as_str);
        if matches!(what, Some("mark_lost" | "key_replaced")) {
            self.beside.push(seq);
        }
    }

    /// Takes in a decision, which may answer notes.
    pub fn take_decision(&mut self, body: &str) {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let decision = body.get("decision").and_then(Value::as_str);
        if !matches!(decision, Some("device_moved" | "device_new")) {
            return;
        }
        let answered = body.get("answers").and_then(Value::as_array);
        let answered: Vec<Seq> = answered
            .into_iter()
            .flatten()
            .filter_map(|seq| seq.as_i64().map(Seq))
            .collect();
        self.open.retain(|copied| !answered.contains(&copied.seq));
        self.beside.retain(|seq| !answered.contains(seq));
        self.answered.extend(answered);
    }

    /// The places of all notes that an answer concerns. What is missing beside the ledger is explained only by a copy.
    pub fn to_answer(&self) -> Vec<Seq> {
        let is_copied = self
            .open
            .iter()
            .any(|copied| copied.kind == CopyKind::Copied);
        let beside = self.beside.iter().filter(|_| is_copied);
        let open = self.open.iter().map(|copied| &copied.seq);
        open.chain(beside).copied().collect()
    }

    /// The last place that is the original's as well, while nobody has said what became of that.
    pub fn until(&self) -> Option<Seq> {
        let copied = self
            .open
            .iter()
            .filter(|copied| copied.kind == CopyKind::Copied);
        copied.map(|copied| copied.newest).max()
    }
}
