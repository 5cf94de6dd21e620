//! Rows that are not where they belong: their number was damaged, and their hash still covers it.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
};

use crate::core::{
    book::{AppNo, Book, LaneNo, Seq},
    chain::{self, Hash},
};

/// A place so far behind the one before it is not one.
const LEAP_MAX: i64 = 100_000_000;

/// So many rows and places are tried against each other.
const TRIES_MAX: usize = 256;

struct Stray {
    seq: i64,
    lane: LaneNo,
    app: AppNo,
    units: Units,
    total: Total,
    at: Timestamp,
    time_proven: bool,
    hash: Hash,
}

/// Puts rows back to where their hashes say, and takes away those whose number cannot be true. Returns
/// how many were taken away.
pub(super) fn put_back(connection: &Connection, book: &Book) -> rusqlite::Result<usize> {
    let mut places = places_behind(connection)?;
    for stray in strays(connection)? {
        let Some(lane) = book.lane(stray.lane) else {
            continue;
        };
        let fits = |(seq, previous): &(&i64, &Hash)| {
            let link = chain::Link {
                seq: Seq(**seq),
                lane: &lane.digest,
                app: stray.app,
                units: stray.units,
                total: stray.total,
                at: stray.at,
                time_proven: stray.time_proven,
            };
            book.chain().next(previous, &link) == stray.hash
        };
        let Some(seq) = places.iter().find(fits).map(|(seq, _)| *seq) else {
            continue;
        };
        places.remove(&seq);
        connection.execute(
            "UPDATE OR IGNORE consumptions SET seq = ?2 WHERE seq = ?1",
            params![stray.seq, seq],
        )?;
    }
    take_away(connection)
}

/// The missing places behind an entry, with the hash of that.
fn places_behind(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, Hash>> {
    let mut statement = connection.prepare(
        "WITH entries AS (
             SELECT seq, seq last_seq, hash FROM consumptions
             UNION ALL SELECT seq, seq, hash FROM notes
             UNION ALL SELECT first_seq, last_seq, hash FROM anchors)
         SELECT last_seq + 1, hash FROM (
             SELECT *, lead(seq) OVER (ORDER BY seq) next FROM entries)
         WHERE next IS NOT last_seq + 1 LIMIT ?1",
    )?;
    let rows = statement.query_map([i64::try_from(TRIES_MAX).unwrap_or(i64::MAX)], |row| {
        Ok((row.get(0)?, Hash(row.get(1)?)))
    })?;
    let mut places: BTreeMap<i64, Hash> = rows.collect::<Result<_, _>>()?;
    places.entry(1).or_insert(Hash::ORIGIN);
    Ok(places)
}

/// Rows without a neighbour.
fn strays(connection: &Connection) -> rusqlite::Result<Vec<Stray>> {
    let mut statement = connection.prepare(
        "SELECT seq, lane, app, units, total, at, proven, hash FROM (
             SELECT *, lag(seq) OVER (ORDER BY seq) before, lead(seq) OVER (ORDER BY seq) after
             FROM consumptions) c
         WHERE before IS NOT c.seq - 1 AND after IS NOT c.seq + 1
             AND NOT EXISTS (SELECT 1 FROM notes WHERE notes.seq IN (c.seq - 1, c.seq + 1))
         LIMIT ?1",
    )?;
    let rows = statement.query_map([i64::try_from(TRIES_MAX).unwrap_or(i64::MAX)], |row| {
        Ok(Stray {
            seq: row.get(0)?,
            lane: LaneNo(row.get(1)?),
            app: AppNo(row.get(2)?),
            units: Units::new(row.get(3)?),
            total: Total::new(row.get(4)?),
            at: Timestamp::from_millis(row.get(5)?),
            time_proven: row.get(6)?,
            hash: Hash(row.get(7)?),
        })
    })?;
    rows.collect()
}

/// With a number far too high among them, the next row would be as far off.
fn take_away(connection: &Connection) -> rusqlite::Result<usize> {
    let sql = "WITH entries AS (
                   SELECT seq last_seq FROM consumptions UNION SELECT seq FROM notes
                   UNION SELECT last_seq FROM anchors)
               SELECT min(last_seq) FROM (
                   SELECT last_seq, last_seq - lag(last_seq, 1, 0) OVER (ORDER BY last_seq) leap
                   FROM entries)
               WHERE leap > ?1";
    let first: Option<i64> = connection.query_row(sql, [LEAP_MAX], |row| row.get(0))?;
    let Some(first) = first else { return Ok(0) };
    Ok(
        connection.execute("DELETE FROM consumptions WHERE seq >= ?1", [first])?
            + connection.execute("DELETE FROM notes WHERE seq >= ?1", [first])?
            + connection.execute("DELETE FROM anchors WHERE last_seq >= ?1", [first])?,
    )
}
