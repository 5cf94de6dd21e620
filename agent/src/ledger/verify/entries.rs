//! The entries of the chain, read in the order of their places.

use std::{mem, ops::ControlFlow};

use rusqlite::Connection;
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
};

use crate::core::{
    book::{AppNo, LaneNo, Seq},
    chain::Hash,
};

/// So many entries are handed on together.
const CHUNK_LEN: usize = 256;

/// An entry of the chain as it stands in its table.
pub(super) struct Entry {
    /// The place, or the first of those that an anchor stands for.
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) hash: Hash,
    pub(super) what: What,
}

/// Which table an entry is of, and what it says.
pub(super) enum What {
    Row(Row),
    Note(Note),
    Anchor { seal: Option<[u8; 32]> },
}

pub(super) struct Row {
    pub(super) lane: LaneNo,
    pub(super) app: AppNo,
    pub(super) units: Units,
    pub(super) total: Total,
    /// When, and whether that was proven.
    pub(super) time: (Timestamp, bool),
}

pub(super) struct Note {
    pub(super) kind: String,
    pub(super) body: String,
    /// When, and whether that was proven.
    pub(super) time: (Timestamp, bool),
}

/// Reads the entries from a place on: the rows, which are many, and between them notes and anchors. Ends where `take`
/// says so.
pub(super) fn read(
    connection: &Connection,
    from: i64,
    mut take: impl FnMut(Vec<Entry>) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    // Two statements: in one, each of the rows would be carried through a sorter of unlike rows.
    let mut rows = connection.prepare(
        "SELECT seq, at, proven, hash, lane, app, units, total FROM consumptions
         WHERE seq >= ?1 ORDER BY seq",
    )?;
    let mut others = connection.prepare(
        "SELECT seq, at, proven, hash, seq, kind, body, NULL FROM notes WHERE seq >= ?1
         UNION ALL SELECT first_seq, at, 0, hash, last_seq, NULL, NULL, seal FROM anchors
             WHERE last_seq >= ?1
         ORDER BY 1",
    )?;
    let mut rows = rows.query([from])?;
    let mut others = others.query([from])?;
    let mut row = rows.next()?.map(row_of).transpose()?;
    let mut other = others.next()?.map(other_of).transpose()?;
    let place = |entry: &Option<Entry>| entry.as_ref().map_or(i64::MAX, |entry| entry.first.0);
    let mut chunk = Vec::with_capacity(CHUNK_LEN);
    loop {
        let is_row = row.is_some() && place(&row) <= place(&other);
        let next = if is_row {
            mem::replace(&mut row, rows.next()?.map(row_of).transpose()?)
        } else {
            mem::replace(&mut other, others.next()?.map(other_of).transpose()?)
        };
        let is_end = next.is_none();
        chunk.extend(next);
        if is_end || chunk.len() == CHUNK_LEN {
            let full = mem::replace(&mut chunk, Vec::with_capacity(CHUNK_LEN));
            if take(full).is_break() || is_end {
                return Ok(());
            }
        }
    }
}

fn row_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    let seq = Seq(row.get(0)?);
    Ok(Entry {
        first: seq,
        last: seq,
        hash: Hash(row.get(3)?),
        what: What::Row(Row {
            lane: LaneNo(row.get(4)?),
            app: AppNo(row.get(5)?),
            units: Units::new(row.get(6)?),
            total: Total::new(row.get(7)?),
            time: time_of(row)?,
        }),
    })
}

fn other_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        first: Seq(row.get(0)?),
        last: Seq(row.get(4)?),
        hash: Hash(row.get(3)?),
        what: match row.get(5)? {
            Some(kind) => What::Note(Note {
                kind,
                body: row.get(6)?,
                time: time_of(row)?,
            }),
            None => What::Anchor { seal: row.get(7)? },
        },
    })
}

fn time_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Timestamp, bool)> {
    Ok((Timestamp::from_millis(row.get(1)?), row.get(2)?))
}
