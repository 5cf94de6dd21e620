//! Each kind of change, a hundred times at random, with what else it takes put right as far as it can be
//! without the key.

use std::fs;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use rusqlite::{Connection, params};
use tally_tests::Result;

use crate::{Left, edit, verify};

/// How often each kind is tried.
const INSTANCES: u64 = 100;

/// Puts the sums right, as somebody would who knows the tables.
const RIGHT_SUMS: &str = "
    UPDATE batches SET
        (row_count, units, first_seq, last_seq) = (
            SELECT count(*), coalesce(sum(units), 0), coalesce(min(seq), first_seq),
                   coalesce(max(seq), last_seq)
            FROM consumptions WHERE lane = batches.lane AND seq BETWEEN first_seq AND last_seq);
    DELETE FROM batches WHERE row_count = 0;
    UPDATE accounts SET
        (recorded, row_count) = (
            SELECT coalesce(sum(units), 0), count(*) FROM consumptions JOIN lanes ON lanes.no = lane
            WHERE account = accounts.no),
        settled = (
            SELECT coalesce(sum(units), 0) FROM batches JOIN lanes ON lanes.no = lane
            WHERE account = accounts.no AND state = 'settled');";

/// What somebody did: where it should be found, if at one place.
type Done = rusqlite::Result<Option<i64>>;

/// Tries a kind of change; each one must be found, at its place.
fn try_all(change: impl Fn(&Connection, &mut StdRng) -> Done) -> Result {
    let left = Left::new(12)?;
    for seed in 0..INSTANCES {
        let folder = left.data_dir()?;
        let ledger = edit(folder.path())?;
        let place = change(&ledger, &mut StdRng::seed_from_u64(seed))?;
        drop(ledger);
        let (code, findings) = verify(folder.path())?;
        assert_eq!(code, Some(1), "seed {seed}: {findings:#}");
        if let Some(place) = place {
            let faults = findings["faults"].as_array().into_iter().flatten();
            let mut places = faults.filter(|fault| fault["kind"] == "chain");
            let first = places.next().map(|fault| &fault["seq"]);
            assert_eq!(
                first.and_then(serde_json::Value::as_i64),
                Some(place),
                "seed {seed}: {findings:#}"
            );
        }
    }
    Ok(())
}

