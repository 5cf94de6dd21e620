//! The walk over the chain, entry by entry.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
};

use super::{FaultKind, Findings, Sum};
use crate::{
    core::{
        book::{AppNo, Book, LaneNo, NoteKind, Seq},
        chain::{self, Hash},
    },
    ledger::known::{self, Known},
};

/// Which part of the chain is looked at.
pub(super) struct Looked<'a> {
    /// The first place.
    pub(super) from: i64,
    /// The first place that the present key can prove.
    pub(super) proved_from: i64,
    /// Hears of a place now and then.
    pub(super) tell: &'a dyn Fn(i64),
}

/// So many entries lie between two places that are told.
const TOLD_EVERY: i64 = 1024;

/// What a walk over the chain comes to.
pub(super) struct Walked {
    /// What the rows of each lane come to.
    pub(super) of_lanes: BTreeMap<LaneNo, Sum>,
    /// The last place, and its hash.
    pub(super) end: (Seq, Hash),
}

/// An entry of the chain, of whichever table it is.
struct Entry {
    /// The place, or the first of those that an anchor stands for.
    first: Seq,
    last: Seq,
    found: Hash,
    /// The hash that it should have by those before it; `None` where it can have none.
    expected: Option<Hash>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Row,
    Note,
    /// A note that says why places before it are missing. It is made with the hash before them, so that
    /// nobody else can.
    Explanation,
    Anchor,
}

/// Walks the chain: the rows, which are many, and between them notes and anchors.
pub(super) fn walk(
    connection: &Connection,
    (book, known): (&Book, &Known),
    looked: &Looked<'_>,
    findings: &mut Findings,
) -> rusqlite::Result<Walked> {
    // Two statements: in one, each of the rows would be carried through a sorter of unlike rows.
    let mut rows = connection.prepare(
        "SELECT seq, hash, at, proven, lane, app, units, total FROM consumptions
         WHERE seq >= ?1 ORDER BY seq",
    )?;
    let mut others = connection.prepare(
        "SELECT seq, seq, hash, at, proven, kind, body, NULL FROM notes WHERE seq >= ?1
         UNION ALL SELECT first_seq, last_seq, hash, at, 0, NULL, NULL, seal FROM anchors
             WHERE last_seq >= ?1
         ORDER BY 1",
    )?;
    let mut rows = rows.query([looked.from])?;
    let mut others = others.query([looked.from])?;
    let place = |row: Option<&Row<'_>>| row.map_or(Ok(i64::MAX), |row| row.get(0));
    let (mut row, mut other) = (rows.next()?, others.next()?);
    let (mut row_at, mut other_at) = (place(row)?, place(other)?);
    let mut chain = Walk {
        book,
        known,
        looked,
        findings,
        sums: BTreeMap::new(),
        previous: (Seq(0), Hash::ORIGIN),
        is_base: looked.from > 1,
    };
    loop {
        match (row, other) {
            (Some(found), _) if row_at <= other_at => {
                let is_next = chain.come_to(Seq(row_at));
                let entry = chain.row(found)?;
                chain.prove(&entry, is_next);
                row = rows.next()?;
                row_at = place(row)?;
            }
            (_, Some(found)) => {
                let is_next = chain.come_to(Seq(other_at));
                let entry = chain.other(found)?;
                chain.prove(&entry, is_next);
                other = others.next()?;
                other_at = place(other)?;
            }
            (_, None) => break,
        }
    }
    Ok(Walked {
        of_lanes: chain.sums,
        end: chain.previous,
    })
}

/// A walk under way.
struct Walk<'a> {
    book: &'a Book,
    known: &'a Known,
    looked: &'a Looked<'a>,
    findings: &'a mut Findings,
    sums: BTreeMap<LaneNo, Sum>,
    previous: (Seq, Hash),
    /// In the middle of the chain, the first entry is what the second is proved by.
    is_base: bool,
}

