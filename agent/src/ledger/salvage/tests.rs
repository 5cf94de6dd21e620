//! Random damage to a small ledger, and what is left of it after a start.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use rusqlite::Connection;

use super::world::{FixedClocks, World, guard, key};
use crate::ledger::{
    LedgerError,
    recovery::{self, RecoveryError},
    verify,
};

/// The files of a ledger, with what is true of it.
struct Original {
    files: Vec<(&'static str, Vec<u8>)>,
    granted: BTreeMap<String, i64>,
    counted: BTreeMap<String, i64>,
    rows: BTreeMap<i64, String>,
}

fn originals() -> [Original; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let mut world = World::new(&path);
    world.fill();
    let files = |names: &[&'static str]| {
        let read = |name: &&'static str| (*name, fs::read(folder.path().join(name)).unwrap());
        names.iter().map(read).collect()
    };
    let rows = rows(&world.connection);
    let original = |files| Original {
        files,
        granted: world.granted.clone(),
        counted: world.counted.clone(),
        rows: rows.clone(),
    };
    let running = original(files(&["ledger.db", "ledger.db-wal", "ledger.db-shm"]));
    drop(world.connection);
    [running, original(files(&["ledger.db"]))].map(|found| Original {
        granted: world.granted.clone(),
        ..found
    })
}

/// Rows with all that they say, as far as SQLite reads them.
fn rows(connection: &Connection) -> BTreeMap<i64, String> {
    let sql = "SELECT seq, concat_ws(' ', lane, app, units, total, at, proven, hex(hash))
               FROM consumptions ORDER BY seq";
    let Ok(mut statement) = connection.prepare(sql) else {
        return BTreeMap::new();
    };
    let Ok(rows) = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))) else {
        return BTreeMap::new();
    };
    rows.map_while(Result::ok).collect()
}

/// What is owed by holder: in all, and of it what is sent as if for the first time. What was under way
/// is cleared up with the server.
fn owed(connection: &Connection) -> BTreeMap<String, (i64, i64)> {
    let sql = "SELECT holder_value, sum(b.units),
                      sum(iif(state IN ('open', 'sealed'), b.units, 0))
               FROM batches b JOIN lanes ON lanes.no = b.lane
               JOIN accounts ON accounts.no = account JOIN licenses ON licenses.no = license
               WHERE state NOT IN ('settled', 'superseded', 'waived') GROUP BY 1";
    let mut statement = connection.prepare(sql).unwrap();
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)));
    let rows = statement.query_map([], read).unwrap();
    rows.map(Result::unwrap).collect()
}

/// Batches that go on by themselves although nobody knows which licence they are of, or under which name it is asked for.
fn stuck(connection: &Connection) -> Vec<i64> {
    let sql = "SELECT b.no FROM batches b JOIN lanes ON lanes.no = b.lane
               JOIN accounts ON accounts.no = account JOIN licenses ON licenses.no = license
               WHERE state NOT IN ('settled', 'superseded', 'waived', 'held')
                   AND (product = 'lost' OR NOT EXISTS (
                       SELECT 1 FROM devices WHERE devices.license = licenses.no
                           AND devices.hardware_id = lanes.hardware_id))";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

/// What random damage does.
fn damage(random: &mut StdRng, bytes: &mut Vec<u8>) -> String {
    let at = random.random_range(0..bytes.len());
    match random.random_range(0..5) {
        0 => {
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a bit at {at}")
        }
        1 => {
            let end = (at + random.random_range(1..200)).min(bytes.len());
            random.fill_bytes(&mut bytes[at..end]);
            format!("bytes {at} to {end}")
        }
        2 => {
            let (start, end) = (at / 4096 * 4096, (at / 4096 * 4096 + 4096).min(bytes.len()));
            bytes[start..end].fill(0);
            format!("zeroed {start} to {end}")
        }
        3 => {
            let (start, end) = (at / 4096 * 4096, (at / 4096 * 4096 + 4096).min(bytes.len()));
            random.fill_bytes(&mut bytes[start..end]);
            format!("noise {start} to {end}")
        }
        _ => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
    }
}

fn write(folder: &Path, files: &[(&str, Vec<u8>)]) -> PathBuf {
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(folder.join("reserve"), "x").unwrap();
    folder.join("ledger.db")
}

/// How a start on a damaged ledger ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    Unharmed,
    Whole,
    Accepted,
    Newer,
}

