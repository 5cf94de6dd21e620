//! Batches whose answer was lost: what the total says of them.

use super::*;

#[test]
fn without_keys_an_unknown_batch_is_never_sent_again_before_the_total_was_read() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let first = world.sent();
    world.lose(first.0);
    assert!(world.look_up(0).is_empty(), "it could still arrive");
    world.pass(Duration::from_millis(29_999));
    assert!(world.tell(Event::Tick).is_empty(), "it could still arrive");
    world.pass(Duration::from_millis(1));
    world.reads();
    assert!(world.look_up(0).is_empty(), "one reading may be old");
    assert_eq!(world.sums().unknown, 5);
    world.pass(SETTLE_WAIT);
    world.reads();
    assert!(matches!(
        world.look_up(0).as_slice(),
        [Command::Send { .. }]
    ));
}

#[test]
fn a_total_that_moved_by_a_batch_settles_it_when_it_still_stands_there() {
    for (total, settled, held) in [(5, 5, 0), (9, 0, 5)] {
        let mut world = World::new(100, KeyEcho::Absent);
        world.record(5).unwrap();
        let first = world.sent();
        world.lose(first.0);
        world.look_up(5);
        assert_eq!(world.sums().unknown, 5, "others may have moved it");
        world.reads();
        world.look_up(total);
        assert_eq!((world.sums().settled, world.sums().held), (settled, held));
        assert!(world.findings().is_empty());
    }
}

#[test]
fn a_total_that_was_read_right_before_and_moved_by_a_batch_settles_it_at_once() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let first = world.sent();
    let outcome = world.applied(5);
    world.answer(first.0, outcome, KeyEcho::Absent);
    world.record(7).unwrap();
    let second = world.tell(Event::Nudge);
    assert!(matches!(second.as_slice(), [Command::Send { .. }]));
    world.lose(BatchNo(2));
    world.look_up(12);
    assert_eq!(world.sums().settled, 12);
    assert!(world.findings().is_empty());
}

#[test]
fn an_agent_that_was_started_anew_does_not_wait_again_for_a_total_that_moved_by_a_batch() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let first = world.sent();
    world.lose(first.0);
    world.now.time = world.now.time.plus(Duration::from_hours(20));
    world.look_up(5);
    assert_eq!(world.sums().settled, 5);
}

#[test]
fn a_total_from_a_cache_decides_nothing() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let first = world.sent();
    world.lose(first.0);
    world.look_up_stale(0);
    for _ in 0..4 {
        world.pass(2 * SETTLE_WAIT);
        world.reads();
        world.look_up_stale(0);
    }
    assert_eq!(world.sums().unknown, 5);
}

#[test]
fn the_total_tells_what_became_of_an_unknown_batch() {
    let after = |total: i64| {
        let mut world = World::new(100, KeyEcho::Absent);
        world.record(5).unwrap();
        let first = world.sent();
        world.lose(first.0);
        world.look_up(0);
        world.pass(SETTLE_WAIT);
        world.reads();
        let mut commands = world.look_up(total);
        if world.sums().unknown > 0 {
            world.pass(SETTLE_WAIT);
            world.reads();
            commands = world.look_up(total);
        }
        (world.sums(), commands.len())
    };
    assert!(
        matches!(after(5), (Conservation { settled: 5, .. }, 0)),
        "it moved by its units"
    );
    assert!(
        matches!(after(0), (Conservation { in_flight: 5, .. }, 1)),
        "it did not move"
    );
    assert!(
        matches!(after(4), (Conservation { held: 5, .. }, 0)),
        "nobody else was seen to use it: the vendor may have moved it, down from where the batch brought it"
    );
    assert!(
        matches!(after(7), (Conservation { held: 5, .. }, 0)),
        "somebody else moved it"
    );
}

#[test]
fn a_total_that_was_asked_for_while_the_batch_could_still_arrive_decides_nothing() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let first = world.sent();
    world.lose(first.0);
    let asked_at = world.now.mono;
    world.pass(SETTLE_WAIT);
    let found = world.found(0);
    world
        .core
        .learn(world.now, &found, asked_at, KeyEcho::NoAnswer);
    assert_eq!(world.sums().unknown, 5);
}

#[test]
fn a_total_that_was_on_its_way_while_a_newer_one_was_heard_is_ignored() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    let asked_at = world.now.mono;
    let (batch, _, _) = world.sent();
    let outcome = world.applied(5);
    world.answer(batch, outcome, KeyEcho::Absent);
    let found = world.found(0);
    world
        .core
        .learn(world.now, &found, asked_at, KeyEcho::NoAnswer);
    assert_eq!(world.core.status(world.now).licenses[0].total.get(), 5);
}

#[test]
fn what_was_sent_when_the_process_ended_is_unknown_after_it_starts_again() {
    let mut world = World::new(100, KeyEcho::Absent);
    world.record(5).unwrap();
    world.sent();
    world.core.resume(world.now);
    assert_eq!(world.sums().unknown, 5);
}
