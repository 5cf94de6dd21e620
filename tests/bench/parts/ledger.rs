//! What the ledger does for many rows at once, on the disk that the build folder is on.

use std::cell::RefCell;

use divan::{Bencher, counter::ItemsCount};
use tally_agent::{
    config::paths::DataDir,
    core::{
        book::Batch,
        event::{Event, KeyEcho},
        outcome::{Counted, SendOutcome},
    },
    ledger::{
        engine::{Engine, Job},
        evidence, schema,
        verify::verify,
    },
};
use tally_shared::limits::Standing;
use tally_tests::recorder::Recorder;
use tempfile::TempDir;

/// Rows of the ledger that is verified.
const VERIFIED: u64 = 200_000;

/// On a disk, which the folder for temporary files may not be.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Rows that share one wait for the disk, decided, chained and answered. The log is copied back in
/// between, as the agent does in a moment of its own.
#[divan::bench(args = [1, 8, 64, 256], sample_count = 500, sample_size = 1)]
fn group_commit(bencher: Bencher<'_, '_>, rows: u64) {
    let folder = folder();
    let recorder = RefCell::new(Recorder::open(folder.path(), 1).unwrap());
    bencher
        .counter(ItemsCount::new(rows))
        .with_inputs(|| {
            let mut recorder = recorder.borrow_mut();
            recorder.engine.tidy();
            recorder.jobs(rows)
        })
        .bench_local_values(|(jobs, answers)| {
            recorder.borrow_mut().engine.turn(jobs.into_iter());
            answers
        });
}

/// Sealing what waits, up to the commit after which it is sent: however much it is, it costs the same.
#[divan::bench(args = [1, 1_000, 100_000], sample_count = 20, sample_size = 1)]
fn seal(bencher: Bencher<'_, '_>, pending: u64) {
    let folder = folder();
    let recorder = RefCell::new(Recorder::open(folder.path(), 1).unwrap());
    bencher
        .with_inputs(|| {
            let mut recorder = recorder.borrow_mut();
            settle(&mut recorder.engine);
            recorder.fill(pending).unwrap();
            recorder.engine.tidy();
        })
        .bench_local_values(|()| {
            let tick = Job::Event(Event::Tick);
            let turn = recorder.borrow_mut().engine.turn(std::iter::once(tick));
            assert_eq!(turn.commands.len(), 1, "one batch is sent");
        });
}

/// The whole proof: the chain over every row, and the sums against the rows.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn verify_rows(bencher: Bencher<'_, '_>) {
    let folder = folder();
    Recorder::open(folder.path(), 1)
        .and_then(|mut recorder| recorder.fill(VERIFIED))
        .unwrap();
    let names = DataDir::new(folder.path().to_owned());
    let key = evidence::open_key(&names.chain_key()).unwrap();
    let connection = schema::open_read_only(&names.ledger()).unwrap();
    bencher
        .counter(ItemsCount::new(VERIFIED))
        .bench_local(|| verify(&connection, &key).unwrap());
}

/// The server has counted what was sent.
fn settle(engine: &mut Engine) {
    let book = engine.core().book();
    let answer = |batch: &Batch| {
        let license = book.licenses().next()?;
        let standing = book.account_of(license.no, None)?.standing;
        Some(Event::Answered {
            batch: batch.no,
            outcome: SendOutcome::Applied(Counted::from(Standing {
                total: standing.total.checked_add(batch.units)?,
                ..standing
            })),
            key: KeyEcho::Echoed,
        })
    };
    let answers: Vec<Job> = book.batches().filter_map(answer).map(Job::Event).collect();
    engine.turn(answers.into_iter());
}