/// What is known of what is owed, afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owed {
    /// All of it, to the unit, for each licence.
    Known,
    /// All of it is there; more is held than is owed, or under a lost name.
    Held,
    /// Less: nothing is left of the newest part of the log, or of a file that was cut.
    Lost,
}

/// Starts on damaged files and checks what is left.
fn check(original: &Original, files: &[(&'static str, Vec<u8>)], what: &str) -> (Ended, Owed) {
    let folder = tempfile::tempdir().unwrap();
    let readable = {
        let apart = tempfile::tempdir().unwrap();
        let path = write(apart.path(), files);
        Connection::open(&path).map_or_else(|_| BTreeMap::new(), |found| rows(&found))
    };
    let path = write(folder.path(), files);
    let opened = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
    let (ended, connection) = match opened {
        Ok(connection) => {
            let found = fs::read_dir(folder.path()).unwrap();
            let mut names = found.map(|entry| entry.unwrap().file_name());
            let is_kept = names.any(|name| name.to_string_lossy().starts_with("damaged-"));
            let ended = if is_kept {
                Ended::Whole
            } else {
                Ended::Unharmed
            };
            (ended, connection)
        }
        Err(RecoveryError::Pending { folder: kept, .. }) => {
            assert_eq!(
                fs::read(kept.join("ledger.db")).unwrap(),
                files[0].1,
                "{what}"
            );
            assert_eq!(fs::read(&path).unwrap(), files[0].1, "{what}");
            let again = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
            assert!(
                matches!(again, Err(RecoveryError::Pending { .. })),
                "{what}"
            );
            recovery::accept(folder.path(), &FixedClocks, &guard(folder.path())).unwrap();
            let opened = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
            (
                Ended::Accepted,
                opened.unwrap_or_else(|error| panic!("{what}: {error:?}")),
            )
        }
        Err(RecoveryError::Ledger(LedgerError::Newer { .. })) => {
            return (Ended::Newer, Owed::Known);
        }
        Err(error) => panic!("{what}: {error:?}"),
    };
    let findings = verify::verify(&connection, &key()).unwrap();
    // What only the chain shows is for the agent to say; it goes on with it.
    let is_fine = match ended {
        Ended::Unharmed => findings.damage().is_none(),
        _ => findings.is_sound(),
    };
    assert!(is_fine, "{what}: {findings:?}");
    let kept = rows(&connection);
    for (seq, hash) in &readable {
        if original.rows.get(seq) == Some(hash) {
            assert_eq!(
                kept.get(seq),
                Some(hash),
                "{what}: the row {seq} was readable"
            );
        }
    }
    if ended != Ended::Unharmed {
        assert_eq!(stuck(&connection), [0; 0], "{what}");
    }
    let owed = owed(&connection);
    let mut is_exact = true;
    let (mut sum_owed, mut sum_due) = (0, 0);
    for (key, granted) in &original.granted {
        let (all, unasked) = owed.get(key).copied().unwrap_or_default();
        let due = granted - original.counted.get(key).copied().unwrap_or(0);
        sum_due += due;
        sum_owed += all;
        is_exact &= all == due;
        assert!(
            unasked <= due,
            "{what}: {unasked} of {key} are sent, and {due} are owed"
        );
    }
    let lost: i64 = owed
        .iter()
        .filter(|(key, _)| !original.granted.contains_key(*key))
        .map(|(_, owed)| owed.0)
        .sum();
    // Of a file that ends too early, there may be nothing left that says what is owed; that is said.
    let is_less = sum_owed + lost < sum_due;
    // Nor is there of a log's newest part. That is said, and a person accepts it.
    let is_gone = what.contains("ledger.db, cut") || what.contains("ledger.db-wal");
    let is_said = ended == Ended::Accepted && is_gone;
    assert!(
        is_said || !is_less,
        "{what}: {sum_owed} + {lost} of {sum_due}"
    );
    let owed = match (is_exact, is_less) {
        (true, _) => Owed::Known,
        (false, false) => Owed::Held,
        (false, true) => Owed::Lost,
    };
    (ended, owed)
}

#[test]
fn no_random_damage_forgets_what_is_owed() {
    let mut outcomes: BTreeMap<(Ended, Owed), usize> = BTreeMap::new();
    let originals = originals();
    let count = std::env::var("TALLY_DAMAGES")
        .ok()
        .and_then(|count| count.parse().ok());
    for seed in 0..count.unwrap_or(160) {
        let mut random = StdRng::seed_from_u64(seed);
        let original = &originals[usize::from(random.random_bool(0.5))];
        let mut files = original.files.clone();
        let index = random.random_range(0..files.len());
        let (name, bytes) = &mut files[index];
        let what = format!("seed {seed}: {name}, {}", damage(&mut random, bytes));
        let outcome = check(original, &files, &what);
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("{outcomes:?}");
}

#[test]
fn a_ledger_that_is_whole_is_not_touched() {
    for original in originals() {
        let ended = check(&original, &original.files, "nothing");
        assert_eq!(ended, (Ended::Unharmed, Owed::Known));
    }
}

#[test]
fn every_page_can_be_lost() {
    let [running, closed] = originals();
    let mut outcomes: BTreeMap<(Ended, Owed), usize> = BTreeMap::new();
    for original in [&running, &closed] {
        for page in 0..original.files[0].1.len() / 4096 {
            let mut files = original.files.clone();
            files[0].1[page * 4096..(page + 1) * 4096].fill(0);
            let outcome = check(original, &files, &format!("page {}", page + 1));
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    println!("{outcomes:?}");
}

/// A folder in which a recovery waits to be accepted.
fn pending() -> (tempfile::TempDir, PathBuf) {
    let [_, mut closed] = originals();
    let folder = tempfile::tempdir().unwrap();
    let bytes = &mut closed.files[0].1;
    let length = bytes.len();
    bytes.truncate(length / 2);
    write(folder.path(), &closed.files);
    let opened = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
    let Err(RecoveryError::Pending { folder: kept, .. }) = opened else {
        panic!("half of a ledger is taken for a whole one");
    };
    (folder, kept)
}

fn set_accepted(folder: &Path) {
    let path = folder.join("recovery.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("\"accepted\":false", "\"accepted\":true");
    fs::write(&path, text).unwrap();
}

#[test]
fn a_recovery_that_was_cut_off_is_taken_up() {
    // Before it was known: all is begun again, and nothing of it is left.
    let (folder, kept) = pending();
    fs::remove_file(folder.path().join("recovery.json")).unwrap();
    let part = folder.path().join("damaged-x.part");
    fs::rename(&kept, &part).unwrap();
    let again = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
    assert!(matches!(again, Err(RecoveryError::Pending { .. })));
    assert!(!part.exists());

    // Before the folder had its name.
    let (folder, kept) = pending();
    fs::rename(
        &kept,
        kept.with_file_name(format!("{}.part", kept.file_name().unwrap().display())),
    )
    .unwrap();
    let again = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
    assert!(matches!(again, Err(RecoveryError::Pending { .. })));
    assert!(kept.join("ledger.db").exists());

    // Accepted, and not in place; an old log must not be written into the new ledger.
    let (folder, kept) = pending();
    let path = folder.path().join("ledger.db");
    let state = fs::read(folder.path().join("recovery.json")).unwrap();
    recovery::accept(folder.path(), &FixedClocks, &guard(folder.path())).unwrap();
    fs::rename(&path, folder.path().join("ledger.recovered.db")).unwrap();
    fs::copy(kept.join("ledger.db"), &path).unwrap();
    fs::write(folder.path().join("ledger.db-wal"), "an old log").unwrap();
    fs::write(folder.path().join("recovery.json"), state).unwrap();
    set_accepted(folder.path());
    let opened = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
    opened.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(!folder.path().join("recovery.json").exists());

    // In place, and not done.
    let (folder, _) = pending();
    let state = fs::read(folder.path().join("recovery.json")).unwrap();
    recovery::accept(folder.path(), &FixedClocks, &guard(folder.path())).unwrap();
    fs::write(folder.path().join("recovery.json"), state).unwrap();
    set_accepted(folder.path());
    let opened = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
    opened.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(!folder.path().join("recovery.json").exists());
}

#[test]
fn another_ledger_in_its_place_ends_a_recovery() {
    let (folder, kept) = pending();
    let [_, closed] = originals();
    write(folder.path(), &closed.files);
    let opened = recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path())).unwrap();
    assert!(verify::verify(&opened, &key()).unwrap().is_sound());
    assert!(kept.exists() && !folder.path().join("recovery.json").exists());
}

#[test]
fn the_log_alone_tells_what_is_owed() {
    for round in [0, 4, 7] {
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(&folder.path().join("ledger.db"));
        world.fill_and_restart_log(round);
        let apart = tempfile::tempdir().unwrap();
        for name in ["ledger.db-wal", "ledger.db-shm"] {
            fs::copy(folder.path().join(name), apart.path().join(name)).unwrap();
        }
        let opened = recovery::open(apart.path(), true, &FixedClocks, &guard(apart.path()));
        assert!(matches!(opened, Err(RecoveryError::Pending { .. })));
        recovery::accept(apart.path(), &FixedClocks, &guard(apart.path())).unwrap();
        let connection =
            recovery::open(apart.path(), true, &FixedClocks, &guard(apart.path())).unwrap();
        assert!(verify::verify(&connection, &key()).unwrap().is_sound());
        assert_eq!(stuck(&connection), [0; 0]);
        let owed: i64 = owed(&connection).values().map(|owed| owed.0).sum();
        let due = world.granted.values().sum::<i64>() - world.counted.values().sum::<i64>();
        assert_eq!(owed, due, "the log was begun anew in round {round}");
    }
}

/// The page of this table is lost; a forgotten licence keeps its rows, and nothing is owed of it.
#[track_caller]
fn check_forgotten(table: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let mut world = World::new(&path);
    world.fill_and_forget();
    let rows_before = rows(&world.connection);
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
    let root: u32 = world
        .connection
        .query_row(sql, [table], |row| row.get(0))
        .unwrap();
    drop(world.connection);
    let root = usize::try_from(root).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[(root - 1) * 4096..root * 4096].fill(0);
    fs::write(&path, bytes).unwrap();

    let open = || recovery::open(folder.path(), true, &FixedClocks, &guard(folder.path()));
    let opened = open();
    if matches!(opened, Err(RecoveryError::Pending { .. })) {
        recovery::accept(folder.path(), &FixedClocks, &guard(folder.path())).unwrap();
    }
    let connection = opened.or_else(|_| open()).unwrap();
    let mut found = fs::read_dir(folder.path()).unwrap();
    let is_kept = |name: &str| name.starts_with("damaged-");
    let is_salvaged = found.any(|entry| is_kept(&entry.unwrap().file_name().to_string_lossy()));
    assert!(is_salvaged, "{table}: it was not taken for damaged");
    let findings = verify::verify(&connection, &key()).unwrap();
    assert!(findings.is_sound(), "{table}: {findings:?}");
    assert_eq!(rows(&connection), rows_before, "{table}");
    assert_eq!(owed(&connection).get("K1"), None, "{table}");
    let sql = "SELECT count(*) FROM devices JOIN licenses ON licenses.no = license
               WHERE holder_value = 'K1'";
    let devices: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(devices, 0, "{table}: it stays forgotten");
    let opened = |no: i64| -> i64 {
        let sql = "SELECT count(*) FROM names WHERE holder_value = ?1 AND is_default";
        let holder = format!("K{no}");
        connection
            .query_row(sql, [holder], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(opened(1), 0, "{table}: its key opens nothing");
    if table == "names" {
        assert_eq!([opened(2), opened(3)], [1, 1], "the keys open the others");
    }
}

#[test]
fn a_forgotten_licence_keeps_its_rows_and_stays_forgotten() {
    for table in [
        "licenses", "devices", "accounts", "lanes", "batches", "names",
    ] {
        check_forgotten(table);
    }
}