fn places(ledger: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut statement = ledger.prepare("SELECT seq FROM consumptions ORDER BY seq")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn any(places: &[i64], random: &mut StdRng) -> i64 {
    places.choose(random).copied().unwrap_or_default()
}

#[test]
fn every_changed_row_is_found() -> Result {
    try_all(|ledger, random| {
        let place = any(&places(ledger)?, random);
        let more = random.random_range(1..1000);
        let change = match random.random_range(0..7) {
            0 => "units = units + ?2",
            1 => "total = total + ?2",
            2 => "at = at - ?2",
            3 => "proven = 1 - proven, at = at + 0 * ?2",
            4 => "app = app + ?2",
            5 => "lane = 3 - lane + 0 * ?2",
            _ => "hash = randomblob(32 + 0 * ?2)",
        };
        let sql = format!("UPDATE consumptions SET {change} WHERE seq = ?1");
        ledger.execute(&sql, params![place, more])?;
        if random.random() {
            ledger.execute_batch(RIGHT_SUMS)?;
        }
        Ok(Some(place))
    })
}

#[test]
fn every_removed_row_is_found() -> Result {
    try_all(|ledger, random| {
        let places = places(ledger)?;
        // The newest is a tail that is cut off.
        let place = any(places.split_last().map_or(&[], |(_, rest)| rest), random);
        ledger.execute("DELETE FROM consumptions WHERE seq = ?1", [place])?;
        if random.random() {
            ledger.execute_batch(RIGHT_SUMS)?;
        }
        Ok(Some(place))
    })
}

#[test]
fn rows_that_are_removed_and_called_folded_are_found() -> Result {
    try_all(|ledger, random| {
        let places = places(ledger)?;
        let place = any(places.split_last().map_or(&[], |(_, rest)| rest), random);
        let seal: Option<Vec<u8>> = random.random::<bool>().then(|| vec![7; 32]);
        ledger.execute(
            "INSERT INTO anchors SELECT seq, seq, hash, at, proven, ?2 FROM consumptions WHERE seq = ?1",
            params![place, seal],
        )?;
        ledger.execute(
            "INSERT INTO daily SELECT 0, lane, app, 'settled', 0, 1, units
             FROM consumptions WHERE seq = ?1",
            [place],
        )?;
        ledger.execute("DELETE FROM consumptions WHERE seq = ?1", [place])?;
        Ok(Some(place))
    })
}

#[test]
fn every_inserted_row_is_found() -> Result {
    try_all(|ledger, random| {
        let places = places(ledger)?;
        let last = places.last().copied().unwrap_or_default();
        let like = any(&places, random);
        let place = if random.random() {
            last + 1
        } else {
            let place = any(&places, random);
            // Away and back, since SQLite moves the rows one by one.
            ledger.execute(
                "UPDATE consumptions SET seq = -seq WHERE seq >= ?1",
                [place],
            )?;
            ledger.execute("UPDATE consumptions SET seq = 1 - seq WHERE seq < 0", [])?;
            place
        };
        let like = if like >= place && place <= last {
            like + 1
        } else {
            like
        };
        ledger.execute(
            "INSERT INTO consumptions SELECT ?1, lane, app, units, total, at + 1, proven, hash
             FROM consumptions WHERE seq = ?2",
            params![place, like],
        )?;
        if random.random() {
            ledger.execute_batch(RIGHT_SUMS)?;
        }
        Ok(Some(place))
    })
}

#[test]
fn rows_in_another_order_are_found() -> Result {
    try_all(|ledger, random| {
        let places = places(ledger)?;
        let a = any(&places, random);
        let b = loop {
            let other = any(&places, random);
            if other != a {
                break other;
            }
        };
        if random.random() {
            for (from, to) in [(a, -1), (b, a), (-1, b)] {
                ledger.execute(
                    "UPDATE consumptions SET seq = ?2 WHERE seq = ?1",
                    [from, to],
                )?;
            }
        } else {
            // The hashes stay where they were.
            ledger.execute_batch(&format!(
                "CREATE TEMP TABLE pair AS SELECT * FROM consumptions WHERE seq IN ({a}, {b});
                 UPDATE consumptions SET (lane, app, units, total, at, proven) = (
                     SELECT lane, app, units, total, at, proven FROM pair
                     WHERE pair.seq = {a} + {b} - consumptions.seq)
                 WHERE seq IN ({a}, {b});"
            ))?;
        }
        Ok(Some(a.min(b)))
    })
}

#[test]
fn every_cut_tail_is_found() -> Result {
    try_all(|ledger, random| {
        let places = places(ledger)?;
        let first = any(&places, random);
        ledger.execute("DELETE FROM consumptions WHERE seq >= ?1", [first])?;
        ledger.execute("DELETE FROM notes WHERE seq >= ?1", [first])?;
        if random.random() {
            ledger.execute_batch(RIGHT_SUMS)?;
        }
        Ok(None)
    })
}

#[test]
fn what_is_owed_and_called_settled_is_found() -> Result {
    try_all(|ledger, random| {
        let state = ["settled", "waived"]
            .choose(random)
            .copied()
            .unwrap_or_default();
        let of_account = "lane IN (SELECT no FROM lanes WHERE account = accounts.no)
                          AND state NOT IN ('settled', 'superseded', 'waived')";
        ledger.execute_batch(&format!(
            "UPDATE accounts SET {state} = {state} + coalesce(
                 (SELECT sum(units) FROM batches WHERE {of_account}), 0);
             UPDATE batches SET state = '{state}', ended_at = {}
             WHERE state NOT IN ('settled', 'superseded', 'waived');",
            random.random_range(0..1_000_000_i64)
        ))?;
        Ok(None)
    })
}

#[test]
fn every_older_copy_is_found() -> Result {
    let left = Left::new(100)?;
    for copy in &left.older {
        let folder = left.data_dir()?;
        fs::copy(copy, folder.path().join("ledger.db"))?;
        let (code, findings) = verify(folder.path())?;
        assert_eq!(code, Some(1), "{copy:?}: {findings:#}");
        assert_eq!(findings["faults"][0]["kind"], "evidence", "{findings:#}");
    }
    Ok(())
}

#[test]
fn another_key_and_a_mark_that_is_gone_are_found() -> Result {
    let left = Left::new(4)?;
    for seed in 0..INSTANCES {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = left.data_dir()?;
        let mark = folder.path().join("ledger.mark");
        match random.random_range(0..3) {
            0 => fs::remove_file(mark)?,
            1 => {
                let mut bytes = fs::read(&mark)?;
                for slot in bytes.chunks_mut(512) {
                    let at = random.random_range(0..96);
                    slot[at] ^= 1 << random.random_range(0..8);
                }
                fs::write(mark, bytes)?;
            }
            _ => fs::write(
                folder.path().join("chain_key"),
                format!("{}\n", random.random::<u64>()),
            )?,
        }
        let (code, findings) = verify(folder.path())?;
        assert_eq!(code, Some(1), "seed {seed}: {findings:#}");
        assert_eq!(findings["faults"][0]["kind"], "evidence", "{findings:#}");
    }
    Ok(())
}
