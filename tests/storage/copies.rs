//! Ledgers that are copied in the ways that people copy folders, on a real file system.

use std::{fs, path::Path, process::Command};

use tally_tests::recorder::{self, Recorder};

/// Number of copies of each kind.
const COPIES: usize = 100;

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Makes a data directory with a ledger in it that owes a unit, as an agent that ran and ended leaves it.
fn make(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let engine = recorder::open_engine_at_home(folder).unwrap();
    Recorder::on(engine, 1).unwrap().fill(1).unwrap();
}

/// Starts on a ledger. Returns whether it takes it for a copy.
fn is_copy(folder: &Path) -> bool {
    let mut engine = recorder::open_engine_at_home(folder).unwrap();
    engine.turn([].into_iter());
    !engine.core().book().copies().open.is_empty()
}

#[test]
fn a_hundred_copies_of_each_kind_are_found() {
    let root = tempfile::tempdir().unwrap();
    let original = root.path().join("data");
    make(&original);
    let archive = root.path().join("data.tar");
    run(Command::new("tar")
        .arg("-C")
        .arg(&original)
        .arg("-cf")
        .arg(&archive)
        .arg("."));
    for number in 0..COPIES {
        let copied = root.path().join(format!("copied-{number}"));
        run(Command::new("cp").arg("-a").arg(&original).arg(&copied));
        assert!(is_copy(&copied), "copied by cp, {number}");

        let unpacked = root.path().join(format!("unpacked-{number}"));
        fs::create_dir(&unpacked).unwrap();
        run(Command::new("tar")
            .arg("-C")
            .arg(&unpacked)
            .arg("-xpf")
            .arg(&archive));
        assert!(is_copy(&unpacked), "unpacked, {number}");

        // Put back from a backup, at the place where it was.
        let data = root.path().join(format!("put-back-{number}"));
        let backup = root.path().join("backup");
        make(&data);
        run(Command::new("cp").arg("-a").arg(&data).arg(&backup));
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&backup, &data).unwrap();
        assert!(is_copy(&data), "put back, {number}");

        assert!(!is_copy(&original), "the original, {number}");
    }
}