impl Walk<'_> {
    /// A row, which counts for its lane.
    fn row(&mut self, row: &Row<'_>) -> rusqlite::Result<Entry> {
        let seq = Seq(row.get(0)?);
        let lane = LaneNo(row.get(4)?);
        let units = row.get(6)?;
        self.sums.entry(lane).or_default().add(1, units);
        self.findings.rows += 1;
        let expected = match self.book.lane(lane) {
            None => None,
            Some(lane) => {
                let link = chain::Link {
                    seq,
                    lane: &lane.digest,
                    app: AppNo(row.get(5)?),
                    units: Units::new(units),
                    total: Total::new(row.get(7)?),
                    at: Timestamp::from_millis(row.get(2)?),
                    time_proven: row.get(3)?,
                };
                Some(self.book.chain().next(&self.previous.1, &link))
            }
        };
        Ok(Entry {
            first: seq,
            last: seq,
            found: Hash(row.get(1)?),
            expected,
            kind: Kind::Row,
        })
    }

    /// A note or an anchor.
    fn other(&mut self, row: &Row<'_>) -> rusqlite::Result<Entry> {
        let (first, last) = (Seq(row.get(0)?), Seq(row.get(1)?));
        let found = Hash(row.get(2)?);
        let chain = self.book.chain();
        let Some(name) = row.get::<_, Option<String>>(5)? else {
            let seal: Option<[u8; 32]> = row.get(7)?;
            let expected = chain.seal_anchor((first, last), &found);
            return Ok(Entry {
                first,
                last,
                found,
                expected: (seal == Some(expected.0)).then_some(found),
                kind: Kind::Anchor,
            });
        };
        self.findings.notes += 1;
        let (body, at, proven) = (row.get::<_, String>(6)?, row.get(3)?, row.get(4)?);
        let known = NoteKind::ALL
            .into_iter()
            .find(|known| known.as_str() == name);
        if known == Some(NoteKind::Evidence) {
            let what = speak_of(&body);
            self.findings.add(FaultKind::Evidence, Some(first), what);
        }
        let time = (Timestamp::from_millis(at), proven);
        let expected =
            known.map(|kind| chain.next_note(&self.previous.1, first, kind, &body, time));
        let kind = match known {
            Some(NoteKind::Recovery | NoteKind::Evidence) => Kind::Explanation,
            _ => Kind::Note,
        };
        Ok(Entry {
            first,
            last,
            found,
            expected,
            kind,
        })
    }

    /// Takes note of a place that has an entry. Whether it is the next one after the last entry's.
    fn come_to(&mut self, first: Seq) -> bool {
        if first.0 % TOLD_EVERY == 0 {
            (self.looked.tell)(first.0);
        }
        if self.is_base {
            return false;
        }
        let missing = (self.previous.0.0 + 1, first.0 - 1);
        if missing.0 == first.0 {
            return true;
        }
        if !self.known.is_missing(missing) {
            let what = format!("places {} to {} are missing", missing.0, missing.1);
            self.findings
                .add(FaultKind::Chain, Some(Seq(missing.0)), what);
        }
        self.findings.missing.push(missing);
        false
    }

    /// Proves an entry by those before it.
    fn prove(&mut self, entry: &Entry, is_next: bool) {
        let Entry { first, last, .. } = *entry;
        let can_prove = last.0 >= self.looked.proved_from && !self.is_base;
        self.findings.unproven += u64::from(last.0 < self.looked.proved_from);
        // Behind missing places there is nothing to prove a row or a plain note by.
        let is_provable = is_next || matches!(entry.kind, Kind::Explanation | Kind::Anchor);
        if can_prove && is_provable && entry.expected != Some(entry.found) {
            if !self.known.is_changed(first.0) {
                let what = "this row was changed, or one before it".to_owned();
                self.findings.add(FaultKind::Chain, Some(first), what);
            }
            known::add_place(&mut self.findings.changed, first.0);
        }
        self.previous = (last, entry.found);
        self.is_base = false;
    }
}

/// What a note of evidence says, in few words.
fn speak_of(body: &str) -> String {
    let what = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|body| body.get("what")?.as_str().map(str::to_owned));
    let what = match what.as_deref() {
        Some("key_replaced") => "the chain's key was another than the ledger's",
        Some("mark_lost") => "the mark beside the ledger was gone",
        Some("older_copy") => "the ledger was an older copy",
        Some("rewritten") => "its end was not what it was when its mark was made",
        Some("changed") => "rows or sums had been changed",
        _ => "the ledger had been changed",
    };
    format!("a start found that {what}")
}
