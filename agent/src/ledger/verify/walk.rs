//! The walk over the chain, entry by entry. One thread reads the entries and another proves them: each has about half
//! of the work.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    panic,
    sync::mpsc,
    thread,
};

use rusqlite::Connection;
use tally_shared::units::Units;

use super::{
    FaultKind, Findings, Sum,
    entries::{self, Entry, Note, Row, What},
};
use crate::{
    core::{
        book::{Batch, BatchNo, Book, LaneNo, NoteKind, Seq},
        chain::{self, Hash},
    },
    ledger::{
        LedgerError,
        known::{self, Known},
    },
};

/// So many chunks of entries may wait to be proved, so that memory stays bounded.
const WAITING_MAX: usize = 4;

/// Which part of the chain is looked at.
#[derive(Clone, Copy)]
pub(super) struct Looked {
    /// The first place.
    pub(super) from: i64,
    /// The first place that the present key can prove.
    pub(super) proved_from: i64,
}

/// What a walk over the chain comes to.
pub(super) struct Walked {
    /// What the rows of each lane come to.
    pub(super) of_lanes: BTreeMap<LaneNo, Sum>,
    /// What the rows of each owed batch come to.
    pub(super) of_batches: BTreeMap<BatchNo, Sum>,
    /// The last place, and its hash.
    pub(super) end: (Seq, Hash),
}

