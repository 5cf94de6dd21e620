//! What a recovery could not bring back, and a person accepted: it is written in the recovery's note,
//! so that the proof of the ledger does not report it for ever and hide what comes after it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};
use serde::{Deserialize, Serialize};

/// The places from the first to the second.
pub type Range = (i64, i64);

/// What is known to be wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Places that nothing is known of.
    pub missing_places: Vec<Range>,
    /// Rows whose hash does not fit.
    pub changed_rows: Vec<Range>,
    /// What the rows of an account lack of its sums.
    pub missing_in_accounts: BTreeMap<i64, Shortfall>,
    /// How many places are known to be folded beyond the rows in the daily sums; less than none where it
    /// is the other way round.
    pub folded_places: i64,
    /// Accounts whose sums are known not to fit their seal.
    #[serde(default)]
    pub accounts: Vec<i64>,
}

/// What a note of evidence names.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Noted {
    missing_places: Vec<Range>,
    changed_rows: Vec<Range>,
    accounts: Vec<i64>,
}

/// How many rows are missing, and their units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// Rows.
    pub rows: i64,
    /// Units.
    pub units: i64,
}

impl Known {
    /// What the newest note of a salvage says, which covers what earlier ones said, and what notes of
    /// evidence name.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT body FROM notes WHERE kind = 'recovery' AND body ->> 'missing_places' IS NOT NULL
                   ORDER BY seq DESC LIMIT 1";
        let body: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
        // The chain proves the note; one of another form says nothing.
        let mut known: Self = body
            .and_then(|body| serde_json::from_str(&body).ok())
            .unwrap_or_default();
        let mut statement = connection.prepare("SELECT body FROM notes WHERE kind = 'evidence'")?;
        let mut notes = statement.query([])?;
        while let Some(note) = notes.next()? {
            let body: String = note.get(0)?;
            let named: Noted = serde_json::from_str(&body).unwrap_or_default();
            known.missing_places.extend(named.missing_places);
            known.changed_rows.extend(named.changed_rows);
            known.accounts.extend(named.accounts);
        }
        known.missing_places = joined(known.missing_places);
        known.changed_rows = joined(known.changed_rows);
        Ok(known)
    }

    /// Whether all of these places are known to be missing.
    pub(super) fn is_missing(&self, places: Range) -> bool {
        let covers = |known: &Range| known.0 <= places.0 && places.1 <= known.1;
        self.missing_places.iter().any(covers)
    }

    /// Whether this row is known not to fit.
    pub(super) fn is_changed(&self, place: i64) -> bool {
        self.changed_rows
            .iter()
            .any(|known| known.0 <= place && place <= known.1)
    }

    /// Whether something in these places is known to be wrong.
    pub(super) fn touches(&self, places: Range) -> bool {
        let meets = |known: &Range| known.0 <= places.1 && places.0 <= known.1;
        self.missing_places
            .iter()
            .chain(&self.changed_rows)
            .any(meets)
    }
}

/// Adds a place to ranges that are in order.
pub(super) fn add_place(ranges: &mut Vec<Range>, place: i64) {
    match ranges.last_mut() {
        Some(last) if last.1 + 1 == place => last.1 = place,
        _ => ranges.push((place, place)),
    }
}

/// The same places in as few ranges as can be.
fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.0 <= last.1.saturating_add(1) => last.1 = last.1.max(range.1),
            _ => joined.push(range),
        }
    }
    joined
}

/// Of these ranges, those that are not wholly among the known ones.
pub(super) fn beyond(ranges: &[Range], known: &[Range]) -> Vec<Range> {
    let is_known = |range: &&Range| {
        known
            .iter()
            .any(|known| known.0 <= range.0 && range.1 <= known.1)
    };
    let others = ranges.iter().filter(|range| !is_known(range));
    others.copied().collect()
}
