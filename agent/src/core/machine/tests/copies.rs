//! A ledger that is a copy, by the core alone.

use super::*;
use crate::core::{
    Decision, DeviceIs, Unresolvable,
    book::{BatchState, CopyKind, Hold},
    doubt::Doubt,
    instance::Difference,
};

/// For how long a key is trusted.
const KEY_AGE_MAX: Duration = Duration::from_hours(23);

/// A copy that owes batches of these units, and was written so long ago.
fn copy(key: KeyEcho, units: &[i64], age: Duration) -> World {
    let mut world = World::new(100, key);
    for units in units {
        world.record(*units).unwrap();
        world.core.close_batches();
        world.core.book_mut().committed();
    }
    doubt(&mut world, age, true);
    if key == KeyEcho::Echoed {
        world.look_up_echoing(0, key);
    }
    world
}

fn doubt(world: &mut World, age: Duration, proven: bool) -> Vec<Command> {
    let ago = i64::try_from(age.as_millis()).unwrap();
    let written = world.now.time.plus_millis(-ago);
    world.tell(Event::Doubted(Doubt::Copied {
        differs: Difference::File,
        host: Some("line-1".to_owned()),
        path: Some("/var/lib/tally/ledger.db".to_owned()),
        written: (written, proven),
    }))
}

fn states(world: &World) -> Vec<BatchState> {
    let batches = world.core.book().batches();
    batches.map(|batch| batch.state).collect()
}

const HELD: BatchState = BatchState::Held(Hold::Copy);

#[test]
fn a_copy_asks_a_server_with_keys_under_the_key_of_the_original_one_batch_after_the_other() {
    let mut original = World::new(100, KeyEcho::Echoed);
    original.record(5).unwrap();
    let key = original.sent().1;
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    world.core.close_batches();
    world.record(7).unwrap();
    world.core.close_batches();
    world.core.book_mut().committed();
    assert!(
        doubt(&mut world, Duration::from_mins(1), true)
            .iter()
            .all(is_reading)
    );
    let sent = world.look_up_echoing(5, KeyEcho::Echoed);
    let [
        Command::Send {
            batch,
            key: Some(first),
            ..
        },
    ] = sent.as_slice()
    else {
        panic!("{sent:?}");
    };
    assert_eq!(Some(first.id), key, "the original has another key");
    assert_eq!(states(&world), [BatchState::Sent, HELD]);
    let outcome = world.applied(5);
    let next = world.answer(*batch, outcome, KeyEcho::Replayed);
    assert!(next.iter().all(is_reading), "{next:?}");
    let next = world.look_up_echoing(5, KeyEcho::Echoed);
    assert!(
        matches!(next.as_slice(), [Command::Send { .. }]),
        "{next:?}"
    );
    assert_eq!(world.core.book().evidence(), 1);
    let status = world.core.status(world.now).copy.unwrap();
    assert_eq!((status.what, status.held), (CopyKind::Copied, 0));
}

#[test]
fn a_copy_that_was_written_too_long_ago_sends_nothing_unasked() {
    let just = copy(
        KeyEcho::Echoed,
        &[5],
        KEY_AGE_MAX.saturating_sub(Duration::from_secs(1)),
    );
    assert_eq!(states(&just), [BatchState::Sent]);
    let world = copy(KeyEcho::Echoed, &[5], KEY_AGE_MAX);
    assert_eq!(states(&world), [HELD]);
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    world.core.close_batches();
    assert!(
        doubt(&mut world, Duration::ZERO, false)
            .iter()
            .all(is_reading)
    );
    assert_eq!(states(&world), [HELD], "nobody knows when it was written");
}

fn is_reading(command: &Command) -> bool {
    matches!(command, Command::LookUp { .. })
}

