//! Every kind of operation fails, once and for good, at every place of a ledger's life.

use tally_agent::ledger::engine::RecordError;
use tally_simdisk::{ErrorKind, Fault, Kind};

use crate::bench::Bench;

/// Lets operations of a kind fail from the n-th on, for all n up to the end of the ledger's life.
fn fail_everywhere(kind: Kind, times: Option<u64>, error: ErrorKind) -> u64 {
    let mut whole = Bench::new();
    let before = whole.disk.count(kind);
    whole.live();
    let operations = whole.disk.count(kind) - before;
    // Some kinds happen hundreds of times: every third then, and never the same of three.
    let step = if operations > 150 { 3 } else { 1 };
    let mut fired = 0;
    for skip in (0..operations).step_by(step) {
        let when = format!("{kind:?} {skip} fails {times:?} times: {error:?}");
        let mut bench = Bench::new();
        bench.disk.fail(Fault {
            kind,
            skip,
            times,
            error,
        });
        bench.live();
        fired += u64::from(bench.disk.fired() > 0);
        bench.disk.heal();
        recover(&mut bench, &when);
    }
    fired
}

/// When the disk works again, so does the ledger: by itself, or after a start where it could not start.
fn recover(bench: &mut Bench, when: &str) {
    bench.learn();
    let mut answer = bench.record(1);
    if !matches!(&answer, Some(Ok(answer)) if answer.status == 200) {
        // The agent had not started; one that runs needs no help.
        let runs = matches!(answer, Some(Err(RecordError::Storage(_))));
        assert!(
            !runs,
            "{when}: the ledger does not recover by itself: {answer:?}"
        );
        bench
            .start()
            .unwrap_or_else(|error| panic!("{when}: {error:?}"));
        bench.learn();
        answer = bench.record(1);
    }
    assert!(
        matches!(&answer, Some(Ok(answer)) if answer.status == 200),
        "{when}: {answer:?}"
    );
    bench.check(when);
    bench.die();
    bench.start().unwrap();
    bench.check(when);
}

#[test]
fn a_write_that_fails_loses_nothing_that_was_acknowledged() {
    assert!(fail_everywhere(Kind::Write, Some(1), ErrorKind::Io) > 50);
    assert!(fail_everywhere(Kind::Write, None, ErrorKind::Io) > 50);
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    assert!(fail_everywhere(Kind::Write, Some(1), ErrorKind::Full) > 50);
    assert!(fail_everywhere(Kind::Write, None, ErrorKind::Full) > 50);
}

#[test]
fn a_disk_that_becomes_read_only_loses_nothing_that_was_acknowledged() {
    assert!(fail_everywhere(Kind::Write, None, ErrorKind::ReadOnly) > 50);
}

#[test]
fn a_sync_that_fails_loses_nothing_that_was_acknowledged() {
    assert!(fail_everywhere(Kind::Sync, Some(1), ErrorKind::Io) > 30);
    assert!(fail_everywhere(Kind::Sync, None, ErrorKind::Io) > 30);
}

#[test]
fn a_read_that_fails_loses_nothing_that_was_acknowledged() {
    assert!(fail_everywhere(Kind::Read, Some(1), ErrorKind::Io) > 20);
    assert!(fail_everywhere(Kind::Read, None, ErrorKind::Io) > 20);
}

#[test]
fn a_truncation_or_an_opening_that_fails_loses_nothing_that_was_acknowledged() {
    for kind in [Kind::Truncate, Kind::Open, Kind::Delete] {
        fail_everywhere(kind, Some(1), ErrorKind::Io);
        fail_everywhere(kind, None, ErrorKind::Io);
    }
}