/// Walks the chain; `tell` hears now and then which place has been read.
pub(super) fn walk(
    connection: &Connection,
    (book, known): (&Book, &Known),
    looked: Looked,
    tell: &dyn Fn(i64),
    findings: &mut Findings,
) -> Result<Walked, LedgerError> {
    let (hand_on, chunks) = mpsc::sync_channel::<Vec<Entry>>(WAITING_MAX);
    let mut walk = Walk::new(book, known, looked, findings);
    thread::scope(|scope| {
        let proving = move || {
            chunks.into_iter().flatten().for_each(|it| walk.take(&it));
            walk.end()
        };
        let proving = thread::Builder::new()
            .name("tally-verify".to_owned())
            .spawn_scoped(scope, proving)
            .map_err(|source| LedgerError::Thread { source })?;
        let read = entries::read(connection, looked.from, |chunk| {
            if let Some(entry) = chunk.last() {
                tell(entry.last.0);
            }
            // Nobody takes it only where the other thread has panicked.
            match hand_on.send(chunk) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        drop(hand_on);
        let walked = proving.join().unwrap_or_else(|it| panic::resume_unwind(it));
        read.map_err(LedgerError::while_doing("verifying the chain"))?;
        Ok(walked)
    })
}

/// A walk under way.
struct Walk<'a> {
    book: &'a Book,
    known: &'a Known,
    looked: Looked,
    findings: &'a mut Findings,
    lanes: BTreeMap<LaneNo, Lane<'a>>,
    previous: (Seq, Hash),
    /// In the middle of the chain, the first entry is what the second is proved by.
    is_base: bool,
    /// The notes of evidence that a person has answered.
    answered: BTreeSet<Seq>,
}

/// What was found of a lane.
#[derive(Default)]
struct Lane<'a> {
    /// `None` where nobody knows what the lane stands for.
    digest: Option<&'a Hash>,
    sum: Sum,
    /// Its owed batches by their first row, and what was found of each.
    owed: Vec<(&'a Batch, Sum)>,
    /// So many of them end before the last row.
    passed: usize,
}

impl<'a> Lane<'a> {
    fn of(book: &'a Book, no: LaneNo) -> Self {
        Self {
            digest: book.lane(no).map(|lane| &lane.digest),
            ..Self::default()
        }
    }

    fn add(&mut self, seq: Seq, units: Units) {
        self.sum.add(1, units.get());
        while let Some((batch, _)) = self.owed.get(self.passed)
            && batch.last < seq
        {
            self.passed += 1;
        }
        // One at most covers the row, unless the ledger is damaged.
        let begun = self.owed.iter_mut().skip(self.passed);
        for (batch, sum) in begun.take_while(|(batch, _)| batch.first <= seq) {
            if seq <= batch.last {
                sum.add(1, units.get());
            }
        }
    }
}

impl<'a> Walk<'a> {
    fn new(book: &'a Book, known: &'a Known, looked: Looked, findings: &'a mut Findings) -> Self {
        let mut lanes: BTreeMap<LaneNo, Lane<'a>> = BTreeMap::new();
        for batch in book.batches() {
            let lane = lanes.entry(batch.lane);
            let lane = lane.or_insert_with_key(|no| Lane::of(book, *no));
            lane.owed.push((batch, Sum::default()));
        }
        for lane in lanes.values_mut() {
            lane.owed.sort_by_key(|(batch, _)| batch.first);
        }
        Self {
            book,
            known,
            looked,
            findings,
            lanes,
            previous: (Seq(0), Hash::ORIGIN),
            is_base: looked.from > 1,
            answered: book.copies().answered,
        }
    }

    /// Counts an entry, and proves it by those before it.
    fn take(&mut self, entry: &Entry) {
        let is_next = self.come_to(entry.first);
        let (expected, may_follow_a_gap) = match &entry.what {
            What::Row(row) => (self.row(entry.first, row), false),
            What::Note(note) => {
                let mut kinds = NoteKind::ALL.into_iter();
                let kind = kinds.find(|kind| kind.as_str() == note.kind);
                // A note that says why places before it are missing is made with the hash before them, so that
                // nobody else can.
                let explains = matches!(kind, Some(NoteKind::Recovery | NoteKind::Evidence));
                (self.note(entry.first, kind, note), explains)
            }
            What::Anchor { seal } => {
                let expected = self
                    .chain()
                    .seal_anchor((entry.first, entry.last), &entry.hash);
                let is_sealed = *seal == Some(expected.0);
                (is_sealed.then_some(entry.hash), true)
            }
        };
        let is_proven = expected == Some(entry.hash);
        self.prove(entry, is_proven, is_next || may_follow_a_gap);
    }

    /// Counts a row for its lane. The hash that it should have; `None` where it can have none.
    fn row(&mut self, seq: Seq, row: &Row) -> Option<Hash> {
        let book = self.book;
        let lane = self.lanes.entry(row.lane);
        let lane = lane.or_insert_with_key(|no| Lane::of(book, *no));
        lane.add(seq, row.units);
        self.findings.rows += 1;
        let (at, time_proven) = row.time;
        let link = chain::Link {
            seq,
            lane: lane.digest?,
            app: row.app,
            units: row.units,
            total: row.total,
            at,
            time_proven,
        };
        Some(book.chain().next(&self.previous.1, &link))
    }

    /// Counts a note, and says what one of evidence does. The hash that it should have; `None` where it can have none.
    fn note(&mut self, seq: Seq, kind: Option<NoteKind>, note: &Note) -> Option<Hash> {
        self.findings.notes += 1;
        if kind == Some(NoteKind::Evidence) && !self.answered.contains(&seq) {
            let what = speak_of(&note.body);
            self.findings.add(FaultKind::Evidence, Some(seq), what);
        }
        let (previous, chain) = (&self.previous.1, self.chain());
        Some(chain.next_note(previous, seq, kind?, &note.body, note.time))
    }

    /// Takes note of a place that has an entry. Whether it is the next one after the last entry's.
    fn come_to(&mut self, first: Seq) -> bool {
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

    /// Takes an entry for what the next one is proved by. Says so where something could prove it and did not.
    fn prove(&mut self, entry: &Entry, is_proven: bool, is_provable: bool) {
        let Entry { first, last, .. } = *entry;
        let can_prove = last.0 >= self.looked.proved_from && !self.is_base;
        self.findings.unproven += u64::from(last.0 < self.looked.proved_from);
        // Behind missing places there is nothing to prove a row or a plain note by.
        if can_prove && is_provable && !is_proven {
            if !self.known.is_changed(first.0) {
                let what = "this row was changed, or one before it".to_owned();
                self.findings.add(FaultKind::Chain, Some(first), what);
            }
            known::add_place(&mut self.findings.changed, first.0);
        }
        self.previous = (last, entry.hash);
        self.is_base = false;
    }

    fn end(self) -> Walked {
        let owed = self.lanes.values().flat_map(|lane| &lane.owed);
        Walked {
            of_batches: owed.map(|(batch, sum)| (batch.no, *sum)).collect(),
            of_lanes: (self.lanes.iter())
                .filter(|(_, lane)| lane.sum != Sum::default())
                .map(|(no, lane)| (*no, lane.sum))
                .collect(),
            end: self.previous,
        }
    }

    fn chain(&self) -> &'a chain::Key {
        self.book.chain()
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
        Some("copied") => "the ledger was a copy, started elsewhere or put back",
        Some("rewritten") => "its end was not what it was when its mark was made",
        Some("changed") => "rows or sums had been changed",
        _ => "the ledger had been changed",
    };
    format!("a start found that {what}")
}