#[test]
fn a_copy_sends_nothing_unasked_to_a_server_without_keys_however_often_the_total_is_read() {
    let mut world = copy(KeyEcho::Absent, &[5, 7], Duration::ZERO);
    assert_eq!(states(&world), [HELD, HELD]);
    for _ in 0..4 {
        world.pass(SETTLE_WAIT);
        assert!(world.look_up(0).iter().all(is_reading));
        assert!(world.tell(Event::Nudge).iter().all(is_reading));
        world.look_up(0);
    }
    assert_eq!(states(&world), [HELD, HELD]);
}

#[test]
fn a_copy_sends_nothing_where_the_total_moved_by_anything_but_its_batches() {
    // The original sent none, the first, or both of them; or something else, maybe some of these rows under other ids.
    for (total, is_sent) in [(0, true), (5, true), (12, true), (4, false), (7, false)] {
        let mut world = World::new(100, KeyEcho::Echoed);
        for units in [5, 7] {
            world.record(units).unwrap();
            world.core.close_batches();
            world.core.book_mut().committed();
        }
        doubt(&mut world, Duration::ZERO, true);
        let commands = world.look_up_echoing(total, KeyEcho::Echoed);
        let sends = commands.iter().any(|command| !is_reading(command));
        assert_eq!(sends, is_sent, "{total}: {commands:?}");
        assert!(states(&world).contains(&HELD));
    }
}

#[test]
fn of_a_moved_device_whose_total_moved_by_less_than_a_batch_a_person_decides() {
    // The original sent the part of it for which there was room.
    let mut world = copy(KeyEcho::Absent, &[5, 7], Duration::ZERO);
    let now = world.now;
    world
        .core
        .device_is(now, DeviceIs::Moved, Some("a test"))
        .unwrap();
    world.core.book_mut().committed();
    world.tell(Event::Nudge);
    for _ in 0..3 {
        world.look_up(3);
        world.pass(SETTLE_WAIT);
        world.tell(Event::Tick);
    }
    assert_eq!((world.sums().held, world.sums().in_flight), (12, 0));
}

#[test]
fn rows_that_the_original_may_have_added_to_are_not_sent_under_a_key() {
    let mut world = World::new(100, KeyEcho::Echoed);
    world.record(5).unwrap();
    world.core.close_batches();
    world.core.open_at_start.insert(BatchNo(1));
    doubt(&mut world, Duration::ZERO, true);
    assert_eq!(states(&world), [HELD]);
}

#[test]
fn a_refusal_or_a_key_that_grew_old_makes_a_copy_wait_again() {
    let mut world = copy(KeyEcho::Echoed, &[5], Duration::ZERO);
    world.answer(BatchNo(1), SendOutcome::RefusedLimit, KeyEcho::Replayed);
    assert_eq!(
        states(&world),
        [HELD],
        "the original may have gone on in parts"
    );
    world.pass(SETTLE_WAIT);
    assert!(world.tell(Event::Nudge).iter().all(is_reading));
    assert_eq!(states(&world), [HELD]);
    let mut world = copy(
        KeyEcho::Echoed,
        &[5],
        KEY_AGE_MAX.saturating_sub(Duration::from_mins(1)),
    );
    world.answer(BatchNo(1), lost(), KeyEcho::NoAnswer);
    world.pass(Duration::from_mins(2));
    world.tell(Event::Tick);
    assert_eq!(states(&world), [HELD]);
}

#[test]
fn a_moved_device_compares_its_total_once_and_sends_all_that_was_not_counted() {
    let mut world = copy(KeyEcho::Absent, &[5, 7], Duration::from_hours(100));
    world
        .core
        .device_is(world.now, DeviceIs::Moved, Some("moved"))
        .unwrap();
    assert!(world.tell(Event::Tick).iter().all(is_reading));
    assert_eq!(world.core.book().evidence(), 0);
    assert!(world.core.status(world.now).copy.is_none());
    world.look_up(0);
    for _ in 0..2 {
        world.pass(SETTLE_WAIT);
        world.tell(Event::Tick);
        world.look_up(0);
    }
    // The total did not move at all: that speaks for the second one too.
    assert_eq!(states(&world), [BatchState::Sent, BatchState::Sealed]);
    let outcome = world.applied(5);
    let next = world.answer(BatchNo(1), outcome, KeyEcho::Absent);
    assert!(
        matches!(next.as_slice(), [Command::Send { .. }]),
        "{next:?}"
    );
    let outcome = world.applied(12);
    world.answer(BatchNo(2), outcome, KeyEcho::Absent);
    assert_eq!(world.sums().settled, 12);
}

#[test]
fn where_the_total_cannot_tell_what_the_original_did_a_person_decides_about_all_of_it() {
    let mut world = copy(KeyEcho::Absent, &[5, 7], Duration::ZERO);
    world
        .core
        .device_is(world.now, DeviceIs::Moved, None)
        .unwrap();
    world.tell(Event::Tick);
    world.look_up(9);
    for _ in 0..2 {
        world.pass(SETTLE_WAIT);
        world.tell(Event::Tick);
        world.look_up(9);
    }
    let undecidable = BatchState::Held(Hold::Undecidable);
    assert_eq!(states(&world), [undecidable, undecidable]);
}

#[test]
fn a_new_device_gives_up_what_the_original_owes_and_has_ids_of_its_own() {
    let mut world = copy(KeyEcho::Absent, &[5, 7], Duration::ZERO);
    world.record(2).unwrap();
    world
        .core
        .device_is(world.now, DeviceIs::New, None)
        .unwrap();
    world.core.book_mut().committed();
    let sums = world.sums();
    assert_eq!((sums.waived, sums.pending, sums.held), (12, 2, 0));
    assert_eq!(world.core.book().evidence(), 0);
    let again = world.core.device_is(world.now, DeviceIs::New, None);
    assert_eq!(again, Err(Unresolvable::NoCopy));
}

#[test]
fn what_a_copy_records_has_ids_that_the_original_never_has() {
    let mut original = World::new(100, KeyEcho::Echoed);
    original.record(5).unwrap();
    let mut world = World::new(100, KeyEcho::Echoed);
    doubt(&mut world, Duration::ZERO, true);
    world.record(5).unwrap();
    let ids = [&original, &world].map(|world| {
        let book = world.core.book();
        book.batches().next().and_then(|batch| book.id_of(batch))
    });
    assert!(ids[0].is_some() && ids[0] != ids[1], "{ids:?}");
}

#[test]
fn a_doubt_that_could_not_be_written_changes_nothing() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    world.core.close_batches();
    world.core.book_mut().committed();
    let (before, id) = (states(&world), world.core.book().id());
    let written = (world.now.time, true);
    let commands = world.core.handle(
        world.now,
        Event::Doubted(Doubt::Copied {
            differs: Difference::Hardware,
            host: None,
            path: None,
            written,
        }),
    );
    assert_eq!(states(&world), [HELD]);
    world.core.roll_back(&commands);
    assert_eq!((states(&world), world.core.book().id()), (before, id));
    assert!(world.core.book().copies().open.is_empty());
}

#[test]
fn what_the_original_was_refused_blocks_nothing_and_goes_on_under_another_id_when_a_person_says_so()
{
    let mut world = copy(KeyEcho::Echoed, &[5], Duration::from_mins(1));
    let sealed = world.core.book().batch(BatchNo(1)).unwrap().sealed.clone();
    let refused = SendOutcome::RefusedLicense(ErrorCode::LicenseNotEnabled);
    world.answer(BatchNo(1), refused, KeyEcho::Replayed);
    assert_eq!(states(&world), [HELD]);
    world.look_up_echoing(0, KeyEcho::Echoed);
    world.record(1).unwrap();
    world
        .core
        .resolve(world.now, BatchNo(1), Decision::NotApplied, None)
        .unwrap();
    world.core.book_mut().committed();
    let sent = world.tell(Event::Tick);
    let [Command::Send { key: Some(key), .. }] = sent.as_slice() else {
        panic!("it should be sent, not {sent:?}");
    };
    assert_ne!(Some(key.id), sealed.map(|sealed| sealed.id));
}
